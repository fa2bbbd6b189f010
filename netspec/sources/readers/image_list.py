"""ImageData: image files, and their labels, that a text file lists.

Caffe: ``image_data_layer.cpp``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import DamagedDataError, Place, SourceError, counted, fail, require, unreadable
from netspec.formats.text import read_text
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import register
from netspec.sources.checks import require_blob, require_files
from netspec.sources.images.batches import (
    MOVED,
    ImageSource,
    LabelledImage,
    LazyImage,
    warn_of_moved,
)
from netspec.sources.images.decode import read_channels
from netspec.sources.images.resize import resize
from netspec.sources.sampling import Passes, generator

_INTEGER = re.compile(r"[+-]?[0-9]+")
# A path, and numbers behind it: what lists of several labels an image look like.
_LABELLED = re.compile(r"(.*?\S)[\s,;]+((?:[+-]?[0-9][0-9.eE+-]*[\s,;]*)+)")


@register("ImageData")
class ImageListReader(ImageSource):
    """Feeds ``batch_size`` images a batch, in blue, green, red or grey, and their labels.

    The file ``source`` has a line ``path label`` for each; ``root_folder`` is put before every
    path as it is. Images are resized to ``new_height`` and ``new_width`` if these are given,
    shuffled anew for each pass if ``shuffle``; of the first pass, fewer than ``rand_skip`` samples
    are left out, at random.

    Caffe: ``image_data_layer.cpp``. Differs: every line must have a label; ``rand_skip`` must not
    exceed the number of images; names that are not found from the current folder are tried beside
    the prototxt.
    """

    remedy = "new_height and new_width, crop_size, or batch_size: 1"

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        self._param = param = spec.image_data_param
        super().__init__(spec, phase, seed, place, param.batch_size)
        warn_of_moved(spec, place, param, MOVED)
        require(
            self._transform.color in (None, param.is_color),
            f"is_color: {str(param.is_color).lower()} is what decides here; transform_param "
            "{ force_color force_gray } concern Data layers",
            SourceError,
        )
        require(
            (param.new_height > 0) == (param.new_width > 0),
            f"new_height is {param.new_height} and new_width {param.new_width}; give both or none",
            SourceError,
        )
        channels = 3 if param.is_color else 1
        resized = (param.batch_size, channels, param.new_height, param.new_width)
        require_blob(resized, f'blob "{spec.top[0]}", before it is cropped,')
        require(param.source, "source must be given: the list of images", SourceError)
        self._list = self.locate(param.source)
        self._paths, self._labels = read_list(self._list)
        require(
            param.rand_skip <= len(self._paths),
            f"rand_skip {param.rand_skip} may leave out more than the "
            f"{counted(len(self._paths), 'image')} of {self._list}",
            SourceError,
        )
        require_files(len(self._paths), self._lacks, str(self._list))
        self._order = self._passes()

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        with self.blamed():
            require(
                state["images"] == len(self._paths),
                f"the state is of {state['images']} images, but {self._list} has "
                f"{len(self._paths)}",
                SourceError,
            )
        self._order = self._passes()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "images": len(self._paths)}

    @property
    def batches(self) -> int:
        return math.ceil(len(self._paths) / self._size)

    def describe(self) -> str:
        order = f"shuffled, seed {self._seed}" if self._param.shuffle else "in order"
        images = counted(len(self._paths), "image")
        return f"ImageData: {images} that {self._list} lists, {order}"

    def _passes(self) -> Passes:
        """The order that the seed makes of the list."""
        most = self._param.rand_skip
        skip = int(generator(self._seed, "skip").integers(most)) if most else 0
        return Passes(len(self._paths), self._seed if self._param.shuffle else None, skip)

    def _lacks(self, index: int) -> Path | None:
        """The file of a line, if it is not there."""
        folder, listed = self._param.root_folder, self._paths[index]
        # Most are where they are said to be, and there may be a million.
        if os.path.exists(folder + listed):
            return None
        path = find_listed(folder, listed, self.locate)
        if os.path.exists(path):
            return None
        refuse_missing_labelled(self._list, listed, self._labels[index], folder, self.locate)
        return path

    def _take(self, position: int) -> LazyImage:
        index = self._order.index(position)
        return LazyImage(self._paths[index], lambda: self._read(index))

    def _read(self, index: int) -> LabelledImage:
        listed, param = self._paths[index], self._param
        path = find_listed(param.root_folder, listed, self.locate)
        image = read_listed(path, param.is_color, param.new_height, param.new_width)
        return LabelledImage(image.transpose(2, 0, 1), self._labels[index], listed)


def find_listed(folder: str, listed: str, locate: Callable[[str], Path]) -> Path:
    """The file of a line: ``folder`` and the listed path, joined as they are; SourceError."""
    path = locate(folder + listed)
    require(
        os.path.exists(path) or not (folder and os.path.exists(locate(f"{folder}/{listed}"))),
        f'{path}: no such file; root_folder "{folder}" lacks a "/" at its end',
        SourceError,
    )
    return path


def read_listed(path: Path, color: bool, height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, C), blue, green, red or grey; resized unless both sizes are 0."""
    image = read_channels(path, color)
    return resize(image, height, width) if height and width else image


def read_list(path: Path) -> tuple[list[str], list[int]]:
    """The paths and the labels of a list: what stands before and behind each line's last space.

    Empty lines are passed over. Raises SourceError.
    """
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        fail(f"source: {unreadable(path, error)}", SourceError)
    except UnicodeDecodeError:
        fail(
            f"{path}: not a text file; source lists images and labels, one of each on a line",
            SourceError,
        )
    parts = [(i, line.rsplit(maxsplit=1)) for i, line in enumerate(lines, 1) if line.strip()]
    require(parts, f"{path}: lists no images", SourceError)
    for i, part in parts:
        line = " ".join(part)
        if not _INTEGER.fullmatch(part[-1]) and (found := _LABELLED.fullmatch(line)):
            _refuse_labels(f"{path}:{i}", line, found[2])
        require(
            len(part) == 2 and _INTEGER.fullmatch(part[1]),
            f'{path}:{i}: "{line}" does not end in a label; '
            "a line is a path, a space, and an integer",
            DamagedDataError,
        )
    return [path for _, (path, _) in parts], [int(label) for _, (_, label) in parts]


def refuse_missing_labelled(
    where: object, listed: str, label: int, folder: str, locate: Callable[[str], Path]
) -> None:
    """Raise DamagedDataError where a missing file is one whose line has several labels."""
    found = _LABELLED.fullmatch(f"{listed} {label}")
    if found and os.path.exists(find_listed(folder, found[1], locate)):
        _refuse_labels(where, found[0], found[2])


def _refuse_labels(where: object, line: str, labels: str) -> None:
    """Raise DamagedDataError for a line with several labels."""
    count = len(re.split(r"[\s,;]+", labels.strip(" ,;")))
    require(
        count == 1,
        f'{where}: "{line}" holds {count} labels, but an image list has one a line, an integer; '
        "HDF5Data or a Python layer reads several labels, and fractions",
        DamagedDataError,
    )
