"""Segment image files and write label images, overlays and probabilities."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from netspec.errors import LayerError, NetSpecError, SourceError, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.formats.palette import overlay, save, save_indexed
from netspec.runtime.module import Net
from netspec.segmentation.predict import MEAN, Segmenter, TilePlan
from netspec.sources.base import locate
from netspec.sources.images.decode import read_photo
from netspec.sources.sets.base import read_names

LISTS = (".txt", ".lst")
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Called with the error where a picture cannot be segmented.
Failed = Callable[[NetSpecError], None]


Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Say nothing."""


def fail_with(error: NetSpecError) -> None:
    """Raise the error."""
    raise error


class Picture(NamedTuple):
    """An image file, and the name of its outputs: a path without suffix, below their folder."""

    path: Path
    name: Path


@dataclass(frozen=True)
class Wanted:
    """Which files are written of an image NAME, beside ``NAME.png``, a palette image of labels.

    overlay: ``NAME_overlay.png``, the image with the labels' colours over it. probabilities:
    ``NAME_probabilities.npy``, (C, H, W) of float16.
    """

    overlay: bool = True
    probabilities: bool = False

    def outputs(self, picture: Picture, folder: Path) -> list[Path]:
        """The files of an image, labels first."""
        stem = folder / picture.name
        return [
            stem.with_name(f"{stem.name}{ending}")
            for ending, wanted in (
                (".png", True),
                ("_overlay.png", self.overlay),
                ("_probabilities.npy", self.probabilities),
            )
            if wanted
        ]


def gather(paths: Iterable[str | Path], out_dir: str | Path) -> list[Picture]:
    """Image files, folders of them and lists (.txt, .lst: a path a line), as pictures.

    Of a folder all images within are taken, however deep, in order of their paths; their outputs
    lie as they do, below the folders' own names where two would be called the same. Outputs of
    other files are named after them alone; where two would be called the same, they lie below the
    folders that tell these files apart. Paths in a list are looked for from the current folder,
    then from the list's. What lies in ``out_dir`` is no image to segment. Raises SourceError where
    there are none.
    """
    out = Path(out_dir).resolve()
    files: list[Path] = []
    within: list[Picture] = []
    folders: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [
                p
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in IMAGES and p.is_file() and out not in p.resolve().parents
            ]
            require(found, f"{path}: no images in this folder ({' '.join(IMAGES)})", SourceError)
            folders.append(path)
            within += [Picture(p, p.relative_to(path).with_suffix("")) for p in found]
        elif path.suffix.lower() in LISTS:
            files += _listed(path)
        else:
            files.append(path)
    if len({picture.name for picture in within}) < len(within):
        apart = os.path.commonpath([folder.absolute() for folder in folders])
        within = [
            Picture(p.path, p.path.absolute().relative_to(apart).with_suffix("")) for p in within
        ]
    return [*named(files), *within]


def named(paths: Iterable[str | Path]) -> list[Picture]:
    """Image files, their outputs named as in `gather`; a file named twice counts once."""
    files = list(dict.fromkeys(map(Path, paths)))
    twins: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files:
        twins[path.stem].append(path)
    folders = {
        stem: Path(os.path.commonpath([path.absolute().parent for path in alike]))
        for stem, alike in twins.items()
    }
    return [
        Picture(path, path.absolute().relative_to(folders[path.stem]).with_suffix(""))
        for path in files
    ]


def segment(
    net: Net,
    images: Iterable[str | Path],
    out_dir: str | Path,
    mean: float | Sequence[float] = MEAN,
    blob: str | None = None,
) -> list[Path]:
    """Predict each image file; write ``NAME.png`` (palette) and ``NAME_overlay.png`` to a folder.

    Returns the paths written. mean, blob: see `Segmenter`. Raises SourceError for an image that
    cannot be read, and what `segment_each` does.
    """
    return list(segment_each(Segmenter(net, mean, blob), named(images), out_dir))


def segment_each(
    segmenter: Segmenter,
    pictures: Sequence[Picture],
    out_dir: str | Path,
    wanted: Wanted = Wanted(),
    failed: Failed = fail_with,
    say: Say = say_nothing,
) -> Iterator[Path]:
    """Predict each picture, and write what is ``wanted`` of it to a folder; yields the files.

    failed: is told of a picture that cannot be read or segmented, after which the others go on.
    say: is told of pictures that are cut into tiles.
    Files of an earlier run are replaced. Raises SourceError at once if two pictures would be
    written to one file, or one over a picture.
    """
    _require_distinct(pictures, Path(out_dir), wanted)
    return _segment(segmenter, pictures, Path(out_dir), wanted, failed, say)


def plan_of_first(segmenter: Segmenter, pictures: Iterable[Picture]) -> TilePlan | None:
    """What is run for the first picture that can be; None if none can."""
    for picture in pictures:
        with suppress(SourceError, LayerError):
            return segmenter.plan(read_photo(picture.path).shape[:2])
    return None


def _segment(
    segmenter: Segmenter,
    pictures: Sequence[Picture],
    folder: Path,
    wanted: Wanted,
    failed: Failed,
    say: Say,
) -> Iterator[Path]:
    for picture in pictures:
        outputs = wanted.outputs(picture, folder)
        try:
            image = read_photo(picture.path)
            with _sized(picture.path, image):
                plan = segmenter.plan(image.shape[:2])
                if not plan.whole:
                    say(f"{picture.path}: {plan.told}")
                labels = (
                    _store_probabilities(segmenter, image, outputs[-1])
                    if wanted.probabilities
                    else segmenter.labels(image)
                )
        except (SourceError, LayerError) as error:
            failed(error)
            continue
        save_indexed(outputs[0], labels)
        if wanted.overlay:
            save(outputs[1], Image.fromarray(overlay(image, labels)))
        yield from outputs


@contextmanager
def _sized(path: Path, image: NDArray[np.uint8]) -> Iterator[None]:
    """Say of which image, and of what size, a net cannot make scores."""
    try:
        yield
    except (LayerError, SourceError) as error:
        size = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise type(error)(f"{path} ({size}): {error}") from None


def _store_probabilities(
    segmenter: Segmenter, image: NDArray[np.uint8], path: Path
) -> NDArray[np.int32]:
    """Labels (H, W) as of `Segmenter.labels`; probabilities go to a file, a tile at a time."""
    size = image.shape[:2]
    labels = np.empty(size, np.int32)
    stored: NDArray[np.float16] | None = None
    try:
        with atomic_write(path) as part:
            for piece in segmenter.pieces(image):
                scores = np.asarray(piece.scores)[:, *piece.inside]
                if stored is None:
                    shape = (len(scores), *size)
                    stored = open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
                stored[:, *piece.place] = _probabilities(scores)
                labels[piece.place] = scores.argmax(axis=0)
            del stored
    except OSError as error:
        raise SourceError(unreadable(path, error)) from None
    return labels


def _probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores (C, h, w) as probabilities, which they are already if a net ends in Softmax."""
    are = (scores >= 0).all() and (abs(scores.sum(axis=0) - 1) < 1e-3).all()
    return scores if are else softmax(scores, axis=0)


def _listed(path: Path) -> list[Path]:
    """The files that a list names, one on a line; raises SourceError."""
    return [locate(line, str(path)) for line in read_names(path)]


def _require_distinct(pictures: Sequence[Picture], folder: Path, wanted: Wanted) -> None:
    """Raise SourceError if an output would overwrite another, or an input."""
    inputs = {picture.path.resolve() for picture in pictures}
    owners: dict[Path, Path] = {}
    for picture in pictures:
        for output in wanted.outputs(picture, folder):
            other = owners.setdefault(output, picture.path)
            require(
                other is picture.path,
                f"{other} and {picture.path} would both be written to {output}; give them other "
                "names, or segment them apart",
                SourceError,
            )
            require(
                output.resolve() not in inputs,
                f"{picture.path} would be written to {output}, which is an image to segment; "
                "write to another folder",
                SourceError,
            )
