"""How a layer holds and computes its arrays: the order of their axes, and their precision.

Learned arrays, statistics and carried state are float32 in every run. Blobs between layers may be
narrower, and each layer type says how it treats them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class MemoryLayout(Enum):
    """The axis orders that a layer can compute in; only blobs of rank 4 and more have a choice.

    A run that holds blobs channels-last (N, H, W, C) keeps them so through ``EITHER`` and
    ``CHANNELS_LAST`` layers, and brings them back to (N, C, H, W) for ``CHANNELS_FIRST`` ones.
    """

    CHANNELS_FIRST = "only channels-first"
    EITHER = "whichever its first bottom is in"
    CHANNELS_LAST = "channels-last where the run prefers it"


class Precision(Enum):
    """The dtype that a layer computes in, and that of its tops."""

    PRODUCTS = "the run's type, tops too: matrix products with learned arrays"
    INSIDE = "float32; tops are of the widest type among the bottoms again"
    FULL = "float32, tops too: large sums, small probabilities, indices"


@dataclass(frozen=True)
class Numerics:
    """The memory layout and the precision of a layer."""

    layout: MemoryLayout = MemoryLayout.CHANNELS_FIRST
    precision: Precision = Precision.INSIDE
