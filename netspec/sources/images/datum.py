"""Decode database records, each a Datum, to images, and encode them.

Caffe: ``data_transformer.cpp``, ``io.cpp``.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SourceError, fail, require
from netspec.layers.base import text
from netspec.proto.layers_pb2 import Datum
from netspec.sources.images.batches import LabelledImage
from netspec.sources.images.decode import read_channels


def read_datum(record: bytes, color: bool | None, name: str) -> LabelledImage:
    """The image (C, H, W) and the label of a Datum; raises SourceError.

    Bytes, floats, or an image file: then the channels are blue, green, red, and ``color`` says
    how it is read, as in `read_channels`. name: the record's, for messages.
    """
    try:
        datum = Datum.FromString(record)
    # Protobuf's own error; what else a damaged record may raise is no different to its reader.
    except Exception as error:
        fail(f"{name}: damaged, or not a Datum ({error})", SourceError)
    image = _decoded(datum, color, name) if datum.encoded else _stored(datum, name)
    return LabelledImage(image, datum.label if datum.HasField("label") else None, name)


def write_datum(image: NDArray[np.uint8], label: int) -> bytes:
    """The record of an image (H, W, C) and its label."""
    height, width, channels = image.shape
    data = image.transpose(2, 0, 1).tobytes()
    return Datum(
        channels=channels, height=height, width=width, data=data, label=label, encoded=False
    ).SerializeToString()


def write_floats(array: NDArray[np.float32]) -> bytes:
    """The record of an array (C), (C, H) or (C, H, W) of floats, without a label."""
    channels, height, width = (*array.shape, 1, 1, 1)[:3]
    datum = Datum(channels=channels, height=height, width=width)
    datum.float_data.extend(array.ravel().tolist())
    return datum.SerializeToString()


def write_encoded(file: bytes, label: int) -> bytes:
    """The record of an image file's contents and a label."""
    return Datum(data=file, label=label, encoded=True).SerializeToString()


def _decoded(datum: Datum, color: bool | None, name: str) -> NDArray[np.uint8]:
    require(datum.data, f"{name}: an encoded Datum without data", SourceError)
    return read_channels(BytesIO(datum.data), color, name).transpose(2, 0, 1)


def _stored(datum: Datum, name: str) -> NDArray[Any]:
    """Bytes or floats, as Caffe prefers them."""
    size = datum.channels, datum.height, datum.width
    array: NDArray[Any] = (
        np.frombuffer(datum.data, np.uint8)
        if datum.data
        else np.fromiter(datum.float_data, np.float32, len(datum.float_data))
    )
    kind = "bytes" if datum.data else "floats"
    require(
        min(size) > 0 and math.prod(size) == array.size,
        f"{name}: {array.size} {kind} for an image of {text(size)} (channels, height, width)",
        SourceError,
    )
    return array.reshape(size)
