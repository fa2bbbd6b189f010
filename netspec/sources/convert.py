"""Lists of images to databases, and either to their mean.

Caffe: ``convert_imageset.cpp``, ``compute_image_mean.cpp``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import SourceError, fail, require, unreadable
from netspec.files import whole
from netspec.layers.base import text
from netspec.proto.layers_pb2 import BlobProto, DataParameter
from netspec.sources.base import locate
from netspec.sources.databases import Record, open_database, write_database
from netspec.sources.datum import read_datum, write_datum, write_encoded
from netspec.sources.images import find_listed, read_list, read_listed
from netspec.sources.order import Passes
from netspec.sources.samples import Sample

# What OpenCV writes where nothing else is said.
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Listed:
    """Images that a text file lists, a line ``path label`` each, and how they are read.

    folder: put before every path as it is. color: or else grey. height, width: what they are
    resized to, unless both are 0. seed: shuffles them if given.
    """

    path: Path
    folder: str = ""
    color: bool = True
    height: int = 0
    width: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        require(
            self.height >= 0 and self.width >= 0 and (self.height > 0) == (self.width > 0),
            f"resized to height {self.height} and width {self.width}; give both or none",
            SourceError,
        )

    def lines(self) -> Iterator[tuple[str, Path, int]]:
        """What is listed, the file that it leads to, and its label; raises SourceError."""
        paths, labels = read_list(self.path)
        order = Passes(len(paths), self.seed)
        find = partial(locate, named_in=str(self.path))
        for i in map(order.index, range(len(paths))):
            yield paths[i], find_listed(self.folder, paths[i], find), labels[i]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """One of the images, (H, W, C)."""
        return read_listed(path, self.color, self.height, self.width)


def list_to_database(
    listed: Listed, path: Path, backend: int = DataParameter.LMDB, encoding: str | None = None
) -> int:
    """Write the database of a list, whole or not at all; returns the number of its records.

    Keys are ``00000000_`` and so on, and the listed path. encoding: None stores pixels; a file
    ending, say ``png``, stores image files of this kind; "" stores each as the kind that it is.

    Caffe: ``convert_imageset.cpp``. Differs: an image that cannot be read is an error; files that
    hold colour are not stored as they are when grey is asked for. Raises SourceError.
    """
    return write_database(path, backend, _records(listed, encoding))


def _records(listed: Listed, encoding: str | None) -> Iterator[Record]:
    for i, (name, path, label) in enumerate(listed.lines()):
        record = (
            write_datum(listed.read(path), label)
            if encoding is None
            else write_encoded(_encode(listed, path, encoding), label)
        )
        yield f"{i:08d}_{name}".encode(), record


def _encode(listed: Listed, path: Path, encoding: str) -> bytes:
    """The contents of an image file; the file's own where nothing is to be changed."""
    kinds = Image.registered_extensions()
    suffix = f".{encoding}".lower() if encoding else path.suffix.lower()
    require(suffix in kinds, f'{path}: "{suffix}" is no known kind of image file', SourceError)
    image = listed.read(path)
    if kinds.get(path.suffix.lower()) == kinds[suffix] and listed.color and not listed.height:
        return path.read_bytes()
    file = BytesIO()
    pixels = image[:, :, ::-1] if image.shape[2] == 3 else image[:, :, 0]
    Image.fromarray(pixels).save(file, kinds[suffix], quality=_JPEG_QUALITY)
    return file.getvalue()


def samples_of_list(listed: Listed) -> Iterator[Sample]:
    """The images of a list; raises SourceError."""
    for _, path, label in listed.lines():
        yield Sample(listed.read(path).transpose(2, 0, 1), label, str(path))


def samples_of_database(path: Path, backend: int = DataParameter.LMDB) -> Iterator[Sample]:
    """The images of a database, decoded; raises SourceError."""
    database = open_database(path, backend)
    with closing(database), closing(database.records()) as records:
        for key, record in records:
            yield read_datum(record, None, f'{path}: record "{key.decode("utf-8", "replace")}"')


def mean_image(samples: Iterable[Sample]) -> NDArray[np.float32]:
    """The mean (C, H, W) of images of one size; raises SourceError.

    That of each channel, for ``mean_value``, is its mean over H and W.

    Caffe: ``compute_image_mean.cpp``. Differs: sums in double precision.
    """
    total: NDArray[np.float64] | None = None
    count = 0
    for sample in samples:
        if total is None:
            total = np.zeros(sample.image.shape)
        require(
            sample.image.shape == total.shape,
            f"{sample.name}: {text(sample.image.shape)} (channels, height, width), but the first "
            f"image is {text(total.shape)}; resize them to one size",
            SourceError,
        )
        total += sample.image
        count += 1
    if total is None:
        fail("no images to take the mean of", SourceError)
    return (total / count).astype(np.float32)


def write_mean(path: Path, mean: NDArray[np.float32]) -> None:
    """Write a mean image (C, H, W) as a .binaryproto, whole or not at all; raises SourceError."""
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.ravel().tolist())
    try:
        with whole(path) as part:
            part.write_bytes(blob.SerializeToString())
    except OSError as error:
        fail(unreadable(path, error), SourceError)
