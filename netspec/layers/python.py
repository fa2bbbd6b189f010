"""Layers that users write in Python, as pycaffe runs them.

They run on the host: a data layer before the net, others as callbacks from inside the program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.experimental import io_callback

from netspec.errors import LayerError, NetSpecError, counted
from netspec.layers.context import Context
from netspec.layers.data import Fed
from netspec.layers.host_errors import report
from netspec.layers.numerics import MemoryLayout, Numerics, Precision
from netspec.layers.python_class import HostBlob, User, class_name
from netspec.layers.records import Blob, Traits
from netspec.layers.registry import register
from netspec.layers.residuals import substitute
from netspec.layers.shape import Array, Shape, text

# JAX logs what a user's method raises; the error itself says it already.
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], NetSpecError))
)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Asked:
    """For each bottom, whether its gradient is asked for; static in a pytree."""

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
    them; what ``forward`` writes into a blob that is learned is forgotten after the run, except by
    pycaffe's ``net.forward``.
    """

    formula = "what a Python class reads or computes"
    numerics = Numerics(MemoryLayout.EITHER, Precision.FULL)

    def configure(self) -> None:
        """With bottoms it is no data layer but runs on the host, from inside the program."""
        if self.spec.bottom:
            self.traits = Traits(on_host=True, runs_module=True)

    @property
    def learns(self) -> bool:
        """Whether it has learned arrays, or may have before it is set up."""
        return not self.traits.is_source and bool(self.__dict__.get("_starts", True))

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """What ``reshape`` gives the tops."""
        if self.traits.is_source:
            return super().shape()
        blobs = [HostBlob(np.zeros(shape)) for shape in bottoms]
        return tuple(top.shape for top in self._reshaped(blobs))

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        """What ``setup`` added: blob0, blob1, ..."""
        if self.traits.is_source:
            return {}
        rates = [spec.lr_mult for spec in self.spec.param]
        return {
            f"blob{i}": Blob(blob.shape, start=start, learned=bool((rates[i:] or [1])[0]))
            for i, (blob, start) in enumerate(zip(self.user.blobs, self._starts, strict=True))
        }

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        """Call ``forward``, and ``backward`` for gradients."""
        if ctx.left is not None:
            return self._gradients_alone(ctx, bottoms)
        shapes = self.shape(*(bottom.shape for bottom in bottoms))
        blobs = tuple(ctx.blobs.values())
        # It is called even where nothing reads its tops: it may print, or write a file.
        given = jax.tree.map(jax.lax.stop_gradient, (blobs, bottoms))
        made = io_callback(
            partial(self._forward, shapes), (_like(shapes), _like(b.shape for b in blobs)), *given
        )
        for (name, blob), array in zip(self.blobs().items(), made[1], strict=True):
            (ctx.write if blob.learned else ctx.update)(name, array)
        return self._with_gradient(ctx.wanted)(blobs, bottoms, *made)

    def describe(self) -> str:
        return self.runs_class()

    def runs_class(self) -> str:
        return class_name(self.param)

    def missing(self) -> str:
        """That its module is not on this machine."""
        try:
            if not self.traits.is_source:
                _ = self.user
        except LayerError as error:
            return error.message
        return ""

    @cached_property
    def user(self) -> Any:
        """The user's object, not yet set up."""
        return self._user.make()

    @cached_property
    def _user(self) -> User:
        return User(self.param, self.phase)

    @cached_property
    def _tops(self) -> list[HostBlob]:
        """The user's tops; they keep their shape from call to call."""
        return [HostBlob() for _ in range(self.num_tops)]

    def _gradients_alone(self, ctx: Context, bottoms: Sequence[Array]) -> tuple[Array, ...]:
        """The tops as they are, whose gradient is ``backward``; ``forward`` is not called."""
        tops = tuple(ctx.left.top(i) for i in range(self.num_tops))  # type: ignore[union-attr]
        # What has been overwritten in place is not computed once more to be shown to nobody.
        seen = tuple(
            substitute(tops[i], bottom) if i < len(tops) and self._in_place(i) else bottom
            for i, bottom in enumerate(bottoms)
        )
        blobs = tuple(ctx.blobs.values())
        return self._with_gradient(ctx.wanted)(blobs, seen, tops, blobs)

    def _with_gradient(self, wanted: Sequence[bool]) -> Callable[..., tuple[Array, ...]]:
        """(blobs, bottoms, tops, blobs after forward) -> tops, with ``backward`` as gradient.

        ``backward`` is asked for the gradients that Caffe wants, and those that JAX wants.
        """

        @jax.custom_vjp
        def tops_of(blobs: Any, bottoms: Any, tops: Any, after: Any) -> tuple[Array, ...]:
            return tuple(tops)

        def forward(*primals: Any) -> tuple[tuple[Array, ...], Any]:
            asked = (p.perturbed or w for p, w in zip(primals[1], wanted, strict=True))
            _, bottoms, tops, after = jax.tree.map(lambda primal: primal.value, primals)
            return tuple(tops), (after, bottoms, tops, _Asked(tuple(asked)))

        def backward(residuals: Any, diffs: Any) -> tuple[Any, ...]:
            *arrays, asked = residuals
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
        """The gradients of blobs and bottoms; those not asked for may hold anything."""
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
            with self._user.calling(step):
                yield
        except NetSpecError as error:
            report(self, error)
            raise


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
