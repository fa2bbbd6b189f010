"""Layers that users write in Python, as pycaffe runs them.

A class has ``setup``, ``reshape``, ``forward`` and ``backward``, each given bottoms and tops with
``data`` and ``diff`` in numpy. It runs on the host, called from inside the compiled program.
"""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import LayerError, NetSpecError, fail, nearest
from netspec.layers.base import Array, Context, Shape, register
from netspec.layers.data import Fed
from netspec.proto.layers_pb2 import TEST, TRAIN

# What a user's method raises is told once, by the error itself.
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], NetSpecError))
)


class HostBlob:
    """A blob as a user's layer sees it: ``data`` and ``diff``, float32 arrays of one shape."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = np.array(data, np.float32)
        self.diff = np.zeros_like(self.data)

    def reshape(self, *shape: int) -> None:
        """Take another shape; the values start from zero."""
        if self.data.shape != shape:
            self.__init__(np.zeros(shape, np.float32))  # type: ignore[misc]

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


class UserLayer:
    """What a user's class derives from: pycaffe's ``caffe.Layer``.

    param_str: the prototxt's. phase: TRAIN or TEST.
    """

    param_str: str
    phase: int


@register(param="python_param", bottoms=(0, None), tops=(0, None))
class Python(Fed):
    """A Python class: ``module``, ``layer`` and ``param_str``.

    Without bottoms it is a data layer, which the host feeds. With bottoms it stands in the net:
    (bottom shapes) -> (the shapes that its ``reshape`` gives its tops); its ``backward`` writes
    the bottoms' ``diff``. Caffe: ``python_layer.hpp``. Differs: ``propagate_down`` is true for
    every bottom, and the class keeps no learned blobs.
    """

    formula = "what a Python class reads or computes"

    @property
    def is_source(self) -> bool:  # type: ignore[override]
        """Whether it feeds the net."""
        return not self.spec.bottom

    @property
    def on_host(self) -> bool:  # type: ignore[override]
        """Whether it is called from inside the program."""
        return not self.is_source

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """What ``reshape`` gives the tops."""
        if self.is_source:
            return super().shape()
        blobs = [HostBlob(np.zeros(shape)) for shape in bottoms]
        return tuple(top.shape for top in self._reshaped(blobs))

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        """Call ``forward``, and ``backward`` for gradients."""
        tops = [
            jax.ShapeDtypeStruct(s, jnp.float32) for s in self.shape(*(b.shape for b in bottoms))
        ]
        given = [jax.ShapeDtypeStruct(b.shape, jnp.float32) for b in bottoms]

        @jax.custom_vjp
        def host(*bottoms: Array) -> tuple[Array, ...]:
            return tuple(jax.pure_callback(self._forward, tops, *bottoms))

        def forward(*bottoms: Array) -> tuple[tuple[Array, ...], Any]:
            made = host(*bottoms)
            # The tops go along, so that no backward runs before its forward.
            return made, (bottoms, made)

        def backward(kept: Any, diffs: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(jax.pure_callback(self._backward, given, *kept, diffs))

        host.defvjp(forward, backward)
        return host(*bottoms)

    def describe(self) -> str:
        """The class."""
        return f"{self.param.module}.{self.param.layer}"

    @cached_property
    def user(self) -> Any:
        """The user's object, not yet set up."""
        with self._blaming("import"):
            found = _find_class(self.param.module, self.param.layer)
            user = found()
        user.param_str, user.phase = self.param.param_str, self.phase
        return user

    def _reshaped(self, bottoms: Sequence[HostBlob]) -> list[HostBlob]:
        """Tops of the shapes that the user's object gives them; it is set up at first."""
        tops = [HostBlob(np.zeros(())) for _ in range(self.num_tops)]
        if not self.__dict__.setdefault("_is_set_up", False):
            with self._blaming("setup"):
                self.user.setup(bottoms, tops)
            self._is_set_up = True
        with self._blaming("reshape"):
            self.user.reshape(bottoms, tops)
        return tops

    def _forward(self, *arrays: Any) -> list[np.ndarray]:
        bottoms = [HostBlob(array) for array in arrays]
        tops = self._reshaped(bottoms)
        with self._blaming("forward"):
            self.user.forward(bottoms, tops)
        return [top.data for top in tops]

    def _backward(self, arrays: Any, made: Any, diffs: Any) -> list[np.ndarray]:
        bottoms, tops = ([HostBlob(array) for array in side] for side in (arrays, made))
        for top, diff in zip(tops, diffs, strict=True):
            top.diff[...] = diff
        with self._blaming("backward"):
            self.user.backward(tops, [True] * len(bottoms), bottoms)
        return [bottom.diff for bottom in bottoms]

    @contextmanager
    def _blaming(self, step: str) -> Iterator[None]:
        """Turn whatever a user's method raises into a LayerError that says where it did."""
        try:
            yield
        except NetSpecError as error:
            self.failure = error
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.failure = LayerError(
                f"{self.describe()}.{step}: {type(error).__name__}: {error} "
                f"({last.filename}:{last.lineno})"
            )
            raise self.failure from error


def _find_class(module: str, name: str) -> Callable[[], Any]:
    with _importing():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            fail(
                f'no module "{module}" in the current folder or on PYTHONPATH; it should define '
                f"the class {name}"
            )
    classes = [key for key, value in vars(found).items() if isinstance(value, type)]
    if name not in classes:
        fail(f'module "{module}" has no class "{name}"{nearest(name, classes)}')
    return getattr(found, name)


@contextmanager
def _importing() -> Iterator[None]:
    """The current folder on the path, and a ``caffe`` to import where pycaffe is not."""
    stand_in = ModuleType("caffe")
    stand_in.__dict__.update(Layer=UserLayer, TRAIN=TRAIN, TEST=TEST)
    added = "caffe" not in sys.modules
    if added:
        sys.modules["caffe"] = stand_in
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
        if added:
            del sys.modules["caffe"]
