"""Users' Python classes for pycaffe: how they are found and called, and the blobs they get.

A class has ``setup``, ``reshape``, ``forward`` and ``backward``, each given bottoms and tops with
``data`` and ``diff`` in numpy. It may import ``caffe``, which is ``netspec.caffe`` then.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import LayerError, NetSpecError, fail, nearest, require
from netspec.layers.import_hook import importing
from netspec.layers.shape import Shape
from netspec.proto.layers_pb2 import PythonParameter


def class_name(param: PythonParameter) -> str:
    """The class that a prototxt names: ``module.Class``."""
    return f"{param.module}.{param.layer}"


def not_imported(param: PythonParameter) -> str:
    """The message for a module that a prototxt names where nobody asked to run it."""
    return (
        f"runs {class_name(param)}, and a module that a prototxt names is not imported "
        "unless asked for; if you trust it, give --run-python, or run_python=True in Python"
    )


class HostBlob:
    """A blob as a user's layer sees it: ``data`` and ``diff``, float32 arrays of one shape.

    One made without data has no shape before its first ``reshape``.
    """

    def __init__(self, data: Any = None) -> None:
        self._data = None if data is None else np.array(data, np.float32)
        self._diff = None if data is None else np.zeros(np.shape(data), np.float32)

    @property
    def data(self) -> np.ndarray:
        """The values, to be written in place."""
        return self._shaped(self._data)

    @property
    def diff(self) -> np.ndarray:
        """The gradient, to be written in place."""
        return self._shaped(self._diff)

    @property
    def has_shape(self) -> bool:
        """Whether it was given data or a shape."""
        return self._data is not None

    def reshape(self, *shape: int) -> None:
        """Take another shape; the values start from zero."""
        if self._data is None or self._data.shape != shape:
            self._data, self._diff = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    @property
    def shape(self) -> Shape:
        """All axes."""
        return self.data.shape

    @property
    def count(self) -> int:
        """The number of elements."""
        return self.data.size

    def __getattr__(self, name: str) -> int:
        axes = ("num", "channels", "height", "width")
        if name not in axes:
            raise AttributeError(f"a blob has no {name}")
        return (self.data.shape + (1,) * 4)[axes.index(name)]

    def _shaped(self, array: np.ndarray | None) -> np.ndarray:
        if array is None:
            raise ValueError("the blob has no shape yet; reshape it first")
        return array


class HostBlobs(list[HostBlob]):
    """``self.blobs`` of a user's layer: its learned arrays."""

    def add_blob(self, *shape: int) -> None:
        """One more, of zeros."""
        self.append(HostBlob(np.zeros(shape)))


class UserLayer:
    """What a user's class derives from: pycaffe's ``caffe.Layer``.

    param_str: the prototxt's. phase: TRAIN or TEST. blobs: learned arrays, to be added in setup.
    """

    param_str: str
    phase: int
    blobs: HostBlobs
    type = "Python"


class User:
    """A user's object: makes the class that a ``python_param`` names, and reports its errors.

    error: what its mistakes raise. folder: where its module is looked for besides the folder of the
    running script, the current folder and Python's path, in that order.
    """

    def __init__(
        self,
        param: PythonParameter,
        phase: int,
        error: type[NetSpecError] = LayerError,
        folder: Path | None = None,
    ) -> None:
        for name in ("module", "layer"):
            require(getattr(param, name), f"needs python_param {{ {name}: ... }}", error)
        self._param, self._phase, self._error = param, phase, error
        named = "" if folder in (None, Path()) else str(folder)
        self._path = list(dict.fromkeys(["", named]))
        self.name = class_name(param)

    @cached_property
    def kind(self) -> Callable[[], Any]:
        """The class, imported; raises ``error``."""
        with self.calling("import"):
            return self._find()

    def make(self) -> Any:
        """A new object of the class, not yet set up."""
        kind = self.kind
        with self.calling("__init__"):
            made = kind()
        made.param_str, made.phase = self._param.param_str, self._phase
        made.blobs = HostBlobs()
        return made

    @property
    def file(self) -> str | None:
        """The file of the module, which is not imported for it; None if there is none."""
        module = self._param.module
        if module in sys.modules:
            return getattr(sys.modules[module], "__file__", None)
        with self.calling("import"):
            try:
                spec = find_spec(module)
            except ModuleNotFoundError as error:
                # The package that should hold it is missing.
                if not self._leads_to(error.name):
                    raise
                return None
        # A mere folder of that name is none.
        return spec.origin if spec else None

    @contextmanager
    def calling(self, step: str) -> Iterator[None]:
        """Turn whatever a user's method raises inside into ``error``, which says where it did.

        step: the method, or "import".
        """
        try:
            with importing(self._path):
                yield
        except self._error:
            raise
        # An exit() would end a thread, and nobody would know.
        except (Exception, SystemExit) as error:
            said = f": {error}" if str(error) else ""
            raise self._error(
                f"{self.name}.{step}: {type(error).__name__}{said}{self._where(error)}"
            ) from error

    @property
    def missing(self) -> str:
        """What to say where there is no such module."""
        places = ", ".join(["the current folder", *(f"in {path}" for path in self._path[1:])])
        return (
            f'no module "{self._param.module}" in {places} or on PYTHONPATH; it should define '
            f"the class {self._param.layer}"
        )

    def _find(self) -> Callable[[], Any]:
        module, name = self._param.module, self._param.layer
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if not self._leads_to(error.name):
                raise
            fail(self.missing, self._error)
        classes = [key for key, value in vars(found).items() if isinstance(value, type)]
        if name not in classes:
            fail(f'module "{module}" has no class "{name}"{nearest(name, classes)}', self._error)
        return getattr(found, name)

    def _leads_to(self, missing: str | None) -> bool:
        """Whether a missing module is the user's own, or a package around it."""
        return missing is not None and f"{self._param.module}.".startswith(f"{missing}.")

    def _where(self, error: BaseException) -> str:
        """The last line of the user's own module on the way to an error, or nothing."""
        file = f"{self._param.module.replace('.', '/')}.py"
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename.endswith(file)]
        return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
