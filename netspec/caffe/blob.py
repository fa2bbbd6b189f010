"""pycaffe's Blob: numpy views of arrays that live on the device."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Callable
from typing import Any

import numpy as np

from netspec.caffe.mirror import LearnedStore, Mirror, OwnStore
from netspec.caffe.vectors import FixedVector
from netspec.errors import GraphError, nearest
from netspec.layers.base import Array, Shape, count


class Blob:
    """Data and diff of one blob: float32 arrays of one shape."""

    def __init__(self, shape: Shape, learned: Any = None, made: bool = False) -> None:
        """learned: the variable that holds its data, where a layer learns it. made: see `Mirror`.

        Without one, the data starts from zeros.
        """
        store = OwnStore(shape) if learned is None else LearnedStore(learned, shape)
        self._gradient = OwnStore(shape)
        self.data_mirror = Mirror(store, made)
        self.diff_mirror = Mirror(self._gradient)

    @property
    def data(self) -> np.ndarray:
        """The values, writable; the next forward sees what is written."""
        return self.data_mirror.host

    @property
    def diff(self) -> np.ndarray:
        """The gradient, writable; the next backward starts from that of the outputs."""
        return self.diff_mirror.host

    def hold(self, array: Array) -> None:
        """Take a new value from the device; a diff of another shape makes room for its own."""
        self.data_mirror.device = array
        if self.diff_mirror.shape != array.shape:
            self._gradient.reshape(tuple(array.shape))

    def add_diff(self, gradient: Array) -> None:
        """Add to the diff, as passes do to learned blobs."""
        before = self.diff_mirror.device if not self.diff_is_blank else None
        self.diff_mirror.device = gradient if before is None else before + gradient

    def clear_diff(self) -> None:
        """Set the diff to zero."""
        self._gradient.clear()
        self.diff_mirror.refresh()

    def promise_diff(self, make: Callable[[], Array]) -> None:
        """Set the diff to what ``make`` gives, once somebody asks for it."""
        self._gradient.promise(make)
        self.diff_mirror.refresh()

    @property
    def diff_is_blank(self) -> bool:
        """Whether the diff is zero because nothing has touched it."""
        return self._gradient.blank

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
        self.data_mirror.reshape(tuple(map(int, shape)))
        self.diff_mirror.reshape(self.shape)

    def _legacy_axis(self, axis: int) -> int:
        shape = self.shape
        if len(shape) > 4:
            raise ValueError(f"num, channels, height, width speak of 4 axes; this has {len(shape)}")
        return shape[axis] if axis < len(shape) else 1


class BlobVec(FixedVector[Blob]):
    """The blobs of a net, or what one of its layers learns, in order."""

    def add_blob(self, *shape: int) -> None:
        """Raise TypeError: only a layer in Python adds blobs, to its own in setup."""
        self.append(Blob(shape))


class RawBlobVec(FixedVector[Blob]):
    """The bottoms or tops of a layer; pycaffe's layers in Python are given such."""


class NoSuchName(GraphError, KeyError):
    """A blob or layer that a net does not have, or a layer that learns nothing."""


class ByName(OrderedDict[str, Any]):
    """What a net has by name; an unknown one is told the nearest. noun: what the names are of."""

    noun = "blob"

    def __missing__(self, name: str) -> Any:
        raise NoSuchName(f'no {self.noun} "{name}"{nearest(str(name), self)}')


class ByLayer(ByName):
    """What a net has by layer name."""

    noun = "layer"


class Blobs(ByName):
    """Blob name -> `Blob`, or layer name -> its learned ones: filled once, by their net."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self or not isinstance(value, Blob | BlobVec):
            raise TypeError(
                f'the blobs of a net are not replaced; write ["{name}"].data[...] = array, or '
                f'["{name}"][0].data[...] for what a layer learns'
            )
        super().__setitem__(name, value)

    def __missing__(self, name: str) -> Any:
        if any(isinstance(value, BlobVec) for value in self.values()):
            raise NoSuchName(f'no layer "{name}" that learns anything{nearest(str(name), self)}')
        return super().__missing__(name)


class Arrays(UserDict[str, Any]):
    """Blob name -> array, which leaves the device when it is asked for.

    As in Caffe an array is the blob's memory: it shows what the last run made.
    """

    def __getitem__(self, name: str) -> np.ndarray:
        found = super().__getitem__(name)
        array: np.ndarray = found() if isinstance(found, Callable) else found  # type: ignore[arg-type]
        return array

    def __missing__(self, name: str) -> Any:
        raise NoSuchName(f'no blob "{name}" among these{nearest(str(name), self)}')

    def __repr__(self) -> str:
        return repr(dict(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self.items()),)
