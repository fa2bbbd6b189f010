"""netspec compiles Caffe's net language to JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netspec.build import load as load
    from netspec.errors import NetSpecError as NetSpecError
    from netspec.runtime.module import Net as Net
    from netspec.solving.solver import Solver as Solver

__version__ = "0.1.0"

# Imported when first asked for: JAX takes seconds, and `netspec --help` needs none of it.
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
