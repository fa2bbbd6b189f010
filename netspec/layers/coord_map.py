"""How the pixels of one blob sit on the pixels of another: an affine map along each spatial axis.

Caffe: ``python/caffe/coord_map.py``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class CoordMap(NamedTuple):
    """Output pixel ``p`` of a layer sits at ``scale * p + shift`` of its input, axis by axis.

    axis: the first blob axis the map speaks of (``scale[0]`` belongs to it). extent: how many
    input pixels one output pixel sees. A pixel's position is its centre; shifts may be halves.
    """

    axis: int
    scale: tuple[Fraction, ...]
    shift: tuple[Fraction, ...]
    extent: tuple[Fraction, ...]

    @staticmethod
    def identity(rank: int) -> CoordMap:
        """Each pixel on itself, for ``rank`` spatial axes."""
        one, none = (Fraction(1),) * rank, (Fraction(0),) * rank
        return CoordMap(2, one, none, one)
