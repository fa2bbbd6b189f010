"""The small records in which a layer says what others need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from netspec.layers.shape import Shape, count
from netspec.proto.layers_pb2 import FillerParameter


@dataclass(frozen=True)
class Arity:
    """How many bottoms a layer type takes and how many tops it makes.

    tops_as_bottoms: it makes one top a bottom. auto_top: it makes tops that the prototxt does not
    name.
    """

    bottoms: range = range(1, 2)
    tops: range = range(1, 2)
    tops_as_bottoms: bool = False
    auto_top: bool = False


class PhaseChoice(Enum):
    """What a layer does in TRAIN and not in TEST, that may be switched on and off afterwards."""

    NOISE = "draw random numbers"
    STATISTICS = "normalise by the batch, and add to the running statistics"


@dataclass(frozen=True)
class Traits:
    """What kind of layer this is, for code that loops over all layers.

    is_source: its tops are fed from outside. is_input: the caller feeds them; other sources are
    read from the host's files. states_shapes: a source whose shapes are known before its data is
    open. is_loss: training minimises its first top. known: False for a placeholder that has neither
    shapes nor arithmetic. on_host: it is a callback from inside the compiled program, and reports
    to `netspec.layers.host_errors`. runs_module: it imports and runs a module that its prototxt
    names. is_plain: it depends on nothing but its message and phase, and reads no file.
    works_in_place: its top may overwrite its bottom. data_dependent: a top's shape depends on
    values, so that a net with this layer cannot be compiled. phase_choice: what its phase chooses,
    if it is one of these.
    """

    is_source: bool = False
    is_input: bool = False
    states_shapes: bool = False
    is_loss: bool = False
    known: bool = True
    on_host: bool = False
    runs_module: bool = False
    is_plain: bool = True
    works_in_place: bool = True
    data_dependent: bool = False
    phase_choice: PhaseChoice | None = None


@dataclass(frozen=True)
class BottomUse:
    """What a layer does not use of its bottoms, by their index.

    shape_only: bottoms of which only the shape matters. no_gradient: bottoms that have no gradient,
    e.g. labels and indices. unforced: those of them that ``force_backward`` does not reach (Caffe:
    ``AllowForceBackward``). refused: those for which a backward pass that wants their gradient is
    an error, as in Caffe. no_backward: any backward pass of the layer is one.
    """

    shape_only: frozenset[int] = frozenset()
    no_gradient: frozenset[int] = frozenset()
    unforced: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()
    no_backward: bool = False

    def is_forced(self, bottom: int) -> bool:
        """Whether ``force_backward`` asks for the gradient of a bottom."""
        return bottom not in self.unforced

    @staticmethod
    def labels(*bottoms: int) -> BottomUse:
        """No gradient is asked of these bottoms, e.g. labels; one that is wanted is an error."""
        return BottomUse(
            no_gradient=frozenset(bottoms), unforced=frozenset(bottoms), refused=frozenset(bottoms)
        )

    @staticmethod
    def indices(*bottoms: int) -> BottomUse:
        """As `labels`, but ``force_backward`` asks for their gradients all the same."""
        return BottomUse(no_gradient=frozenset(bottoms), refused=frozenset(bottoms))


@dataclass(frozen=True)
class Blob:
    """A learned array: its shape, and how to fill it before training.

    learned: False for statistics that the layer keeps itself (`Context.update`). start: the values
    before training, where the layer has them instead of a filler. output_axis, input_axis: the
    axes along which its outputs and its input channels lie; None where there are none, or where
    more could not be added behind those that exist. products: how often a run multiplies each
    element with a number of a bottom and adds, over the whole batch. is_offset: whether it is only
    added, as a bias is: where it is 0, gradients pass all the same.
    """

    shape: Shape
    filler: FillerParameter = field(default_factory=FillerParameter)
    learned: bool = True
    start: np.ndarray | None = field(default=None, compare=False)
    output_axis: int | None = field(default=0, compare=False)
    input_axis: int | None = field(default=None, compare=False)
    products: int = field(default=0, compare=False)
    is_offset: bool = False


def multiply_adds(blobs: Mapping[str, Blob]) -> int:
    """The multiply-adds of a run with learned arrays, over the whole batch.

    This is the cost of convolutions and matrix products; a layer's other operations do not count.
    """
    return sum(count(blob.shape) * blob.products for blob in blobs.values())


@dataclass(frozen=True)
class Labels:
    """``bottom`` holds class indices, 0..``classes`` - 1 or ``ignore``, of ``scores``' channels."""

    bottom: int
    scores: int
    classes: int
    ignore: int | None


@dataclass(frozen=True)
class Scoring:
    """How a layer scores predictions.

    labels: which bottom holds class indices, if one does. scaling: what a loss sums and what
    divides the sum, in words; empty for layers that are no losses.
    """

    labels: Labels | None = None
    scaling: str = ""
