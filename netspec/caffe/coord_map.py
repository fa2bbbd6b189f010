"""pycaffe's ``caffe.coord_map``: where the pixels of one top sit on another's.

Caffe: ``python/caffe/coord_map.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netspec.errors import GraphError
from netspec.geometry.coords import fitting_rank, placement
from netspec.spec import Top, connected
from netspec.spec import crop as crop_to


class CannotCrop(GraphError, AssertionError):
    """Two tops of which one cannot be cropped to the other; an AssertionError, as in pycaffe."""


class CoordMap(NamedTuple):
    """Pixel ``p`` of one top sits at ``a * p + b`` of another, over the axes after ``axis``.

    ``axis`` is that of channels: 1, unless a layer on the way has it elsewhere.

    Both are one number where all spatial axes agree, else arrays with one for each.
    """

    axis: int
    a: float | np.ndarray
    b: float | np.ndarray


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """Where the pixels of ``top_from`` sit on those of ``top_to``.

    A Crop of the one to the other needs an ``a`` of 1, and has the offset ``-b``. Raises a
    NetSpecError, which is a RuntimeError, where no layers relate the two.
    """
    graph, (blob, like) = connected(top_from, top_to)
    scale, shift, first = placement(graph, blob, like, fitting_rank(graph))
    axes = np.array([scale, shift], float)
    alike = (axes == axes[:, :1]).all()
    return CoordMap(first - 1, *(axes[:, 0].tolist() if alike else axes))


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop of ``top_from`` to ``top_to`` that puts pixels on their own place.

    Raises CannotCrop where scales differ or an offset is negative or no whole number.
    """
    graph, _ = connected(top_from, top_to)
    try:
        return crop_to(top_from, top_to, fitting_rank(graph))
    except GraphError as error:
        raise CannotCrop(error.message, error.place, error.who) from None
