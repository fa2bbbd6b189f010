"""A learned blob in another shape than that of the array behind it."""

from __future__ import annotations

import numpy as np

from netspec.caffe.blob import Blob
from netspec.caffe.mirror import keep_shape
from netspec.layers.base import Shape


class SharedBlob(Blob):
    """A learned blob over the numbers of another one that has as many, in a shape of its own.

    Caffe: ``share_mode: PERMISSIVE``.
    """

    def __init__(self, owner: Blob, shape: Shape) -> None:
        self._owner = owner
        self._shape = shape

    @property
    def data(self) -> np.ndarray:
        """The owner's values, writable."""
        return self._owner.data.reshape(self._shape)

    @property
    def diff(self) -> np.ndarray:
        """The owner's gradient, writable."""
        return self._owner.diff.reshape(self._shape)

    @property
    def shape(self) -> Shape:
        """All axes."""
        return self._shape

    def reshape(self, *shape: int) -> None:
        """Raise ValueError: its shape is the layer's."""
        keep_shape(self._shape, shape)
