"""What every layer is: one class that says once all that is known about a layer type.

A layer is plain Python on shapes and arrays. It knows its message and its phase, and nothing of
the graph, of Flax or of other layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import LayerError, counted, fail, nearest, require
from netspec.layers.fork_names import fork_of_type
from netspec.layers.precision import Precision
from netspec.layers.valid_region import PaddingValue, PartialShape, Size, ValidRegion, places
from netspec.proto.layers_pb2 import TRAIN, FillerParameter, LayerParameter

if TYPE_CHECKING:
    from netspec.layers.coord_map import CoordMap

Shape = tuple[int, ...]
Array = jax.Array


class Layout(Enum):
    """Which layouts a layer can compute in; blobs of rank 4 and more are concerned, others are not.

    A run that holds blobs channels-last (N, H, W, C) keeps them so through ``EITHER`` and
    ``CHANNELS_LAST`` layers, and brings them back to (N, C, H, W) for ``CHANNELS_FIRST`` ones.
    """

    CHANNELS_FIRST = "only channels-first"
    EITHER = "whichever its first bottom is in"
    CHANNELS_LAST = "channels-last where the run prefers it"


@dataclass(frozen=True)
class Blob:
    """A learned array: its shape, and how to fill it before training.

    ``learned`` is False for statistics that the layer keeps itself (`Context.update`). ``start``:
    the values before training, where the layer has them instead of a filler. ``is_offset``:
    whether it is only added, as a bias is: where it is 0, gradients pass all the same.
    """

    shape: Shape
    filler: FillerParameter = field(default_factory=FillerParameter)
    learned: bool = True
    start: np.ndarray | None = field(default=None, compare=False)
    is_offset: bool = False


@dataclass(frozen=True)
class Labels:
    """``bottom`` holds class indices, 0..``classes`` - 1 or ``ignore``, of ``scores``' channels."""

    bottom: int
    scores: int
    classes: int
    ignore: int | None


@dataclass
class Context:
    """What a layer may ask for while it computes.

    blobs: its learned arrays by name, in Caffe's shapes, float32 whatever bottoms are.
    channels_last: whether bottoms of rank 4 and more arrive as (N, ..., C).
    run_key, index: the run's random key, and which of the run's layers this is.
    memory: the arrays of `Layer.carried`, as the run before left them.
    wanted: for each bottom, whether Caffe would compute its gradient.
    extents: for each bottom, how much of its array is the blob; None if all is. Empty: all of all.
    updates, remembered: what the layer has set with `update` and `carry`.
    """

    blobs: Mapping[str, Array]
    channels_last: bool = False
    run_key: Array | None = None
    index: int = 0
    carried: Mapping[str, Array] = field(default_factory=dict)
    wanted: tuple[bool, ...] = ()
    valid_regions: tuple[ValidRegion | None, ...] = ()
    updates: dict[str, Array] = field(default_factory=dict)
    carried_on: dict[str, Array] = field(default_factory=dict)

    def key(self) -> Array:
        """This layer's random key for this run; raises LayerError if the run has none."""
        if self.run_key is None:
            raise LayerError("draws random numbers, but this run was given no key")
        return jax.random.fold_in(self.run_key, self.index)

    def update(self, name: str, value: Array) -> None:
        """Set a running statistic for the runs that follow."""
        self.updates[name] = value

    def carry(self, name: str, value: Array) -> None:
        """Set an array of `Layer.carried` for the next run."""
        self.carried_on[name] = value

    def axis(self, axis: int, rank: int) -> int:
        """Where Caffe's ``axis`` of a blob of ``rank`` axes lies in the arrays of this run."""
        return places(rank, self.channels_last)[axis]

    def shape(self, array: Array) -> Shape:
        """Caffe's shape (N, C, ...) of an array of this run."""
        return tuple(array.shape[i] for i in places(array.ndim, self.channels_last))

    def size(self, bottom: int, array: Array) -> Size:
        """The blob's own shape (N, C, ...), of a bottom whose array may be larger."""
        extent = self.valid_regions[bottom] if self.valid_regions else None
        return self.shape(array) if extent is None else extent.of(self.shape(array))

    def inside(self, bottom: int, array: Array) -> Array | None:
        """Which elements of a bottom's array are the blob's, to broadcast; None if all are."""
        extent = self.valid_regions[bottom] if self.valid_regions else None
        if extent is None:
            return None
        return extent.inside(array.shape, places(array.ndim, self.channels_last))

    def mean(self, array: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        """The mean along Caffe's ``axes`` of an array like the first bottom's, over the blob."""
        inside = self.inside(0, array)
        along = tuple(sorted(self.axis(i, array.ndim) for i in axes))
        if inside is None:
            return jnp.mean(array, axis=along, keepdims=keepdims)
        total = jnp.sum(jnp.where(inside, array, 0.0), axis=along, keepdims=keepdims)
        size = self.size(0, array)
        return total / math.prod(size[i] for i in axes)


class Layer:
    """A layer type, bound to one layer of a net.

    spec: its LayerParameter. param: its own message, e.g. ``spec.crop_param``. phase: TRAIN or
    TEST. num_tops: how many tops it makes, automatic ones included.
    """

    family: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    # Its kind in a drawing, "loss" or "pooling", where bottoms and learned blobs do not tell it.
    drawn_as: ClassVar[str] = ""
    layout: ClassVar[Layout] = Layout.CHANNELS_FIRST
    precision: ClassVar[Precision] = Precision.INSIDE
    param_field: ClassVar[str | None] = None
    num_bottoms: ClassVar[range] = range(1, 2)
    tops: ClassVar[range] = range(1, 2)
    auto_top: ClassVar[bool] = False
    same_count: ClassVar[bool] = False
    is_source: ClassVar[bool] = False
    # A source whose shapes are known before its data is open.
    states_shapes: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    # Whether the caller hands its tops in; other sources are read from the host's files.
    is_input: ClassVar[bool] = False
    # False for a stand-in that knows neither shapes nor arithmetic.
    known: ClassVar[bool] = True
    # Whether it runs on the host, called from inside the program: see `netspec.layers.host_errors`.
    on_host: ClassVar[bool] = False
    # Whether its message and phase are all that it hangs on, and no file is read.
    is_plain: ClassVar[bool] = True
    # Whether a top's shape depends on values, so that a net with such a layer cannot be compiled.
    data_dependent: ClassVar[bool] = False
    # Whether a pixel of the top hangs on those alone that `coords` says it sees, and everywhere in
    # the same way, but for borders.
    shift_equivariant: bool = False
    # The bottoms whose shape alone matters.
    shape_bottoms: ClassVar[frozenset[int]] = frozenset()

    def __init__(self, spec: LayerParameter, phase: int) -> None:
        self.spec = spec
        self.param: Any = getattr(spec, self.param_field) if self.param_field else None
        self.phase = phase
        self.num_tops = max(len(spec.top), self.tops.start if self.auto_top else 0)

    @property
    def train(self) -> bool:
        """Whether this layer is in phase TRAIN."""
        return self.phase == TRAIN

    @property
    def learns(self) -> bool:
        """Whether layers of this type may have learned arrays."""
        return type(self).blobs is not Layer.blobs

    def missing(self) -> str:
        """What the layer lacks on this machine, so that only a drawing can show it; or nothing."""
        return ""

    def shape(self, *bottoms: Shape) -> Shape | tuple[Shape, ...]:
        """Top shape, or a tuple of them if there are several; raises LayerError."""
        return bottoms[0]

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        """Learned arrays in the order of a .caffemodel."""
        return {}

    def carried(self, *bottoms: Shape) -> dict[str, Shape]:
        """Arrays that a run leaves for the next one, zero at first; no weights."""
        return {}

    def apply(self, ctx: Context, *bottoms: Array) -> Array | tuple[Array, ...]:
        """Top array, or a tuple of them if there are several."""
        raise NotImplementedError

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """What must lie beyond each bottom where its array is larger than itself.

        Within its own size the top must then be what it is without anything beyond. bottoms: with
        None on the axes along which sizes vary; one at least has such. None: the layer cannot work
        so, and its net is compiled for each size.
        """
        return None

    def coords(self, rank: int) -> CoordMap | None:
        """How output pixels of a bottom with ``rank`` spatial axes sit on its pixels.

        None where no such map exists.
        """
        return None

    def sees_all(self, rank: int) -> bool:
        """Whether an output pixel sees pixels of a bottom however far off."""
        return False

    def repadded(self, pad: int) -> Layer | None:
        """This layer with ``pad`` on every spatial axis; None for types that fit no image so."""
        return None

    def recut(self, offset: Shape) -> Layer | None:
        """This layer cutting from ``offset`` on, a number a spatial axis; None for other types."""
        return None

    def multiply_adds(self, *bottoms: Shape) -> int:
        """How often a run multiplies by a learned weight and adds, over the whole batch.

        That is what convolutions and matrix products cost; all else of a layer is not counted.
        """
        return 0

    def channel_axes(self, blob: str) -> tuple[int | None, int | None]:
        """The axes of a learned blob along which its outputs lie, and its input channels.

        None where there are none, or where more of them could not follow those that are there.
        """
        return 0, None

    def allow_force_backward(self, bottom: int) -> bool:
        """Whether ``force_backward`` reaches this bottom (it never reaches labels)."""
        return True

    def labels(self, *bottoms: Shape) -> Labels | None:
        """Which bottom holds class indices, if one does."""
        return None

    def loss_weights(self) -> tuple[float, ...]:
        """The weight of each top in the net's loss (0: not a loss)."""
        given = tuple(self.spec.loss_weight)
        if given:
            require(
                len(given) == self.num_tops,
                f"{len(given)} loss_weight for {counted(self.num_tops, 'top')}; "
                "give none, or one for each top",
            )
            return given
        return (float(self.is_loss),) + (0.0,) * (self.num_tops - 1) if self.num_tops else ()

    def scaling(self, *bottoms: Shape) -> str:
        """What a loss is divided by, in words; empty for other layers."""
        return ""

    def describe(self) -> str:
        """The settings worth seeing in a drawing, e.g. ``3x3, stride 2``."""
        return ""


AnyLayer = TypeVar("AnyLayer", bound=type[Layer])
REGISTRY: dict[str, type[Layer]] = {}


def register(
    param: str | None = None,
    bottoms: int | tuple[int, int | None] = 1,
    tops: int | tuple[int, int | None] | str = 1,
    auto_top: bool = False,
) -> Callable[[AnyLayer], AnyLayer]:
    """Make a class the layer type of its own name.

    param: the field of LayerParameter that holds its settings. bottoms, tops: how many it takes
    and makes: a number, or (least, most) with None for no limit; ``tops="bottoms"`` for as many as
    bottoms. auto_top: tops that the prototxt does not name are made all the same.
    """

    def enter(cls: AnyLayer) -> AnyLayer:
        if cls.__name__ in REGISTRY:
            raise TypeError(f"two layers are called {cls.__name__}")
        cls.param_field = param
        cls.num_bottoms = _range(bottoms)
        cls.same_count = tops == "bottoms"
        cls.tops = _range(bottoms if isinstance(tops, str) else tops)
        cls.auto_top = auto_top
        cls.family = cls.__module__.rsplit(".", 1)[-1]
        REGISTRY[cls.__name__] = cls
        return cls

    return enter


def _range(count: int | tuple[int, int | None]) -> range:
    least, most = (count, count) if isinstance(count, int) else count
    return range(least, 1 << 30 if most is None else most + 1)


def create(spec: LayerParameter, phase: int) -> Layer:
    """The layer that a LayerParameter asks for, its arity checked; raises LayerError."""
    require(spec.type, "has no type")
    if spec.type not in REGISTRY:
        fail(unknown_type(spec.type))
    cls = REGISTRY[spec.type]
    layer = cls(spec, spec.phase if spec.HasField("phase") else phase)
    _check_count("bottom", len(spec.bottom), cls.num_bottoms)
    _check_count("top", layer.num_tops, cls.tops)
    if cls.same_count:
        require(
            len(spec.bottom) == len(spec.top),
            f"makes one top a bottom, but has {counted(len(spec.bottom), 'bottom')} and "
            f"{counted(len(spec.top), 'top')}",
        )
    return layer


def unknown_type(name: str) -> str:
    """What is said of a layer type that is not in the registry, with whose it may be."""
    return f'unknown layer type "{name}"{fork_of_type(name) or nearest(name, REGISTRY)}'


def _check_count(noun: str, count: int, allowed: range) -> None:
    if count not in allowed:
        least, most = allowed.start, allowed.stop - 1
        if most == least:
            need = f"exactly {least}"
        elif most >= (1 << 30) - 1:
            need = f"at least {least}"
        else:
            need = f"{least} to {most}"
        fail(f"has {counted(count, noun)} but needs {need}")


def canonical_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front; raises LayerError if a blob of ``rank`` axes has no such."""
    require(-rank <= axis < rank, f"axis {axis} of a blob with {rank} axes")
    return axis % rank


def axis_or_legacy(param: Any, legacy: str, rank: int) -> int:
    """``axis`` counted from the front, or what the older field ``legacy`` says; never both."""
    require(
        not (param.HasField("axis") and param.HasField(legacy)), f"give axis or {legacy}, not both"
    )
    if param.HasField(legacy):
        axis = getattr(param, legacy)
        require(axis < rank, f"{legacy} {axis} of {rank} axes")
        return axis
    return canonical_axis(param.axis, rank)


def count(shape: Sequence[int]) -> int:
    """The number of elements in a shape."""
    return math.prod(shape)


def text(shape: Sequence[int]) -> str:
    """A shape as people write it: ``1x3x500x500``; ``scalar`` for rank 0."""
    return "x".join(map(str, shape)) or "scalar"


def same_shape(bottoms: Sequence[Shape]) -> None:
    """Raise LayerError unless all bottoms have the first one's shape."""
    for i, bottom in enumerate(bottoms[1:], 1):
        require(
            bottom == bottoms[0],
            f"bottoms must have one shape: bottom 0 is {text(bottoms[0])}, "
            f"bottom {i} is {text(bottom)}",
        )
