"""Layers that users write in Python, as pycaffe runs them.

A class has ``setup``, ``reshape``, ``forward`` and ``backward``, each given bottoms and tops with
``data`` and ``diff`` in numpy. It runs on the host, called from inside the compiled program.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.experimental import io_callback

from netspec.errors import LayerError, NetSpecError, counted, fail, nearest, require
from netspec.layers.base import Array, Blob, Context, Shape, register, text
from netspec.layers.data import Fed
from netspec.proto.layers_pb2 import TEST, TRAIN

# What a user's method raises is told once, by the error itself.
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], NetSpecError))
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


_STAND_IN = ModuleType("caffe")
_STAND_IN.__dict__.update(Layer=UserLayer, TRAIN=TRAIN, TEST=TEST)
_LOCK = threading.Lock()
# One for each call of users' code under way.
_INSIDE: list[None] = []


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Asked:
    """The bottoms whose gradient is asked for."""

    bottoms: tuple[bool, ...]


@register(param="python_param", bottoms=(0, None), tops=(0, None))
class Python(Fed):
    """A Python class: ``module``, ``layer`` and ``param_str``.

    Without bottoms it is a data layer, which the host feeds. With bottoms it stands in the net:
    (bottom shapes) -> (the shapes that its ``reshape`` gives its tops). Its ``backward`` writes the
    ``diff`` of the bottoms that ``propagate_down`` marks, and of its blobs. Blobs: those that its
    ``setup`` adds, with the values it gives them. What ``forward`` writes into a blob with
    ``param { lr_mult: 0 }`` is kept. Caffe: ``python_layer.hpp``.

    Differs: tops' shapes depend on nothing but bottoms' shapes, so that ``forward`` cannot change
    them; what ``forward`` writes into a blob that is learned is forgotten after the run.
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

    @property
    def learns(self) -> bool:
        """Whether it has learned arrays, or may have before it is set up."""
        return not self.is_source and bool(self.__dict__.get("_starts", True))

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """What ``reshape`` gives the tops."""
        if self.is_source:
            return super().shape()
        blobs = [HostBlob(np.zeros(shape)) for shape in bottoms]
        return tuple(top.shape for top in self._reshaped(blobs))

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        """What ``setup`` added: blob0, blob1, ..."""
        if self.is_source:
            return {}
        rates = [spec.lr_mult for spec in self.spec.param]
        return {
            f"blob{i}": Blob(blob.shape, start=start, learned=bool((rates[i:] or [1])[0]))
            for i, (blob, start) in enumerate(zip(self.user.blobs, self._starts, strict=True))
        }

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        """Call ``forward``, and ``backward`` for gradients."""
        shapes = self.shape(*(bottom.shape for bottom in bottoms))
        blobs = tuple(ctx.blobs.values())
        # It is called even where nothing reads its tops: it may print, or write a file.
        given = jax.tree.map(jax.lax.stop_gradient, (blobs, bottoms))
        made = io_callback(
            partial(self._forward, shapes), (_like(shapes), _like(b.shape for b in blobs)), *given
        )
        for (name, blob), array in zip(self.blobs().items(), made[1], strict=True):
            if not blob.learned:
                ctx.update(name, array)
        return self._with_gradient(ctx.wanted)(blobs, bottoms, *made)

    def describe(self) -> str:
        """The class."""
        return f"{self.param.module}.{self.param.layer}"

    def missing(self) -> str:
        """That its module is not on this machine."""
        try:
            if not self.is_source:
                _ = self.user
        except LayerError as error:
            return error.message
        return ""

    @cached_property
    def user(self) -> Any:
        """The user's object, not yet set up."""
        for name in ("module", "layer"):
            require(getattr(self.param, name), f"needs python_param {{ {name}: ... }}")
        with self._blaming("import"):
            found = _find_class(self.param.module, self.param.layer)
        with self._blaming("__init__"):
            user = found()
        user.param_str, user.phase = self.param.param_str, self.phase
        user.blobs = HostBlobs()
        return user

    @cached_property
    def _tops(self) -> list[HostBlob]:
        """The user's tops; they keep their shape from call to call."""
        return [HostBlob() for _ in range(self.num_tops)]

    def _with_gradient(self, wanted: Sequence[bool]) -> Callable[..., tuple[Array, ...]]:
        """(blobs, bottoms, tops, blobs after forward) -> tops, with ``backward`` as gradient.

        It is asked for what Caffe wants, and for whatever else JAX differentiates.
        """

        @jax.custom_vjp
        def tops_of(blobs: Any, bottoms: Any, tops: Any, after: Any) -> tuple[Array, ...]:
            return tuple(tops)

        def forward(*primals: Any) -> tuple[tuple[Array, ...], Any]:
            asked = (p.perturbed or w for p, w in zip(primals[1], wanted, strict=True))
            _, bottoms, tops, after = jax.tree.map(lambda primal: primal.value, primals)
            return tuple(tops), (after, bottoms, tops, _Asked(tuple(asked)))

        def backward(kept: Any, diffs: Any) -> tuple[Any, ...]:
            *arrays, asked = kept
            whole = tuple(
                jnp.zeros(d.shape, d.dtype) if isinstance(d, SymbolicZero) else d for d in diffs
            )
            after, bottoms, _ = arrays
            shapes = _like(b.shape for b in after), _like(b.shape for b in bottoms)
            call = partial(self._backward, asked.bottoms)
            return (*jax.pure_callback(call, shapes, *arrays, whole), None, None)

        tops_of.defvjp(forward, backward, symbolic_zeros=True)
        return tops_of

    def _reshaped(self, bottoms: Sequence[HostBlob]) -> list[HostBlob]:
        """Tops of the shapes that the user's object gives them; it is set up at first."""
        tops = [bottoms[i] if self._in_place(i) else top for i, top in enumerate(self._tops)]
        first = "_starts" not in self.__dict__
        if first:
            with self._blaming("setup"):
                self.user.setup(bottoms, tops)
        with self._blaming("reshape"):
            self.user.reshape(bottoms, tops)
            for i, top in enumerate(tops):
                if not top.has_shape:
                    raise ValueError(f"top {i} has no shape; reshape it")
        if first:
            self._starts = [blob.data.copy() for blob in self.user.blobs]
        return tops

    def _in_place(self, top: int) -> bool:
        """Whether a top is the bottom of its number."""
        return self.spec.top[top : top + 1] == self.spec.bottom[top : top + 1]

    def _forward(self, shapes: Sequence[Shape], blobs: Any, bottoms: Any) -> tuple[Any, Any]:
        seen = [HostBlob(array) for array in bottoms]
        self._hold(blobs)
        tops = self._reshaped(seen)
        with self._blaming("forward"):
            self.user.forward(seen, tops)
            _check("top", tops, shapes)
            _check("blob", self.user.blobs, [b.shape for b in blobs])
        made = tops, self.user.blobs
        return tuple(tuple(blob.data.copy() for blob in side) for side in made)  # type: ignore[return-value]

    def _backward(
        self, asked: Sequence[bool], blobs: Any, bottoms: Any, tops: Any, diffs: Any
    ) -> tuple[Any, Any]:
        """The gradients of blobs and bottoms; nobody looks at those that are not asked for."""
        self._hold(blobs)
        made = [HostBlob(array) for array in tops]
        for top, diff in zip(made, diffs, strict=True):
            top.diff[...] = diff
        seen = [
            made[i] if i < len(made) and self._in_place(i) else HostBlob(array)
            for i, array in enumerate(bottoms)
        ]
        with self._blaming("backward"):
            self.user.backward(made, list(asked), seen)
            _check("bottom", seen, [b.shape for b in bottoms])
            _check("blob", self.user.blobs, [b.shape for b in blobs])
        learned = tuple(blob.diff.copy() for blob in self.user.blobs)
        return learned, tuple(bottom.diff for bottom in seen)

    def _hold(self, arrays: Any) -> None:
        """Show the user's object its learned arrays, their diffs zero."""
        for blob, array in zip(self.user.blobs, arrays, strict=True):
            blob.reshape(*array.shape)
            blob.data[...] = array
            blob.diff[...] = 0

    @contextmanager
    def _blaming(self, step: str) -> Iterator[None]:
        """Turn whatever a user's method raises into a LayerError that says where it did."""
        try:
            with _importing():
                yield
        except NetSpecError as error:
            self.failure = error
            raise
        except Exception as error:
            said = f": {error}" if str(error) else ""
            self.failure = LayerError(
                f"{self.describe()}.{step}: {type(error).__name__}{said}{self._where(error)}"
            )
            raise self.failure from error

    def _where(self, error: Exception) -> str:
        """The last line of the user's own module on the way to an error, or nothing."""
        file = f"{self.param.module.replace('.', '/')}.py"
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename.endswith(file)]
        return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _check(noun: str, blobs: Sequence[HostBlob], shapes: Sequence[Shape]) -> None:
    """Raise ValueError if a user's method has changed how many there are, or their shapes."""
    if len(blobs) != len(shapes):
        raise ValueError(
            f"the layer has {counted(len(blobs), noun)} now, but had {len(shapes)} after setup"
        )
    for i, (blob, shape) in enumerate(zip(blobs, shapes, strict=True)):
        if blob.shape != tuple(shape):
            raise ValueError(
                f"{noun} {i} is {text(blob.shape)} now, but was {text(shape)} before data came; "
                "shapes may depend on nothing but the bottoms' shapes"
            )


def _like(shapes: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def _find_class(module: str, name: str) -> Callable[[], Any]:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
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
    # Calls from the program may overlap, each in a thread of its own: the last one tidies up.
    with _LOCK:
        _INSIDE.append(None)
        sys.modules.setdefault("caffe", _STAND_IN)
        sys.path.insert(0, "")
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.pop()
            sys.path.remove("")
            if not _INSIDE and sys.modules.get("caffe") is _STAND_IN:
                del sys.modules["caffe"]
