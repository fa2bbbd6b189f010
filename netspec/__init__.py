"""netspec compiles Caffe's net language to JAX.

Its public names are `load`, `Net`, `Solver` and `NetSpecError`; `netspec.spec` writes nets in
Python, and `netspec.caffe` stands in for pycaffe. Importing it imports no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netspec.reporting.version import __version__ as __version__

if TYPE_CHECKING:
    from netspec.build import load as load
    from netspec.errors import NetSpecError as NetSpecError
    from netspec.runtime.module import Net as Net
    from netspec.solving.solver import Solver as Solver

# Public name -> its module, imported when the name is first used: JAX takes seconds to import.
_HOMES = {
    "Net": "netspec.runtime.module",
    "NetSpecError": "netspec.errors",
    "Solver": "netspec.solving.solver",
    "load": "netspec.build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'netspec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
