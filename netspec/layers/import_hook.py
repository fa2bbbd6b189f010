"""The import hook that makes ``import caffe`` mean ``netspec.caffe``, in users' layers or always.

An installed pycaffe is passed over, and stays as it is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType


class _Finder(MetaPathFinder, Loader):
    """Finds ``caffe``, and what is in it, in netspec."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """netspec's spec of a module of pycaffe; None for other modules."""
        return spec_from_loader(name, self) if _is_pycaffe(name) else None

    def exec_module(self, module: ModuleType) -> None:
        """Put netspec's module in the place of an empty one."""
        name = module.__name__
        try:
            # By name: what users see of netspec stands above its layers.
            sys.modules[name] = import_module(f"netspec.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"netspec.{name}":
                raise
            raise ModuleNotFoundError(f"netspec has no {name}", name=name) from None


_FINDER = _Finder()
_LOCK = threading.Lock()
# One for each call of users' code under way, and one for `install`.
_INSIDE: list[None] = []
# The modules of another pycaffe that was imported before `install`.
_OTHERS: dict[str, ModuleType] = {}
_INSTALLED: list[None] = []


@contextmanager
def importing(path: Sequence[str]) -> Iterator[None]:
    """The folders of ``path`` in front of Python's own, and a ``caffe`` to import.

    The folder of the script that runs, if one does, stays before them, as in all its imports.
    """
    # Calls may overlap, each in a thread of its own: the last one tidies up.
    with _LOCK:
        _enter()
        start = _behind_script()
        sys.path[start:start] = path
    try:
        yield
    finally:
        with _LOCK:
            for folder in path:
                sys.path.remove(folder)
            _leave()


def install() -> None:
    """Let ``import caffe`` mean netspec from now on, in this process.

    An installed pycaffe is passed over; what was imported of it before stays with whom has it.
    """
    with _LOCK:
        if not _INSTALLED:
            _INSTALLED.append(None)
            _OTHERS.update((name, sys.modules.pop(name)) for name in _imported() if not _ours(name))
            _enter()


def uninstall() -> None:
    """Let ``import caffe`` mean again what it did before `install`."""
    with _LOCK:
        if _INSTALLED:
            _INSTALLED.clear()
            _leave()
            sys.modules.update(_OTHERS)
            _OTHERS.clear()


def _behind_script() -> int:
    """The place in Python's path behind the folder of the script that runs."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = os.path.dirname(os.path.realpath(script)) if script else None
    return sys.path.index(folder) + 1 if folder in sys.path else 0


def _enter() -> None:
    if not _INSIDE:
        sys.meta_path.insert(0, _FINDER)
    _INSIDE.append(None)


def _leave() -> None:
    _INSIDE.pop()
    if not _INSIDE:
        sys.meta_path.remove(_FINDER)
        # Other code that imports ``caffe`` must not find netspec's.
        for name in _imported():
            if _ours(name):
                del sys.modules[name]


def _imported() -> list[str]:
    return [name for name in sys.modules if _is_pycaffe(name)]


def _ours(name: str) -> bool:
    """Whether what was imported by a name of pycaffe's is netspec's."""
    return sys.modules[name].__name__ == f"netspec.{name}"


def _is_pycaffe(name: str) -> bool:
    return name.partition(".")[0] == "caffe"
