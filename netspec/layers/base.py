"""The contract of a layer type: one class that says once all that is known about it.

A layer is plain Python on shapes and arrays. It knows its message and its phase, and nothing of
the graph, of Flax or of other layers. Its face are four questions, each a method with a default:
`Layer.shape`, `Layer.blobs`, `Layer.apply` and `Layer.coords`. All else that others want to know
it declares in the records of `netspec.layers.records` and `netspec.layers.numerics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from netspec.errors import counted, require
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.numerics import Numerics
from netspec.layers.records import Arity, Blob, BottomUse, Scoring, Traits
from netspec.layers.shape import Array, Shape, count, text
from netspec.layers.valid_region import PaddingValue
from netspec.proto.layers_pb2 import TRAIN, LayerParameter

__all__ = ["Array", "Geometry", "Layer", "Shape", "count", "text"]


@dataclass(frozen=True)
class Geometry:
    """How a layer moves over its bottoms' spatial axes, beside its coordinate map.

    sees_all: an output pixel depends on pixels of a bottom however far off. shift_equivariant: an
    output pixel depends only on the pixels that `Layer.coords` says, in the same way everywhere
    but at borders. repadded: pad on every spatial axis -> this layer with that pad. recut: offset,
    a number a spatial axis -> this layer cutting from there on. Both None for types that cannot.
    channel_axis: after which the axes of its windows lie; None for layers without such windows.
    """

    sees_all: bool = False
    shift_equivariant: bool = False
    repadded: Callable[[int], Layer] | None = None
    recut: Callable[[Shape], Layer] | None = None
    channel_axis: int | None = None


class Layer:
    """A layer type, bound to one layer of a net.

    spec: its LayerParameter. param: its own message, e.g. ``spec.crop_param``. phase: TRAIN or
    TEST. num_tops: how many tops it makes, automatic ones included.

    `netspec.layers.registry.register` sets family, param_field and arity. A class states its
    formula, and declares traits, numerics and bottom_use where the defaults do not fit.
    """

    family: ClassVar[str] = ""
    param_field: ClassVar[str | None] = None
    arity: ClassVar[Arity] = Arity()
    formula: ClassVar[str] = ""
    # Its kind in a drawing, "loss" or "pooling", where bottoms and learned blobs do not tell it.
    drawn_as: ClassVar[str] = ""
    traits: Traits = Traits()
    numerics: Numerics = Numerics()
    bottom_use: BottomUse = BottomUse()

    def __init__(self, spec: LayerParameter, phase: int) -> None:
        self.spec = spec
        self.param: Any = getattr(spec, self.param_field) if self.param_field else None
        self.phase = phase
        self.num_tops = max(len(spec.top), self.arity.tops.start if self.arity.auto_top else 0)
        self.configure()

    def configure(self) -> None:
        """Set traits, numerics or bottom_use where they depend on this layer's settings."""

    # The four questions. With `**_`, overrides may name their bottoms.

    def shape(self, *bottoms: Any, **_: Any) -> Shape | tuple[Shape, ...]:
        """Top shape, or a tuple of them if there are several; raises LayerError."""
        first: Shape = bottoms[0]
        return first

    def blobs(self, *bottoms: Any, **_: Any) -> dict[str, Blob]:
        """Learned arrays in the order of a .caffemodel, from the bottoms' shapes."""
        return {}

    def apply(self, ctx: Context, *bottoms: Any, **_: Any) -> Array | tuple[Array, ...]:
        """Top array, or a tuple of them if there are several."""
        raise NotImplementedError

    def coords(self, rank: int) -> CoordMap | None:
        """How output pixels of a bottom with ``rank`` spatial axes sit on its pixels.

        None where no such map exists.
        """
        return None

    # What only some layers answer.

    def geometry(self, rank: int) -> Geometry:
        """How the layer moves over ``rank`` spatial axes; raises nothing."""
        return Geometry()

    def padding_values(self, *bottoms: Any, **_: Any) -> tuple[PaddingValue, ...] | None:
        """The value that each bottom needs outside its valid region.

        With it, the top's valid region is what the layer computes from blobs of their own size.
        bottoms: their `PartialShape`, None on the axes along which sizes vary; at least one has
        such an axis. None if no value serves; then the net is compiled for each size.
        """
        return None

    def carried(self, *bottoms: Any, **_: Any) -> dict[str, Shape]:
        """State that a run leaves for the next one, zero at first; no weights."""
        return {}

    def scoring(self, *bottoms: Any, **_: Any) -> Scoring:
        """How predictions are scored; it does not check whether the shapes fit together."""
        return Scoring()

    def describe(self) -> str:
        """The settings worth seeing in a drawing, e.g. ``3x3, stride 2``."""
        return ""

    def describe_on(self, *bottoms: Shape) -> str:
        """`describe`, where it is known on which bottoms the layer works."""
        return self.describe()

    def runs_class(self) -> str:
        """The user's class that the layer runs, ``module.Class``; or nothing."""
        return ""

    def missing(self) -> str:
        """What this machine lacks to run the layer, so that it can only be drawn; or nothing."""
        return ""

    # What follows from the above.

    @property
    def train(self) -> bool:
        """Whether this layer is in phase TRAIN."""
        return self.phase == TRAIN

    @property
    def in_place(self) -> bool:
        """Whether its first top is its first bottom."""
        return list(self.spec.top[:1]) == list(self.spec.bottom[:1]) != []

    @property
    def learns(self) -> bool:
        """Whether layers of this type may have learned arrays."""
        return type(self).blobs is not Layer.blobs

    def loss_weights(self) -> tuple[float, ...]:
        """The weight of each top in the net's loss (0: not a loss); raises LayerError."""
        given = tuple(self.spec.loss_weight)
        if given:
            require(
                len(given) == self.num_tops,
                f"{len(given)} loss_weight for {counted(self.num_tops, 'top')}; "
                "give none, or one for each top",
            )
            return given
        return self.implicit_loss_weights()

    def implicit_loss_weights(self) -> tuple[float, ...]:
        """The weights of the tops where none is written; raises LayerError for a loss of two."""
        if not self.traits.is_loss:
            return (0.0,) * self.num_tops
        zeros = " loss_weight: 0" * (self.num_tops - 1)
        require(
            self.num_tops == 1,
            f"a loss with {counted(self.num_tops, 'top')} needs a loss_weight for each; write "
            f"loss_weight: 1{zeros}",
        )
        return (1.0,)
