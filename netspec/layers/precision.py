"""What a layer computes in where a run's products need not be exact to float32.

Learned arrays, statistics and memory are float32 in every run. Blobs between layers may be
narrower, and each layer type says what becomes of them.
"""

from __future__ import annotations

from enum import Enum


class Precision(Enum):
    """What the bottoms of a layer are brought to before it computes, and its tops after."""

    PRODUCTS = "the run's type, tops too: matrix products with learned arrays"
    INSIDE = "float32; tops are of the widest type among the bottoms again"
    FULL = "float32, tops too: large sums, small probabilities, indices"
