"""SegmentationData: images and label images that a list names, or that two folders hold.

Every set of files is a list or two folders away. CamVid as SegNet's authors give it out has lists,
a line ``/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png``::

    segmentation_data_param { source: "CamVid/train.txt" root_folder: "/data" }

COCO-Stuff has two folders, whose files are called alike (label images of PNG, void 255)::

    segmentation_data_param { image_folder: "train2017" label_folder: "stuffthingmaps/train2017" }

and so have sets with folders within, and suffixes of their own, as Cityscapes::

    segmentation_data_param {
      image_folder: "leftImg8bit/train" image_suffix: "_leftImg8bit.png"
      label_folder: "gtFine/train" label_suffix: "_gtFine_labelTrainIds.png"
    }
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, counted, fail, require, unreadable
from netspec.formats.text import read_text
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Batch, Job, ParallelSource, register, require_keys
from netspec.sources.checks import require_blob, require_files
from netspec.sources.images.augment import Augment
from netspec.sources.images.decode import read_image, read_labels
from netspec.sources.readers.image_list import find_listed
from netspec.sources.sampling import Passes, settle_seed


class Pair(NamedTuple):
    """The paths of an image and of its labels, as they are listed."""

    image: str
    labels: str


class ImageAndLabels(NamedTuple):
    """An image (H, W, 3), red, green, blue, and the class indices of its pixels (H, W)."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@register("SegmentationData")
class SegmentationListReader(ParallelSource):
    """Feeds images less a mean (N, 3, H, W), in blue, green, red, and their labels (N, 1, H, W).

    The files are those that ``source`` lists, two paths on a line with a tab between them (or a
    space, if no path has one), or those in ``image_folder`` and in the folders within it whose
    names end in ``image_suffix``, each with the file of the same name in ``label_folder`` that
    ends in ``label_suffix``. ``root_folder`` is put before every path as it is. They come in
    turn, or with ``shuffle`` in a new order each pass.

    What becomes of them: see `Augment`. Label images are palette or grey PNGs.
    """

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        self._param = param = spec.segmentation_data_param
        require(
            not spec.HasField("transform_param"),
            "transform_param has no effect here; write what it says in segmentation_data_param",
            SourceError,
        )
        require(param.batch_size > 0, "batch_size is 0; must be positive", SourceError)
        self._augment = Augment(spec, phase, self.locate)
        if self._augment.crop:
            images = (spec.segmentation_data_param.batch_size, 3, *self._augment.crop)
            require_blob(images, f'blob "{spec.top[0]}"')
        self._origin, self._pairs = self._find()
        self._seed = settle_seed(seed)
        self._position = 0
        self._order = self._passes()
        self._head: ImageAndLabels | None = None

    @property
    def tops(self) -> dict[str, Shape]:
        with self.blamed():
            scene = self._peek()
        size = self._augment.crop or scene.labels.shape
        count = self._param.batch_size
        return dict(zip(self.spec.top, ((count, 3, *size), (count, 1, *size)), strict=True))

    def job(self) -> Job:
        seed, position, head = self._seed, self._position, self._head
        places = range(position, position + self._param.batch_size)
        pairs = [self._pairs[self._order.index(place)] for place in places]
        first = pairs[0].labels
        self.current = first if len(pairs) == 1 else f"the batch that begins with {first}"
        self.sample = Path(pairs[0].image).stem if len(pairs) == 1 else ""
        self.files = tuple(pair.labels for pair in pairs)
        self._position += len(pairs)
        self._head = None
        return lambda: self._batch(pairs, head, seed, position)

    def state(self) -> dict[str, Any]:
        return {"seed": self._seed, "position": self._position, "images": len(self._pairs)}

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
            require(
                state["images"] == len(self._pairs),
                f"the state is of {state['images']} images, but {self._origin} has "
                f"{len(self._pairs)}",
                SourceError,
            )
        self._seed, self._position = state["seed"], state["position"]
        self._order = self._passes()
        self._head = None

    def pixels(self, state: Mapping[str, Any], batch: Batch) -> Batch:
        top, _ = self.spec.top
        known = self._param.mean_value or self._param.mean_file
        return {top: self._augment.undo(batch[top])} if known else {}

    def label_tops(self) -> dict[str, int]:
        _, top = self.spec.top
        return {top: self._param.ignore_label}

    @property
    def batches(self) -> int:
        return math.ceil(len(self._pairs) / self._param.batch_size)

    def describe(self) -> str:
        order = f"shuffled, seed {self._seed}" if self._param.shuffle else "in order"
        images = counted(len(self._pairs), "image")
        return f"SegmentationData: {images} of {self._origin}, {order}"

    def _find(self) -> tuple[Path, Sequence[Pair]]:
        """Where the pairs are from, and all of them."""
        p = self._param
        folders = p.image_folder, p.label_folder
        require(
            all(folders) != bool(p.source) and any(folders) == all(folders),
            "give either source, a list of images and labels, or image_folder and label_folder",
            SourceError,
        )
        if p.source:
            path = self.locate(p.source)
            self._folder = p.root_folder
            pairs = read_pairs(path)
            needed, whose = [listed for pair in pairs for listed in pair], str(path)
        else:
            path, labels = (self.locate(p.root_folder + folder) for folder in folders)
            self._folder = ""
            pairs = pair_up(path, labels, p.image_suffix, p.label_suffix)
            needed = [pair.labels for pair in pairs]
            whose = f'label_folder "{labels}", with label_suffix "{p.label_suffix}",'
        require_files(len(needed), lambda i: self._lacks(needed[i]), whose)
        return path, pairs

    def _lacks(self, listed: str) -> str | None:
        """The file of a listed path, if it is not there."""
        # Most are where they are said to be.
        if os.path.isfile(self._folder + listed):
            return None
        path = find_listed(self._folder, listed, self.locate)
        return None if os.path.isfile(path) else str(path)

    def _read(self, pair: Pair) -> ImageAndLabels:
        return read_scene(*(find_listed(self._folder, listed, self.locate) for listed in pair))

    def _passes(self) -> Passes:
        return Passes(len(self._pairs), self._seed if self._param.shuffle else None)

    def _peek(self) -> ImageAndLabels:
        """What the next batch begins with."""
        if self._head is None:
            self._head = self._read(self._pairs[self._order.index(self._position)])
        return self._head

    def _batch(
        self, pairs: Sequence[Pair], head: ImageAndLabels | None, seed: int, position: int
    ) -> Batch:
        with self.blamed():
            first = head or self._read(pairs[0])
            size = self._augment.crop or first.labels.shape
            images = np.empty((len(pairs), 3, *size), np.float32)
            labels = np.empty((len(pairs), 1, *size), np.float32)
            for i, pair in enumerate(pairs):
                scene = self._read(pair) if i else first
                require(
                    self._augment.crop or scene.labels.shape == size,
                    f"{pair.image}: {_size(scene.labels)}, but the batch that it is in began with "
                    f"{_size(first.labels)}; crop_size or batch_size: 1 allows several sizes",
                    SourceError,
                )
                self._augment.apply(*scene, images[i], labels[i, 0], seed, position + i)
        return dict(zip(self.spec.top, (images, labels), strict=True))


def read_scene(image: Path, labels: Path) -> ImageAndLabels:
    """The image and the labels in two files; raises SourceError if their sizes differ."""
    scene = ImageAndLabels(read_image(image), read_labels(labels))
    require(
        scene.image.shape[:2] == scene.labels.shape,
        f"{labels}: {_size(scene.labels)}, but its image is {_size(scene.image)}",
        SourceError,
    )
    return scene


def read_pairs(path: Path) -> list[Pair]:
    """The two paths on each line of a list that is not empty; raises SourceError."""
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        fail(f"source: {unreadable(path, error)}", SourceError)
    except UnicodeDecodeError:
        fail(
            f"{path}: not a text file; source lists images and labels, a path of each on a line",
            SourceError,
        )
    pairs = []
    for number, line in enumerate(lines, 1):
        parts = [part.strip() for part in line.split("\t" if "\t" in line.strip() else None)]
        if parts and parts != [""]:
            require(
                len(parts) == 2 and all(parts),
                f'{path}:{number}: "{line.strip()}": {counted(len(parts), "path")}; a line is an '
                "image and its labels, with a tab between them if a path has spaces",
                SourceError,
            )
            pairs.append(Pair(*parts))
    require(pairs, f"{path}: lists no images", SourceError)
    return pairs


def pair_up(images: Path, labels: Path, image_suffix: str, label_suffix: str) -> list[Pair]:
    """Each file below ``images`` with an ending, and what its labels below ``labels`` must be.

    In the order of their names; raises SourceError where there are none.
    """
    for setting, folder in (("image_folder", images), ("label_folder", labels)):
        require(folder.is_dir(), f'{setting} "{folder}": no such folder', SourceError)
    names = sorted(
        os.path.relpath(os.path.join(folder, file), images)
        for folder, _, files in os.walk(images)
        for file in files
        if file.endswith(image_suffix)
    )
    require(
        names,
        f'image_folder "{images}": no file in it ends in "{image_suffix}"; image_suffix says how '
        "images end",
        SourceError,
    )
    stems = (name.removesuffix(image_suffix) for name in names)
    return [
        Pair(os.path.join(images, name), os.path.join(labels, stem + label_suffix))
        for name, stem in zip(names, stems, strict=True)
    ]


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
