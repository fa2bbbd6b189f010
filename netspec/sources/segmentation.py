"""Segmentation sets: an image and its label image, one pair a batch, in their own sizes.

These are the Python layers ``voc_layers.VOCSegDataLayer`` and ``voc_layers.SBDDSegDataLayer`` that
the published FCN nets name (Shelhamer, Long and Darrell, 2016): same settings, same samples.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, fail, nearest, require, unreadable
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Batch, LayerSource, register
from netspec.sources.decode import preprocess, read_image, read_labels, read_mat_labels
from netspec.sources.order import Order, settle_seed


@dataclass(frozen=True)
class Layout:
    """How a data set lies in its folder.

    folder_key: the setting that names the folder. lists: where SPLIT.txt is. images: where
    NAME.jpg or NAME.png is. labels, label_suffix: where NAME's labels are. read_labels: how they
    are read. origin: how one comes by the set.
    """

    folder_key: str
    lists: str
    images: str
    labels: str
    label_suffix: str
    read_labels: Callable[[Path], NDArray[np.uint8]]
    origin: str


VOC = Layout(
    folder_key="voc_dir",
    lists="ImageSets/Segmentation",
    images="JPEGImages",
    labels="SegmentationClass",
    label_suffix=".png",
    read_labels=read_labels,
    origin="get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 site "
    "(http://host.robots.ox.ac.uk/pascal/VOC/voc2012), unpack it and set voc_dir to the folder "
    "VOCdevkit/VOC2012 in it (seg11valid.txt comes with the published FCNs, "
    "fcn.berkeleyvision.org); `netspec data shapes FOLDER` makes a small set of this layout",
)

SBDD = Layout(
    folder_key="sbdd_dir",
    lists=".",
    images="img",
    labels="cls",
    label_suffix=".mat",
    read_labels=read_mat_labels,
    origin="get benchmark.tgz of the Semantic Boundaries Dataset (Hariharan et al., 2011), unpack "
    "it and put the folder benchmark_RELEASE/dataset there, or set sbdd_dir to where it is",
)


class Sample(NamedTuple):
    """The two files of a sample."""

    image: Path
    labels: Path


class SegmentationSource(LayerSource):
    """Feeds two tops: an image, blue, green, red less ``mean``, and its class indices.

    (1, 3, H, W) and (1, 1, H, W); H and W are each image's own.
    ``param_str`` is a Python dict of plain values: the set's folder, ``split``, ``mean`` and, if
    wanted, ``randomize`` (default True; only splits with "train" in their name are) and ``seed``.
    """

    layout: ClassVar[Layout]

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        require(
            len(spec.top) == 2,
            f"makes 2 tops, an image and its labels, but {len(spec.top)} are named",
            SourceError,
        )
        settings = read_settings(spec.python_param.param_str, self.layout.folder_key)
        self._split: str = settings["split"]
        self._mean: float | Sequence[float] = settings["mean"]
        self._folder = self.locate(settings[self.layout.folder_key])
        names = _read_split(self._folder, self._split, self.layout)
        self._samples = _find_samples(self._folder, names, self._split, self.layout)
        randomize = settings.get("randomize", True) and "train" in self._split
        own = settle_seed(settings.get("seed"), seed) if randomize else None
        self._order = Order(len(self._samples), own)
        self._pending: Batch | None = self._read()

    @property
    def tops(self) -> dict[str, Shape]:
        return {name: array.shape for name, array in self._peek().items()}

    def next(self) -> Batch:
        batch = self._peek()
        self._pending = None
        self.current = str(self._samples[self._order.index].labels)
        self._order.step()
        return batch

    def state(self) -> dict[str, Any]:
        return self._order.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            self._order.restore(state)
        self._pending = None

    @property
    def batches(self) -> int:
        return len(self._samples)

    def describe(self) -> str:
        order = "in turn" if self._order.seed is None else f"at random, seed {self._order.seed}"
        count = len(self._samples)
        name = self.spec.python_param.layer
        return f'{name}: {count} images of split "{self._split}" in {self._folder}, {order}'

    def _peek(self) -> Batch:
        if self._pending is None:
            self._pending = self._read()
        return self._pending

    def _read(self) -> Batch:
        sample = self._samples[self._order.index]
        with self.blamed():
            image = read_image(sample.image)
            labels = self.layout.read_labels(sample.labels)
            require(
                labels.shape == image.shape[:2],
                f"{sample.labels}: {_size(labels)}, but its image is {_size(image)}",
                SourceError,
            )
        first, second = self.spec.top
        return {
            first: preprocess(image, self._mean),
            second: labels[None, None].astype(np.float32),
        }


@register("voc_layers.VOCSegDataLayer")
class VOCSegData(SegmentationSource):
    """PASCAL VOC, and every set laid out like it: label images are palette or grey PNGs."""

    layout = VOC


@register("voc_layers.SBDDSegDataLayer")
class SBDDSegData(SegmentationSource):
    """The Semantic Boundaries Dataset: labels are ``GTcls.Segmentation`` of MATLAB files."""

    layout = SBDD


def read_settings(param_str: str, folder_key: str) -> dict[str, Any]:
    """The settings of a segmentation layer, checked; ``param_str`` is read, never run.

    Raises SourceError where it is no dict of plain values, or where keys are missing, unknown or
    hold what they cannot.
    """
    try:
        settings = ast.literal_eval(param_str.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        example = f"{{'{folder_key}': 'data', 'split': 'train', 'mean': (104, 117, 123)}}"
        fail(f"param_str must be a Python dict of plain values, e.g. {example}", SourceError)
    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        folder_key: ("the path of a folder", _is_text),
        "split": ("a name", _is_text),
        "mean": ("one number or three (blue, green, red)", _is_mean),
        "randomize": ("True or False", lambda value: value in (True, False)),
        "seed": ("an integer or None", lambda value: value is None or type(value) is int),
    }
    for key in settings:
        if key not in checks:
            fail(f'param_str: unknown key "{key}"{nearest(str(key), checks)}', SourceError)
    missing = [f'"{key}"' for key in (folder_key, "split", "mean") if key not in settings]
    require(not missing, f"param_str lacks {', '.join(missing)}", SourceError)
    for key, value in settings.items():
        kind, fits = checks[key]
        require(fits(value), f'param_str: "{key}" is {value!r}; needs {kind}', SourceError)
    return settings


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _is_mean(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) in (1, 3) and all(map(_is_number, value))
    return _is_number(value)


def _read_split(folder: Path, split: str, layout: Layout) -> list[str]:
    """The names of a split's samples."""
    require(
        folder.is_dir(),
        f'{layout.folder_key} "{folder}": no such folder, from here or from the prototxt; '
        f"{layout.origin}",
        SourceError,
    )
    lists = folder / layout.lists
    path = lists / f"{split}.txt"
    if not path.is_file():
        known = sorted(found.stem for found in lists.glob("*.txt"))
        require(
            known,
            f'{layout.folder_key} "{folder}" lacks {path.relative_to(folder)}; {layout.origin}',
            SourceError,
        )
        fail(
            f'no split "{split}": {lists} has {", ".join(known)}{nearest(split, known)}',
            SourceError,
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except UnicodeDecodeError:
        fail(f"{path}: not a text file; it lists samples, one on a line", SourceError)
    names = [line.strip() for line in lines if line.strip()]
    require(names, f"{path}: lists no samples", SourceError)
    return names


def _find_samples(folder: Path, names: list[str], split: str, layout: Layout) -> list[Sample]:
    """The files of each name: missing ones are better known now than an hour into training."""
    samples = [_find_sample(folder, name, layout) for name in names]
    missing = [path for sample in samples for path in sample if not path.is_file()]
    require(
        not missing,
        f'split "{split}" lacks {len(missing)} of its {2 * len(samples)} files, '
        f"the first is {missing[0] if missing else None}",
        SourceError,
    )
    return samples


def _find_sample(folder: Path, name: str, layout: Layout) -> Sample:
    jpeg, png = (folder / layout.images / f"{name}{suffix}" for suffix in (".jpg", ".png"))
    image = png if png.is_file() and not jpeg.is_file() else jpeg
    return Sample(image, folder / layout.labels / f"{name}{layout.label_suffix}")


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
