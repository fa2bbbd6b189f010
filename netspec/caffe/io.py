"""pycaffe's ``caffe.io``: image files and messages to arrays, and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from netspec.caffe.proto import caffe_pb2 as caffe_pb2
from netspec.caffe.transformer import Transformer as Transformer
from netspec.caffe.transformer import oversample as oversample
from netspec.caffe.transformer import resize_image as resize_image
from netspec.errors import SourceError
from netspec.proto.layers_pb2 import BlobProto, BlobProtoVector, Datum
from netspec.sources.images.decode import read_image

# Of red, green and blue.
_LUMINANCE = (0.2125, 0.7154, 0.0721)


class UnreadImage(SourceError, OSError):
    """An image file that is missing or damaged: scripts catch an IOError."""


def load_image(filename: str, color: bool = True) -> np.ndarray:
    """An image file as (H, W, 3) of red, green and blue, or (H, W, 1) of grey, from 0 to 1.

    Transparency is left out. Raises `UnreadImage`.
    """
    try:
        image: np.ndarray = read_image(Path(filename)) / 255
    except SourceError as error:
        raise UnreadImage(str(error)) from None
    return (image if color else image @ np.reshape(_LUMINANCE, (3, 1))).astype(np.float32)


def blobproto_to_array(blob: BlobProto, return_diff: bool = False) -> np.ndarray:
    """The ``data`` of a BlobProto, or its ``diff``, in its shape."""
    values = np.array(blob.diff if return_diff else blob.data)
    older = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in older):
        return values.reshape([getattr(blob, name) for name in older])
    return values.reshape(blob.shape.dim)


def array_to_blobproto(arr: Any, diff: Any = None) -> BlobProto:
    """A BlobProto of ``data`` and, if given, ``diff``."""
    array = np.asarray(arr)
    blob = BlobProto(data=array.astype(float).ravel())
    blob.shape.dim.extend(array.shape)
    if diff is not None:
        blob.diff.extend(np.asarray(diff).astype(float).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[Any]) -> bytes:
    """Arrays as the bytes of a BlobProtoVector."""
    return BlobProtoVector(blobs=map(array_to_blobproto, arraylist)).SerializeToString()


def blobprotovector_str_to_arraylist(string: bytes) -> list[np.ndarray]:
    """The arrays in the bytes of a BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in BlobProtoVector.FromString(string).blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> Datum:
    """An image (C, H, W) as a Datum: bytes if it has these, else floats. Raises ValueError."""
    if arr.ndim != 3:
        raise ValueError(f"{arr.ndim} axes; a Datum has channels, height and width")
    channels, height, width = arr.shape
    datum = Datum(channels=channels, height=height, width=width, label=label)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).ravel())
    return datum


def datum_to_array(datum: Datum) -> np.ndarray:
    """The image (C, H, W) in a Datum that is not encoded: bytes, or floats."""
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data)
    return values.reshape(datum.channels, datum.height, datum.width).copy()
