"""Arrays that live on the device, mirrored by writable numpy arrays on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from netspec.caffe.host_memory import HostMemory
from netspec.layers.base import Array, Shape, count, text
from netspec.runtime.values import on_device


class DeviceStore(Protocol):
    """Where a device array rests."""

    @property
    def shape(self) -> Shape:
        """Its shape, at no cost."""

    def get(self) -> Array:
        """The array."""

    def put(self, array: Array) -> None:
        """Replace it."""

    def reshape(self, shape: Shape) -> None:
        """Take another shape; elements that both have stay where they lie in memory."""


class OwnStore:
    """A store of a net's own: zeros until something is put there, reshaped when it is read."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._array: Array | None = None
        self._make: Callable[[], Array] | None = None

    @property
    def blank(self) -> bool:
        """Whether it is still all zeros."""
        return self._array is None and self._make is None

    def clear(self) -> None:
        """Be zeros again."""
        self._array = self._make = None

    def promise(self, make: Callable[[], Array]) -> None:
        """Hold what ``make`` gives, in the present shape, once somebody asks for it."""
        self._array, self._make = None, make

    def get(self) -> Array:
        """The array."""
        if self._make is not None:
            self._array, self._make = self._make(), None
        elif self._array is None:
            self._array = on_device(np.zeros(self.shape, np.float32))
        elif self._array.shape != self.shape:
            self._array = on_device(_refitted(np.asarray(self._array), self.shape))
        return self._array

    def put(self, array: Array) -> None:
        """Replace it, in whatever shape."""
        self._array, self._make, self.shape = array, None, tuple(array.shape)

    def reshape(self, shape: Shape) -> None:
        """Take another shape; elements that both have stay where they lie in memory."""
        self.shape = shape


class LearnedStore:
    """A learned array of a module, in the variable that holds it there."""

    def __init__(self, variable: Any, shape: Shape) -> None:
        self.variable = variable
        self.shape = shape

    def get(self) -> Array:
        """The array."""
        return self.variable[...]

    def put(self, array: Array) -> None:
        """Replace it."""
        self.variable.set_value(array)

    def reshape(self, shape: Shape) -> None:
        """Raise ValueError: its shape is the layer's."""
        keep_shape(self.shape, shape)


def keep_shape(shape: Shape, wanted: Shape) -> None:
    """Raise ValueError for another shape than a learned blob has."""
    if wanted != shape:
        raise ValueError(
            f"this is a learned blob of {text(shape)}, as its layer has it; it cannot be "
            f"{text(wanted)}"
        )


class Mirror:
    """A writable numpy array in front of a device array; each is copied only when it must be.

    As in Caffe the numpy array is the blob's memory: whoever holds it, or a view of it, sees what
    later runs make, and writes what they read. That costs a copy a run while somebody holds one,
    and nothing once nobody does: see `HostMemory`.
    """

    def __init__(self, store: DeviceStore, made: bool = False) -> None:
        """made: whether runs make the array: it is then compared, to tell writing from reading."""
        self.store = store
        self._made = made
        self._memory: HostMemory | None = None
        # What the host array was last equal to, and whether it was handed out since.
        self._seen: Array | None = None
        self._handed_out = False

    @property
    def shape(self) -> Shape:
        """Its shape; copies nothing."""
        return self.store.shape

    @property
    def held(self) -> bool:
        """Whether anybody holds the host array or a view of it."""
        return self._memory is not None and self._memory.is_lent

    @property
    def is_on_host(self) -> bool:
        """Whether the host has an array of its own."""
        return self._memory is not None

    @property
    def host(self) -> np.ndarray:
        """The array, to read and to write."""
        device = self.store.get()
        if self._memory is None or self._memory.array.shape != device.shape:
            self._memory = HostMemory(np.asarray(device))
        elif self._seen is not device:
            np.copyto(self._memory.array, np.asarray(device))
        self._seen = device
        self._handed_out = True
        return self._memory.lend()

    @property
    def device(self) -> Array:
        """The array as the device should see it, with whatever was written to `host`."""
        device = self.store.get()
        if self._memory is None or self._seen is not device:
            return device
        if not (self._handed_out or self.held):
            return device
        self._handed_out = False
        if self._made and not _differ(self._memory.array, np.asarray(device)):
            return device
        device = self._seen = on_device(self._memory.array)
        self.store.put(device)
        return device

    @device.setter
    def device(self, array: Array) -> None:
        self.store.put(array)
        self.refresh()

    def fill(self, values: Any) -> None:
        """Set every element; raises ValueError where these do not fit its shape."""
        self.device = on_device(np.broadcast_to(values, self.shape))

    def refresh(self) -> None:
        """Show the array of now to those who hold the host array."""
        self._handed_out = False
        memory = self._memory
        if memory is not None and memory.is_lent and memory.array.shape == self.shape:
            self._seen = self.store.get()
            np.copyto(memory.array, np.asarray(self._seen))

    def reshape(self, shape: Shape) -> None:
        """Take another shape; elements that both have stay where they lie in memory."""
        if shape != self.shape:
            _ = self.device
            self.store.reshape(shape)


def _refitted(array: np.ndarray, shape: Shape) -> np.ndarray:
    new = np.zeros(count(shape), np.float32)
    kept = min(array.size, new.size)
    new[:kept] = array.ravel()[:kept]
    return new.reshape(shape)


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether any bit of two float arrays differs."""
    return not np.array_equal(a.view(np.uint32), b.view(np.uint32))
