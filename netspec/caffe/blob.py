"""pycaffe's Blob: numpy views of arrays that live on the device."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from netspec.layers.base import Shape, count


class Mirror:
    """A writable numpy array in front of a device array; each crosses over only when it must.

    Once handed out, the numpy array may be written to at any time, so it stands for the value
    until the device makes a new one.
    """

    def __init__(self, get: Callable[[], jax.Array], put: Callable[[jax.Array], None]) -> None:
        self._get, self._put = get, put
        self._host: np.ndarray | None = None
        self._seen: jax.Array | None = None

    @property
    def shape(self) -> Shape:
        """Its shape, without anything crossing over."""
        return tuple(self._get().shape)

    @property
    def host(self) -> np.ndarray:
        """The array, to read and to write."""
        device = self._get()
        if self._host is None or self._host.shape != device.shape:
            self._host = np.array(device)
        elif self._seen is not device:
            self._host[...] = device
        self._seen = device
        return self._host

    @property
    def device(self) -> jax.Array:
        """The array as the device should see it, with whatever was written to `host`."""
        device = self._get()
        if self._host is not None and self._seen is device:
            # A copy: on a CPU the device would otherwise share memory that the user writes to.
            device = self._seen = jnp.array(self._host, copy=True)
            self._put(device)
        return device

    @device.setter
    def device(self, array: jax.Array) -> None:
        self._put(array)


class Blob:
    """Data and diff of one blob: float32 arrays of one shape."""

    def __init__(
        self,
        shape: Shape,
        get: Callable[[], jax.Array] | None = None,
        put: Callable[[jax.Array], None] | None = None,
    ) -> None:
        self._array = jnp.zeros(shape, jnp.float32)
        self._gradient = jnp.zeros(shape, jnp.float32)
        self.data_mirror = Mirror(get or (lambda: self._array), put or self._set_array)
        self.diff_mirror = Mirror(lambda: self._gradient, self._set_gradient)

    @property
    def data(self) -> np.ndarray:
        """The values, writable; the next forward sees what is written."""
        return self.data_mirror.host

    @property
    def diff(self) -> np.ndarray:
        """The gradient, writable; the next backward starts from that of the outputs."""
        return self.diff_mirror.host

    def hold(self, array: jax.Array) -> None:
        """Take a new value from the device; a diff of another shape makes room for its own."""
        self.data_mirror.device = array
        if self.diff_mirror.shape != array.shape:
            self.diff_mirror.device = jnp.zeros_like(array)

    @property
    def shape(self) -> Shape:
        """All axes."""
        return self.data_mirror.shape

    @property
    def count(self) -> int:
        """The number of elements."""
        return count(self.shape)

    @property
    def num(self) -> int:
        """Axis 0."""
        return self._legacy_axis(0)

    @property
    def channels(self) -> int:
        """Axis 1."""
        return self._legacy_axis(1)

    @property
    def height(self) -> int:
        """Axis 2."""
        return self._legacy_axis(2)

    @property
    def width(self) -> int:
        """Axis 3."""
        return self._legacy_axis(3)

    def reshape(self, *shape: int) -> None:
        """Make room for another shape; elements that both have stay where they lie in memory."""
        for mirror in (self.data_mirror, self.diff_mirror):
            if mirror.shape == shape:
                continue
            old = np.asarray(mirror.device).ravel()
            new = np.zeros(count(shape), np.float32)
            kept = min(old.size, new.size)
            new[:kept] = old[:kept]
            mirror.device = jnp.asarray(new.reshape(shape))

    def _legacy_axis(self, axis: int) -> int:
        shape = self.shape
        if len(shape) > 4:
            raise ValueError(f"num, channels, height, width speak of 4 axes; this has {len(shape)}")
        return shape[axis] if axis < len(shape) else 1

    def _set_array(self, array: jax.Array) -> None:
        self._array = array

    def _set_gradient(self, array: jax.Array) -> None:
        self._gradient = array
