"""Host memory that is lent out as a numpy array, and that knows whether anybody still holds it."""

from __future__ import annotations

import weakref

import numpy as np


class HostMemory:
    """The memory of an array, lent to users who may keep the array, or any view of it, and write.

    pycaffe's arrays are the memory of their blobs: a script may take ``blob.data`` once and write
    into it before each run. So a run must know whether somebody may still write, and a weak
    reference to the array that was handed out tells: NumPy lets each view keep alive the array
    that it is a view of, whatever it is a view through. It does so for an array over another
    object's memory alone: of an array that is a view itself, views would keep the owner alive
    instead. Hence a bytearray, over which `array` and the array that is lent both lie.

    array: the memory, for reading and writing here; it is never handed out.
    """

    def __init__(self, values: np.ndarray) -> None:
        """values: what it holds at first, copied."""
        self._bytes = bytearray(values.nbytes)
        self._shape, self._dtype = values.shape, values.dtype
        self.array = self._over_bytes()
        np.copyto(self.array, values)
        self._lent: weakref.ref[np.ndarray] | None = None

    @property
    def is_lent(self) -> bool:
        """Whether anybody holds the lent array, or a view of it."""
        return self._lent is not None and self._lent() is not None

    def lend(self) -> np.ndarray:
        """The array to hand out: the same one as long as anybody holds it."""
        lent = None if self._lent is None else self._lent()
        if lent is None:
            lent = self._over_bytes()
            self._lent = weakref.ref(lent)
        return lent

    def _over_bytes(self) -> np.ndarray:
        return np.ndarray(self._shape, self._dtype, buffer=self._bytes)
