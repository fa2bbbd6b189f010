"""Check that the sets of the published FCNs are there and right, or say where to get them.

Nothing is downloaded. Lists that follow from others are written, and labels converted if asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, counted, fail, nearest, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.formats.palette import save_indexed
from netspec.layers.records import Labels
from netspec.proto.layers_pb2 import TEST, LayerParameter, PythonParameter
from netspec.sources.base import REGISTRY, Source
from netspec.sources.checks import check_labels
from netspec.sources.images.decode import MEAN
from netspec.sources.progress import Watch, unwatched
from netspec.sources.sets.base import SegmentationSource, read_names
from netspec.sources.sets.matlab import VOID
from netspec.sources.sets.nyud import KINDS, NYUDSegData
from netspec.sources.sets.pascal_context import PASCALContextSegData
from netspec.sources.sets.pascal_voc import SBDDSegData, VOCSegData, read_sbd_labels
from netspec.sources.sets.siftflow import SCENES, SIFTFlowSegData

Settings = Mapping[str, Any]
# Scenes without annotations, which the published lists leave out.
UNLABELLED = ("highway_bost181", "street_urb506")


class Readiness(NamedTuple):
    """Lines of text for the user, and whether a net can be trained or scored on the set."""

    lines: list[str]
    ready: bool


@dataclass(frozen=True)
class DataSet:
    """A set, as its source reads it from a folder.

    default: where the published nets look for it. settings: a folder -> its source's settings,
    but for the split. classes: for each top, how many; None where it holds no labels. splits: how
    many samples a list has, in all its editions. derive: writes lists that
    are missing, given the set's folder and SBD's.
    """

    title: str
    default: str
    source: type[SegmentationSource]
    settings: Callable[[Path], Settings]
    classes: Callable[[Settings], Sequence[int | None]]
    splits: Mapping[str, Sequence[int]]
    derive: Callable[[Path, Path], Iterator[str]]

    def list_of(self, root: Path, split: str) -> Path:
        """The file that lists a split's samples."""
        lists = Path(self.settings(root)[self.source.folders[0]]) / self.source.lists
        return lists / f"{split}.txt"


def prepare(
    name: str,
    folder: str | Path | None = None,
    convert: bool = False,
    sbd: str | Path = "data/sbdd/dataset",
    watch: Watch = unwatched,
) -> Readiness:
    """Check a set, ``voc``, ``sbd``, ``nyud``, ``siftflow`` or ``context``, in its folder.

    folder: by default where the published nets look for it. convert: write SBD's labels as PNGs
    too. sbd: where that set is, for VOC's list of those that are not in it. watch: sees the files
    pass that are converted. Raises SourceError for a set that is not known, or where lists and
    labels cannot be written.
    """
    if name not in DATA_SETS:
        fail(
            f'unknown data set "{name}" ({", ".join(DATA_SETS)}){nearest(name, DATA_SETS)}',
            SourceError,
        )
    require(not convert or name == "sbd", f"convert: {name} needs no conversion", SourceError)
    data_set = DATA_SETS[name]
    root = Path(data_set.default if folder is None else folder)
    lines = [f"{data_set.title} in {root}"]
    if not root.is_dir():
        return Readiness([*lines, f"  not there: {data_set.source.origin}"], False)
    lines += data_set.derive(root, Path(sbd))
    checked = [_check(data_set, root, split) for split in data_set.splits]
    lines += [
        f"  {split}: {line}" for split, (line, _) in zip(data_set.splits, checked, strict=True)
    ]
    ready = any(state for _, state in checked) and all(state is not False for _, state in checked)
    if not ready:
        lines.append(f"  how to come by it: {data_set.source.origin}")
    elif convert:
        lines += _convert(root, watch)
    return Readiness(lines, ready)


def _check(data_set: DataSet, root: Path, split: str) -> tuple[str, bool | None]:
    """A description of a split, and whether it is right; None if there is no list of it."""
    settings = {**data_set.settings(root), "split": split}
    listed = data_set.list_of(root, split)
    if not listed.is_file():
        return f"no {listed}", None
    classes = data_set.classes(settings)
    try:
        with _open(data_set.source, settings, len(classes)) as source:
            batch = source.next()
            for array, most in zip(batch.values(), classes, strict=True):
                if most is not None:
                    labels = Labels(bottom=0, scores=0, classes=most, ignore=VOID)
                    check_labels(array, labels, source.current)
            count, current = source.batches, source.current
    except SourceError as error:
        return error.message, False
    known = data_set.splits[split]
    note = "" if count in known else f" ({' or '.join(map(str, known))} when whole)"
    found = [_describe(array, most) for array, most in zip(batch.values(), classes, strict=True)]
    return f"{counted(count, 'sample')}{note}; {current}: {', '.join(found)}", True


def _open(kind: type[SegmentationSource], settings: Settings, tops: int) -> Source:
    (name,) = (name for name, source in REGISTRY.items() if source is kind)
    module, layer = name.split(".")
    # In turn, so that the sample that is looked at is the list's first.
    param_str = str({**settings, "randomize": False})
    spec = LayerParameter(
        type="Python",
        top=[str(i) for i in range(tops)],
        python_param=PythonParameter(module=module, layer=layer, param_str=param_str),
    )
    return kind(spec, TEST, 0, Place(""))


def _describe(array: NDArray[np.float32], classes: int | None) -> str:
    """The size of an image, or the classes of a label image."""
    if classes is None:
        return f"{array.shape[3]}x{array.shape[2]}"
    values = [int(value) for value in np.unique(array)]
    named = ["void" if value == VOID else str(value) for value in values]
    return f"classes {' '.join(named)} of 0..{classes - 1}"


def _convert(root: Path, watch: Watch) -> Iterator[str]:
    """Write SBD's labels as palette PNGs beside the MATLAB files."""
    paths = sorted((root / "cls").glob("*.mat"))
    for path in watch(paths, len(paths)):
        save_indexed(path.with_suffix(".png"), read_sbd_labels(path))
    yield f"  wrote {counted(len(paths), 'label image')}: {root / 'cls' / '*.png'}"


def _write_list(path: Path, names: Sequence[str], how: str) -> Iterator[str]:
    """Write a list unless it is there, or would be empty."""
    if path.exists() or not names:
        return
    try:
        with atomic_write(path) as part:
            part.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    yield f"  wrote {path}: {counted(len(names), 'sample')}, {how}"


def _names(path: Path) -> list[str]:
    return read_names(path) if path.is_file() else []


def _derive_voc(root: Path, sbd: Path) -> Iterator[str]:
    """seg11valid: what is in VOC 2011's val and not in SBD's train."""
    lists = root / VOCSegData.lists
    val, train = _names(lists / "val.txt"), _names(sbd / "train.txt")
    if (lists / "seg11valid.txt").exists():
        return
    if not train:
        yield f"  seg11valid.txt is val.txt without SBD's train.txt, which is not in {sbd}"
    elif len(val) > VOC_2011_VAL:
        yield (
            f"  seg11valid.txt is made from the val.txt of VOC 2011, {VOC_2011_VAL} names; "
            f"this one has {len(val)}"
        )
    else:
        left = sorted(set(val) - set(train))
        yield from _write_list(lists / "seg11valid.txt", left, "val without SBD's train")


def _derive_nyud(root: Path, sbd: Path) -> Iterator[str]:
    """trainval, which the published nets train on: train and val."""
    train, val = (_names(root / f"{split}.txt") for split in ("train", "val"))
    if train and val:
        yield from _write_list(root / "trainval.txt", train + val, "train and val")


def _derive_siftflow(root: Path, sbd: Path) -> Iterator[str]:
    """trainval: the images that are not in test, and have labels."""
    test = _names(root / "test.txt")
    images = sorted(path.stem for path in (root / "Images" / SCENES).glob("*.jpg"))
    left = [name for name in images if name not in {*test, *UNLABELLED}]
    if test:
        yield from _write_list(root / "trainval.txt", left, "images that test.txt does not list")


def _derive_nothing(root: Path, sbd: Path) -> Iterator[str]:
    yield from ()


def _nyud_settings(root: Path) -> Settings:
    """The tops whose folders are there; labels in any case."""
    tops = [kind for kind, found in KINDS.items() if (root / found.folder).is_dir()]
    return {"nyud_dir": str(root), "tops": list(dict.fromkeys([*tops, "label"]))}


def _context_settings(root: Path) -> Settings:
    """VOC 2010 may lie in the same folder, in its VOCdevkit, or beside it."""
    places = [root, root / "VOCdevkit", root.parent / "pascal"]
    voc = next((place for place in places if (place / "VOC2010").is_dir()), places[-1])
    return {"voc_dir": str(voc), "context_dir": str(root)}


VOC_2011_VAL = 1111
DATA_SETS = {
    "voc": DataSet(
        "PASCAL VOC",
        "data/pascal/VOC2011",
        VOCSegData,
        lambda root: {"voc_dir": str(root), "mean": MEAN},
        lambda settings: (None, 21),
        {"train": (1112, 1464), "val": (VOC_2011_VAL, 1449), "seg11valid": (736,)},
        _derive_voc,
    ),
    "sbd": DataSet(
        "Semantic Boundaries Dataset",
        "data/sbdd/dataset",
        SBDDSegData,
        lambda root: {"sbdd_dir": str(root), "mean": MEAN},
        lambda settings: (None, 21),
        {"train": (8498,), "val": (2857,)},
        _derive_nothing,
    ),
    "nyud": DataSet(
        "NYUDv2",
        "data/nyud",
        NYUDSegData,
        _nyud_settings,
        lambda settings: [40 if top == "label" else None for top in settings["tops"]],
        {"trainval": (795,), "train": (381,), "val": (414,), "test": (654,)},
        _derive_nyud,
    ),
    "siftflow": DataSet(
        "SIFT Flow",
        "data/sift-flow",
        SIFTFlowSegData,
        lambda root: {"siftflow_dir": str(root)},
        lambda settings: (None, 33, 3),
        {"trainval": (2486,), "test": (200,)},
        _derive_siftflow,
    ),
    "context": DataSet(
        "PASCAL-Context",
        "data/pascal-context",
        PASCALContextSegData,
        _context_settings,
        lambda settings: (None, 60),
        {"train": (4998,), "val": (5105,)},
        _derive_nothing,
    ),
}
