"""The command ``netspec``: groups that know their verbs, and a module for each few verbs.

`verbs`, `data` and `caffe` name each verb's module and import none; a verb's module imports what it
needs at its top, every package if need be. Only `__main__` imports this package. ``main``, the
command itself, is in `verbs`.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # Found when it is asked for: each verb's module is in this package, and needs no other verb.
    if name != "main":
        raise AttributeError(f"module 'netspec.cli' has no attribute {name!r}")
    return import_module("netspec.cli.verbs").main
