"""Read and write protobuf's wire format without copying big arrays, for weight files.

A .caffemodel is half a gigabyte of floats in messages whose other fields differ from fork to
fork. Reading only the fields that all forks share, straight from a mapped file, takes no memory
and cannot fail on the rest. https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from netspec.errors import WeightsError, require
from netspec.formats.regular import open_regular

# Layers import this module, so it cannot take the name from them.
Shape = tuple[int, ...]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# BlobProto's fields.
_LEGACY, _DATA, _SHAPE, _DOUBLES = (1, 2, 3, 4), 5, 7, 8
_RAW_TYPE, _RAW = 10, 12
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2", 3: "<i4", 4: "<u4"}

# What Caffe itself allows a blob: its number of axes, and the size of each. No file holds more
# numbers than an address can count.
_MOST_AXES, _MOST_SIZE = 32, 2**31 - 1
_MOST_NUMBERS = 2**60 - 1


@dataclass(frozen=True)
class StoredBlob:
    """An array as a file holds it; ``legacy`` if its shape was four fixed numbers.

    read: makes or reads it, which takes memory where it is packed; so its shape is asked first.
    """

    shape: Shape
    read: Callable[[], np.ndarray]
    legacy: bool = False

    @classmethod
    def of(cls, array: np.ndarray, legacy: bool = False) -> StoredBlob:
        """An array that is in memory, or mapped."""
        return cls(array.shape, lambda: array, legacy)

    @property
    def array(self) -> np.ndarray:
        """The array, read now."""
        return self.read()

    def fits(self, shape: Shape) -> bool:
        """Whether the array may stand for ``shape``.

        A legacy one has leading axes of 1 that newer nets leave out. Caffe: ``Blob::ShapeEquals``.
        """
        if self.legacy:
            return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + shape
        return self.shape == shape

    def turns_into(self, shape: Shape) -> bool:
        """Whether it is a fully connected layer's and ``shape`` a convolution's, or vice versa.

        (O, C H W) and (O, C, H, W) hold the same numbers in the same order. A legacy (1, 1, O, I)
        is a fully connected layer's.
        """
        mine = self.shape
        if self.legacy and mine[:2] == (1, 1):
            mine = mine[2:]
        flat = min(len(mine), len(shape)) == 2 < max(len(mine), len(shape))
        return flat and mine[0] == shape[0] and math.prod(mine) == math.prod(shape)


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of each field; raises WeightsError where it breaks off."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        require(number, "is not protobuf", WeightsError)
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        else:
            require(kind in (FIXED64, FIXED32), "is not protobuf", WeightsError)
            size = 8 if kind == FIXED64 else 4
        require(
            at + size <= end,
            f"is truncated: a field of {size} bytes has only {end - at} left",
            WeightsError,
        )
        yield number, kind, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        require(at < len(message), "is truncated in the middle of a number", WeightsError)
        require(shift < 70, "is not protobuf", WeightsError)
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def string(value: int | memoryview) -> str:
    """A string field's text."""
    require(isinstance(value, memoryview), "is not a weight file: a name is no text", WeightsError)
    try:
        return str(value, "utf-8")  # type: ignore[arg-type]
    except UnicodeDecodeError:
        raise WeightsError("is damaged: a name is no text") from None


@dataclass
class _BlobFields:
    """The fields of a BlobProto that matter, as they are met; arrays are views of its bytes."""

    legacy: dict[int, int] = field(default_factory=dict)
    shape: list[int] | None = None
    floats: list[np.ndarray] = field(default_factory=list)
    doubles: list[np.ndarray] = field(default_factory=list)
    raw_type: int = 0
    raw: memoryview | None = None

    def take_number(self, number: int, value: int) -> None:
        """Note a field that is a number."""
        if number in _LEGACY:
            self.legacy[number] = value
        elif number == _RAW_TYPE:
            self.raw_type = value

    def take_bytes(self, number: int, value: memoryview) -> None:
        """Note a field that is a message or packed numbers."""
        if number == _SHAPE:
            self.shape = _dims(value)
        elif number == _DATA:
            self.floats.append(_floats(value, "<f4"))
        elif number == _DOUBLES:
            self.doubles.append(_floats(value, "<f8"))
        elif number == _RAW:
            self.raw = value

    def flat(self) -> np.ndarray:
        """All numbers in a row; of floats and doubles, Caffe takes the doubles."""
        parts = self.doubles or self.floats
        if self.raw is not None and not parts:
            require(
                self.raw_type in _RAW_TYPES,
                f"has raw_data of unknown type {self.raw_type}",
                WeightsError,
            )
            parts = [_floats(self.raw, _RAW_TYPES[self.raw_type])]
        return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, "<f4")])

    def dims(self) -> Shape:
        """The stated shape."""
        if self.legacy:
            return tuple(self.legacy.get(i, 0) for i in _LEGACY)
        return tuple(self.shape or ())


def blob(message: memoryview) -> StoredBlob:
    """The array of a BlobProto, as a view of its bytes where its floats stand packed.

    Reads floats, doubles, and the ``raw_data`` of NVCaffe and OpenCV (fp16 and others). Raises
    WeightsError.
    """
    found = _BlobFields()
    for number, _, value in fields(message):
        if isinstance(value, int):
            found.take_number(number, value)
        else:
            found.take_bytes(number, value)
    flat, dims = found.flat(), found.dims()
    require(
        len(dims) <= _MOST_AXES and all(dim <= _MOST_SIZE for dim in dims),
        f"is damaged: a blob has {len(dims)} axes, the largest of size {max(dims, default=0)}",
        WeightsError,
    )
    shaped = "x".join(map(str, dims)) or "scalar"
    # A size of 0 hides sizes of the others that no array can have.
    possible = math.prod(dim for dim in dims if dim) <= _MOST_NUMBERS
    require(
        possible and math.prod(dims) == flat.size,
        f"is damaged: a blob of shape {shaped} holds {flat.size} numbers",
        WeightsError,
    )
    return StoredBlob.of(flat.reshape(dims), bool(found.legacy))


def _floats(data: memoryview, kind: str) -> np.ndarray:
    require(
        len(data) % np.dtype(kind).itemsize == 0,
        f"is damaged: {len(data)} bytes are no whole number of floats",
        WeightsError,
    )
    return np.frombuffer(data, kind)


def _dims(message: memoryview) -> list[int]:
    dims: list[int] = []
    for number, _, value in fields(message):
        if number == 1 and isinstance(value, int):
            dims.append(value)
        elif number == 1 and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                dim, at = _varint(value, at)
                dims.append(dim)
    return dims


def number(field_number: int, value: int) -> bytes:
    """An encoded integer field."""
    return _encode(field_number << 3 | VARINT) + _encode(value)


def header(field_number: int, size: int) -> bytes:
    """The tag and the length before a field of ``size`` bytes."""
    return _encode(field_number << 3 | BYTES) + _encode(size)


def write_fetched(
    file: BinaryIO, field_number: int, shape: Shape, *fetch: Callable[[], np.ndarray]
) -> None:
    """Write a BlobProto field of arrays that lie elsewhere: its data and, if given, its diff.

    Each is fetched when its turn comes and released before the next.
    """
    file.write(header(field_number, blob_size(shape, len(fetch))))
    file.write(_shape_field(shape))
    # The diff's field follows the data's.
    for number, array in enumerate(fetch, _DATA):
        file.write(header(number, 4 * math.prod(shape)))
        file.write(np.ascontiguousarray(array(), "<f4").data)


def blob_size(shape: Shape, arrays: int = 1) -> int:
    """How many bytes `write_fetched` writes behind its header for so many arrays of this shape."""
    size = 4 * math.prod(shape)
    return len(_shape_field(shape)) + arrays * (len(header(_DATA, size)) + size)


def _shape_field(shape: Shape) -> bytes:
    dims = b"".join(map(_encode, shape))
    message = header(1, len(dims)) + dims
    return header(_SHAPE, len(message)) + message


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def mapped(path: str | Path) -> memoryview:
    """A file's bytes, mapped read-only; raises WeightsError for an empty one."""
    with open_regular(path) as file:
        require(os.fstat(file.fileno()).st_size > 0, "is empty", WeightsError)
        return memoryview(np.memmap(file, np.uint8, mode="r"))  # type: ignore[arg-type]
