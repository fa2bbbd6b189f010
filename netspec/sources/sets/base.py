"""Segmentation sets: an image and its label image, one sample a batch, in their own sizes.

What is common to the Python layers that the published FCN nets name (Shelhamer, Long and Darrell,
2016). Each set has a module of its own; settings and samples are those of the published layers.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netspec.errors import Place, SourceError, counted, fail, nearest, require, unreadable
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import About, Batch, Job, ParallelSource, register
from netspec.sources.checks import require_files
from netspec.sources.images.decode import preprocess, read_image, read_labels
from netspec.sources.images.untransform import add_mean
from netspec.sources.sampling import Order, settle_seed
from netspec.sources.sets.class_names import VOC
from netspec.sources.sets.matlab import VOID, as_indices, read_matrix


class Setting(NamedTuple):
    """A key of ``param_str``: what it needs, whether a value is that, and one that is."""

    needs: str
    fits: Callable[[Any], bool]
    example: object


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
        return next((path for path in paths if path.is_file()), paths[0])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _is_mean(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) in (1, 3) and all(map(_is_number, value))
    return _is_number(value)


MEAN_SETTING = {
    "mean": Setting("one number or three (blue, green, red)", _is_mean, (104, 117, 123))
}


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
        """Missing files are better known now than an hour into training."""
        kinds = len(self._parts)

        def lacks(i: int) -> Path | None:
            path = self._parts[i % kinds].find(self._names[i // kinds])
            return None if path.is_file() else path

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


class PascalSource(SegmentationSource):
    """What VOC and SBD share: an image less ``mean``, blue, green, red, and its class indices."""

    required = MEAN_SETTING

    def image(self, path: Path) -> NDArray[np.float32]:
        """An image file as (1, 3, H, W)."""
        return preprocess(read_image(path), self.settings["mean"])


@register("voc_layers.VOCSegDataLayer")
class VOCSegData(PascalSource):
    """PASCAL VOC, and every set laid out like it: label images are palette or grey PNGs.

    With one top it reads images only, as of a list whose labels are not given out. A file
    ``classes.txt`` in the folder names the classes, a line each; VOC's own need none.
    """

    folders = ("voc_dir",)
    lists = "ImageSets/Segmentation"
    origin = (
        "get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 site "
        "(http://host.robots.ox.ac.uk/pascal/VOC/voc2012), unpack it and set voc_dir to the folder "
        "VOCdevkit/VOC2012 in it (seg11valid.txt comes with the published FCNs, "
        "fcn.berkeleyvision.org); `netspec data shapes FOLDER` makes a small set of this layout"
    )

    @property
    def nouns(self) -> Sequence[str]:  # type: ignore[override]
        """Labels may be left out."""
        return PascalSource.nouns[: max(1, len(self.spec.top))]

    def parts(self, voc: Path) -> Sequence[Part]:  # type: ignore[override]
        """JPEGImages, as JPEG or else PNG, and SegmentationClass."""
        mean = self.settings["mean"]
        images = Part("image", voc / "JPEGImages", (".jpg", ".png"), self.image, mean=mean)
        folder, classes = voc / "SegmentationClass", _classes_in(voc)
        labels = Part("labels", folder, (".png",), read_labels, labels=True, classes=classes)
        return (images, labels)[: len(self.nouns)]

    def results(self, voc: Path) -> str:  # type: ignore[override]
        """As VOC's development kit names them: comp6 may have learned from any images."""
        return f"results/{voc.resolve().name}/Segmentation/comp6_{self._split}_cls"


@register("voc_layers.SBDDSegDataLayer")
class SBDDSegData(PascalSource):
    """The Semantic Boundaries Dataset: labels are ``GTcls.Segmentation`` of MATLAB files."""

    folders = ("sbdd_dir",)
    lists = "."
    origin = (
        "get benchmark.tgz of the Semantic Boundaries Dataset (Hariharan et al., 2011), unpack "
        "it and put the folder benchmark_RELEASE/dataset there, or set sbdd_dir to where it is"
    )

    def parts(self, sbd: Path) -> Sequence[Part]:  # type: ignore[override]
        """Folders img and cls."""
        mean = self.settings["mean"]
        return (
            Part("image", sbd / "img", (".jpg", ".png"), self.image, mean=mean),
            Part("labels", sbd / "cls", (".mat",), read_sbd_labels, labels=True, classes=VOC),
        )


def _classes_in(voc: Path) -> tuple[str, ...]:
    """What a set in VOC's layout calls its classes, if that is known."""
    if (voc / "classes.txt").is_file():
        return tuple(read_names(voc / "classes.txt"))
    return VOC if voc.resolve().name.startswith("VOC20") else ()


def read_sbd_labels(path: Path) -> NDArray[np.uint8]:
    """``GTcls.Segmentation`` of a MATLAB file as class indices (H, W); raises SourceError."""
    return as_indices(read_matrix(path, "GTcls", "Segmentation"), path)


def read_settings(
    param_str: str, *folders: str, own: Mapping[str, Setting] = MEAN_SETTING
) -> dict[str, Any]:
    """The settings of a segmentation layer, checked; ``param_str`` is read, never run.

    folders: the keys that name folders. own: what the set needs besides. Raises SourceError where
    it is no dict of plain values, or where keys are missing, unknown or hold what they cannot.
    """
    folder = Setting("the path of a folder", _is_text, "data")
    needed = {
        **dict.fromkeys(folders, folder),
        "split": Setting("a name", _is_text, "train"),
        **own,
    }
    try:
        settings = ast.literal_eval(param_str.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        example = {key: setting.example for key, setting in needed.items()}
        fail(f"param_str must be a Python dict of plain values, e.g. {example}", SourceError)
    known = {
        **needed,
        "randomize": Setting("True or False", lambda value: value in (True, False), True),
        "seed": Setting("an integer or None", lambda v: v is None or type(v) is int, 1337),
    }
    for key in settings:
        if key not in known:
            fail(f'param_str: unknown key "{key}"{nearest(str(key), known)}', SourceError)
    missing = [f'"{key}"' for key in needed if key not in settings]
    require(not missing, f"param_str lacks {', '.join(missing)}", SourceError)
    for key, value in settings.items():
        require(
            known[key].fits(value),
            f'param_str: "{key}" is {value!r}; needs {known[key].needs}',
            SourceError,
        )
    return settings


def read_names(path: Path) -> list[str]:
    """The samples that a text file lists, one on a line; raises SourceError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except UnicodeDecodeError:
        fail(f"{path}: not a text file; it lists samples, one on a line", SourceError)
    names = [line.strip() for line in lines if line.strip()]
    require(names, f"{path}: lists no samples", SourceError)
    return names


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[-1]}x{array.shape[-2]}"
