"""Convert lists of images to databases, and compute the mean image of either.

Caffe: ``convert_imageset.cpp``, ``compute_image_mean.cpp``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import SourceError, counted, fail, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.formats.regular import read_bytes
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import BlobProto, DataParameter
from netspec.sources.base import locate
from netspec.sources.checks import require_blob
from netspec.sources.images.batches import LabelledImage
from netspec.sources.images.databases import BACKENDS, KeyValue, open_database, write_database
from netspec.sources.images.datum import read_datum, write_datum, write_encoded
from netspec.sources.progress import Watch, unwatched
from netspec.sources.readers.image_list import (
    find_listed,
    read_list,
    read_listed,
    refuse_missing_labelled,
)
from netspec.sources.sampling import Passes

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
        require_blob((3 if self.color else 1, self.height, self.width), "an image")
        require(
            self.height >= 0 and self.width >= 0 and (self.height > 0) == (self.width > 0),
            f"resized to height {self.height} and width {self.width}; give both or none",
            SourceError,
        )

    def lines(self) -> list[tuple[str, Path, int]]:
        """What is listed, the file that it leads to, and its label; raises SourceError."""
        try:
            paths, labels = read_list(self.path)
        except SourceError as error:
            # What a layer would call it.
            error.message = error.message.removeprefix("source: ")
            raise
        order = Passes(len(paths), self.seed)
        find = partial(locate, named_in=str(self.path))
        found = [
            (paths[i], find_listed(self.folder, paths[i], find), labels[i])
            for i in map(order.index, range(len(paths)))
        ]
        missing = [line for line in found if not os.path.isfile(line[1])]
        if missing:
            listed, path, label = missing[0]
            refuse_missing_labelled(self.path, listed, label, self.folder, find)
            fail(
                f"{self.path}: lacks {len(missing)} of its {counted(len(found), 'image')}, "
                f"the first is {path}; is the root folder right?",
                SourceError,
            )
        return found

    def read(self, path: Path) -> NDArray[np.uint8]:
        """One of the images, (H, W, C)."""
        return read_listed(path, self.color, self.height, self.width)


def list_to_database(
    listed: Listed,
    path: Path,
    backend: int = DataParameter.LMDB,
    encoding: str | None = None,
    check_size: bool = False,
    watch: Watch = unwatched,
) -> int:
    """Write the database of a list, whole or not at all; returns the number of its records.

    Keys are ``00000000_`` and so on, and the listed path. encoding: None stores pixels; a file
    ending, say ``png``, stores image files of this kind; "" stores each as the kind that it is.
    check_size: refuse images of several sizes. watch: sees the lines pass.

    Caffe: ``convert_imageset.cpp``. Differs: an image that cannot be read is an error; files that
    hold colour are not stored as they are when grey is asked for. Raises SourceError.
    """
    return write_database(path, backend, _records(listed, encoding, check_size, watch))


def _records(
    listed: Listed, encoding: str | None, check_size: bool, watch: Watch
) -> Iterator[KeyValue]:
    lines = listed.lines()
    size: Shape | None = None
    for i, (name, path, label) in enumerate(watch(lines, len(lines))):
        image = listed.read(path)
        size = size or image.shape
        if check_size:
            _require_size(str(path), _channels_first(image.shape), _channels_first(size))
        record = (
            write_datum(image, label)
            if encoding is None
            else write_encoded(_encode(listed, path, image, encoding), label)
        )
        yield f"{i:08d}_{name}".encode(), record


def _channels_first(size: Shape) -> Shape:
    height, width, channels = size
    return channels, height, width


def _require_size(name: str, size: Shape, first: Shape) -> None:
    require(
        size == first,
        f"{name}: {text(size)} (channels, height, width), but the first image is {text(first)}; "
        "resize them to one size",
        SourceError,
    )


def _encode(listed: Listed, path: Path, image: NDArray[np.uint8], encoding: str) -> bytes:
    """The contents of an image file; the file's own where nothing is to be changed."""
    kinds = Image.registered_extensions()
    suffix = f".{encoding}".lower() if encoding else path.suffix.lower()
    require(suffix in kinds, f'{path}: "{suffix}" is no known kind of image file', SourceError)
    if kinds.get(path.suffix.lower()) == kinds[suffix] and listed.color and not listed.height:
        return read_bytes(path)
    file = BytesIO()
    pixels = image[:, :, ::-1] if image.shape[2] == 3 else image[:, :, 0]
    Image.fromarray(pixels).save(file, kinds[suffix], quality=_JPEG_QUALITY)
    return file.getvalue()


def samples(path: Path, folder: str = "", watch: Watch = unwatched) -> Iterator[LabelledImage]:
    """The images of a list, or of a database of either kind; raises SourceError.

    folder: put before every path of a list. watch: sees lines or records pass.
    """
    if not path.is_dir():
        return samples_of_list(Listed(path, folder), watch)
    require(not folder, f"{path}: a database; only a list has a root folder", SourceError)
    return samples_of_database(path, backend_of(path), watch)


def backend_of(path: Path) -> int:
    """Which kind of database a folder is, a value of ``DataParameter.DB``; raises SourceError."""
    require(path.is_dir(), f"{path}: no such folder", SourceError)
    for backend, kind in BACKENDS.items():
        if (path / kind.mark).exists():
            return backend
    marks = " nor ".join(f"{kind.mark} ({kind.kind})" for kind in BACKENDS.values())
    fail(f"{path}: no database: it has neither {marks}", SourceError)


def samples_of_list(listed: Listed, watch: Watch = unwatched) -> Iterator[LabelledImage]:
    """The images of a list; raises SourceError."""
    lines = listed.lines()
    for _, path, label in watch(lines, len(lines)):
        yield LabelledImage(listed.read(path).transpose(2, 0, 1), label, str(path))


def samples_of_database(
    path: Path, backend: int = DataParameter.LMDB, watch: Watch = unwatched
) -> Iterator[LabelledImage]:
    """The images of a database, decoded; raises SourceError."""
    database = open_database(path, backend)
    with closing(database), closing(database.records()) as records:
        for key, record in watch(records, database.count):
            yield read_datum(record, None, f'{path}: record "{key.decode("utf-8", "replace")}"')


def mean_image(samples: Iterable[LabelledImage]) -> NDArray[np.float32]:
    """The mean (C, H, W) of images of one size; raises SourceError.

    That of each channel, for ``mean_value``, is its mean over H and W.

    Caffe: ``compute_image_mean.cpp``. Differs: sums in double precision.
    """
    total: NDArray[np.float64] | None = None
    count = 0
    for sample in samples:
        if total is None:
            total = np.zeros(sample.image.shape)
        _require_size(sample.name, sample.image.shape, total.shape)
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
        with atomic_write(path) as part:
            part.write_bytes(blob.SerializeToString())
    except OSError as error:
        fail(unreadable(path, error), SourceError)
