"""Segmentation sets: an image and its label image, one sample a batch, in their own sizes.

The base of the Python layers that the published FCN nets name (Shelhamer, Long and Darrell, 2016).
Each set has a module of its own; settings and samples are those of the published layers.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netspec.errors import Place, SourceError, counted, fail, nearest, require, unreadable
from netspec.formats.text import read_text
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import About, Batch, Job, ParallelSource
from netspec.sources.checks import require_files
from netspec.sources.images.untransform import add_mean
from netspec.sources.sampling import Order, settle_seed
from netspec.sources.sets.matlab import VOID
from netspec.sources.sets.settings import Setting, read_settings


class Part(NamedTuple):
    """One top: which file of a sample it is read from, and how.

    noun: what it holds. folder, prefix, suffixes: the file is PREFIX NAME SUFFIX; the first one
    that exists counts. read: the file as (H, W), (C, H, W) or (1, C, H, W). labels: whether it
    holds class indices. classes: what these are called, if that is known. mean: what ``read``
    subtracts from pixels, one number or one for each channel. red_first: whether channels are red,
    green, blue, not blue, green, red.
    """

    noun: str
    folder: Path
    suffixes: tuple[str, ...]
    read: Callable[[Path], NDArray[Any]]
    labels: bool = False
    prefix: str = ""
    classes: tuple[str, ...] = ()
    mean: ArrayLike | None = None
    red_first: bool = False

    def find(self, name: str) -> Path:
        """The file of a sample; where there is none, the one that should be there."""
        paths = [self.folder / f"{self.prefix}{name}{suffix}" for suffix in self.suffixes]
        return next((path for path in paths if os.path.isfile(path)), paths[0])


class SegmentationSource(ParallelSource):
    """Feeds each top a part of a sample: images less a mean, (1, C, H, W), labels, (1, 1, H, W).

    H and W are each sample's own. ``param_str`` is a Python dict of plain values: the set's
    folders, ``split``, what else the set asks for and, if wanted, ``randomize`` (default True;
    only splits with "train" in their name are) and ``seed``.
    """

    # The settings that name folders; SPLIT.txt is in ``lists`` of the first.
    folders: ClassVar[tuple[str, ...]]
    lists: ClassVar[str]
    # What else must be set, how one comes by the set, and what the tops are.
    required: ClassVar[Mapping[str, Setting]] = {}
    origin: ClassVar[str]
    nouns: Sequence[str] = ("an image", "its labels")

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        *first, last = self.nouns
        require(
            len(spec.top) == len(self.nouns),
            f"makes {counted(len(self.nouns), 'top')}, "
            f"{' and '.join([', '.join(first), last]) if first else last}, "
            f"but {len(spec.top)} are named",
            SourceError,
        )
        self._split: str = self.settings["split"]
        paths = [self._folder(key) for key in self.folders]
        self._list_folder = paths[0] / self.lists
        names = self._read_split(paths[0])
        self._parts = self.parts(*paths)
        tops = zip(spec.top, self._parts, strict=True)
        classes = {top: part.classes for top, part in tops if part.classes}
        self.about = About(classes, self.results(*paths))
        self._names = names
        self._require_files()
        randomize = self.settings.get("randomize", True) and "train" in self._split
        own = settle_seed(self.settings.get("seed"), seed) if randomize else None
        self._order = Order(len(names), own)
        self._pending: Batch | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What ``param_str`` says, checked."""
        return read_settings(self.spec.python_param.param_str, *self.folders, own=self.required)

    @abstractmethod
    def parts(self, *folders: Path) -> Sequence[Part]:
        """What each top is read from, given the set's folders."""

    def results(self, *folders: Path) -> str:
        """Where the set's judges look for label images: see `About`."""
        return ""

    @property
    def tops(self) -> dict[str, Shape]:
        return {name: array.shape for name, array in self._peek().items()}

    def job(self) -> Job:
        index, pending = self._order.index, self._pending
        self._pending = None
        self.current, self.sample = self._files_of_labels(), self._names[index]
        self._order.step()
        return lambda: self._read(index) if pending is None else pending

    def state(self) -> dict[str, Any]:
        return self._order.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            self._order.restore(state)
        self._pending = None

    def pixels(self, state: Mapping[str, Any], batch: Batch) -> Batch:
        """Of each top whose `Part` says which mean it subtracts."""
        return {
            top: add_mean(batch[top], part.mean)[:, :: -1 if part.red_first else 1]
            for top, part in zip(self.spec.top, self._parts, strict=True)
            if part.mean is not None
        }

    def label_tops(self) -> dict[str, int]:
        return {
            top: VOID for top, part in zip(self.spec.top, self._parts, strict=True) if part.labels
        }

    @property
    def batches(self) -> int:
        return len(self._names)

    def describe(self) -> str:
        order = "in turn" if self._order.seed is None else f"at random, seed {self._order.seed}"
        count = len(self._names)
        name, folder = self.spec.python_param.layer, self.locate(self.settings[self.folders[0]])
        return f'{name}: {count} images of split "{self._split}" in {folder}, {order}'

    def _folder(self, key: str) -> Path:
        folder = self.locate(self.settings[key])
        require(
            folder.is_dir(),
            f'{key} "{folder}": no such folder, from here or from the prototxt; {self.origin}',
            SourceError,
        )
        return folder

    def _read_split(self, folder: Path) -> list[str]:
        """The names of the split's samples."""
        path = self._list_folder / f"{self._split}.txt"
        if path.is_file():
            return read_names(path)
        known = sorted(found.stem for found in self._list_folder.glob("*.txt"))
        require(
            known,
            f'{self.folders[0]} "{folder}" lacks {path.relative_to(folder)}; {self.origin}',
            SourceError,
        )
        fail(
            f'no split "{self._split}": {self._list_folder} has {", ".join(known)}'
            f"{nearest(self._split, known)}",
            SourceError,
        )

    def _require_files(self) -> None:
        """Raise SourceError if files are missing, now and not an hour into training."""
        kinds = len(self._parts)

        def lacks(i: int) -> Path | None:
            path = self._parts[i % kinds].find(self._names[i // kinds])
            return None if os.path.isfile(path) else path

        require_files(len(self._names) * kinds, lacks, f'split "{self._split}"')

    def _files(self, index: int) -> list[Path]:
        """The files of a sample, one a part."""
        return [part.find(self._names[index]) for part in self._parts]

    def _files_of_labels(self) -> str:
        """The files whose labels the sample has; all its files if none has any."""
        files = list(zip(self._parts, self._files(self._order.index), strict=True))
        wanted = [path for part, path in files if part.labels] or [path for _, path in files]
        return ", ".join(map(str, wanted))

    def _peek(self) -> Batch:
        if self._pending is None:
            self._pending = self._read(self._order.index)
        return self._pending

    def _read(self, index: int) -> Batch:
        paths = self._files(index)
        batch: Batch = {}
        with self.blamed():
            for name, part, path in zip(self.spec.top, self._parts, paths, strict=True):
                array = part.read(path)
                blob = array.astype(np.float32, copy=False).reshape(1, -1, *array.shape[-2:])
                first = next(iter(batch.values()), blob)
                require(
                    blob.shape[-2:] == first.shape[-2:],
                    f"{path}: {_size(blob)}, but its {self._parts[0].noun} is {_size(first)}",
                    SourceError,
                )
                batch[name] = blob
        return batch


def read_names(path: Path) -> list[str]:
    """The samples that a text file lists, one on a line; raises SourceError."""
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except UnicodeDecodeError:
        fail(f"{path}: not a text file; it lists samples, one on a line", SourceError)
    names = [line.strip() for line in lines if line.strip()]
    require(names, f"{path}: lists no samples", SourceError)
    return names


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[-1]}x{array.shape[-2]}"
