"""PASCAL-Context: VOC 2010's images, every pixel labelled; the 59 commonest classes count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SourceError, fail, nearest, require, unreadable
from netspec.formats.text import read_text
from netspec.sources.base import register
from netspec.sources.images.decode import preprocess, read_image
from netspec.sources.sets.base import Part, SegmentationSource
from netspec.sources.sets.matlab import VOID, read_matrix

# Of blue, green and red, in single precision as in the published layer.
MEAN = np.array((104.007, 116.669, 122.679), np.float32).tolist()
BACKGROUND = "background"
# Names in 59_labels.txt that labels.txt spells otherwise.
SPELLINGS = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def read_context_image(path: Path) -> NDArray[np.float32]:
    """A photograph as (1, 3, H, W) of blue, green and red less their means."""
    return preprocess(read_image(path), MEAN)


@register("pascalcontext_layers.PASCALContextSegDataLayer")
class PASCALContextSegData(SegmentationSource):
    """PASCAL-Context: images, and classes 1..59 with 0 for everything else."""

    folders = ("voc_dir", "context_dir")
    lists = "VOC2010/ImageSets/Main"
    origin = (
        "get VOCtrainval_03-May-2010.tar from the PASCAL VOC 2010 site "
        "(http://host.robots.ox.ac.uk/pascal/VOC/voc2010), unpack it and set voc_dir to the folder "
        "VOCdevkit in it, which has VOC2010; get trainval.tar.gz, labels.txt and 59_labels.txt "
        "from the PASCAL-Context site (https://cs.stanford.edu/~roozbeh/pascal-context) and set "
        "context_dir to the folder where they are"
    )

    def parts(self, voc: Path, context: Path) -> Sequence[Part]:  # type: ignore[override]
        """VOC2010/JPEGImages and the folder trainval."""
        self._classes = read_classes(context)
        folder, names = context / "trainval", read_class_names(context)
        return (
            Part("image", voc / "VOC2010" / "JPEGImages", (".jpg",), read_context_image, mean=MEAN),
            Part("labels", folder, (".mat",), self._read_labels, labels=True, classes=names),
        )

    def _read_labels(self, path: Path) -> NDArray[np.uint8]:
        """``LabelMap`` of a MATLAB file as class indices (H, W); raises SourceError."""
        labels = read_matrix(path, "LabelMap")
        wrong = (labels < 0) | (labels >= len(self._classes))
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            fail(
                f"{path}: label {labels[y, x]} at (x {x}, y {y}); labels.txt has "
                f"1..{len(self._classes) - 1}",
                SourceError,
            )
        return self._classes[labels]


def read_classes(context: Path) -> NDArray[np.uint8]:
    """For each number of labels.txt, the class that 59_labels.txt gives its name; 0 for the rest.

    Raises SourceError.
    """
    everything, chosen = (_read_labels(context / name) for name in ("labels.txt", "59_labels.txt"))
    numbers = {name: number for number, name in everything.items()}
    classes = np.zeros(max(everything) + 1, np.uint8)
    for index, name in chosen.items():
        if name == BACKGROUND:
            continue
        require(
            0 < index < VOID,
            f"{context / '59_labels.txt'}: class {index} ({name}); classes are 1..{VOID - 1}",
            SourceError,
        )
        spelled = SPELLINGS.get(name, name)
        if spelled not in numbers:
            fail(
                f'{context / "59_labels.txt"}: labels.txt beside it has no "{spelled}"'
                f"{nearest(spelled, numbers)}",
                SourceError,
            )
        classes[numbers[spelled]] = index
    return classes


def read_class_names(context: Path) -> tuple[str, ...]:
    """What 59_labels.txt calls the classes, in order, from the background on."""
    names = {0: BACKGROUND, **_read_labels(context / "59_labels.txt")}
    return tuple(names.get(index, str(index)) for index in range(max(names) + 1))


def _read_labels(path: Path) -> dict[int, str]:
    """Number -> name without blanks, of a file with lines such as ``3: air conditioner``."""
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except UnicodeDecodeError:
        fail(f"{path}: not a text file; it lists labels, such as 3: air conditioner", SourceError)
    labels = {}
    for i, line in enumerate(lines, 1):
        number, _, name = line.partition(":")
        if line.strip():
            require(
                number.strip().isdecimal() and name.strip() and int(number) < 1000,
                f'{path}:{i}: "{line.strip()}" is no number and name, such as 3: air conditioner',
                SourceError,
            )
            labels[int(number)] = name.replace(" ", "").strip()
    require(labels, f"{path}: lists no labels", SourceError)
    return labels
