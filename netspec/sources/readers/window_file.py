"""WindowBox files: images, and the boxes in each that are objects or background.

For each image a line ``# INDEX``, its path, channels, height, width and the number of its windows,
a line each; then a line ``class overlap x1 y1 x2 y2`` for each window.
Caffe: ``window_data_layer.cpp``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from netspec.errors import SourceError, fail, require, unreadable
from netspec.formats.text import read_text

# Images are read in color.
CHANNELS = 3


class WindowBox(NamedTuple):
    """A box in the image of an index, both edges included; its class, and its overlap with it."""

    image: int
    label: int
    overlap: float
    x1: int
    y1: int
    x2: int
    y2: int

    def __str__(self) -> str:
        return f"window {self.x1} {self.y1} {self.x2} {self.y2}"


class WindowFile(NamedTuple):
    """The paths of the images as they are written, and the windows of objects and of background."""

    images: list[str]
    objects: list[WindowBox]
    background: list[WindowBox]


def read_windows(path: Path, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """A window file, sorted: an object is what overlaps one by ``fg_threshold`` or more.

    What overlaps by less than ``bg_threshold`` is background, of class 0; the rest is left out.
    Raises SourceError.
    """
    try:
        text = read_text(path)
    except OSError as error:
        fail(f"source: {unreadable(path, error)}", SourceError)
    except UnicodeDecodeError:
        fail(f"{path}: not a text file; source lists windows of images", SourceError)
    lines = _Lines(path, text)
    found = WindowFile([], [], [])
    while lines.starts_image():
        index = len(found.images)
        found.images.append(lines.take("the path of an image"))
        for window in lines.windows(index):
            # In single precision, as thresholds are.
            if np.float32(window.overlap) >= np.float32(fg_threshold):
                lines.require(window.label > 0, "an object of class 0, which is background's")
                found.objects.append(window)
            elif np.float32(window.overlap) < np.float32(bg_threshold):
                found.background.append(window._replace(label=0))
    require(found.images, f"{path}: lists no images", SourceError)
    return found


class _Lines:
    """The lines of a window file that are not empty, taken one after the other."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = iter(enumerate(text.split("\n"), 1))
        self._number, self._line = 0, ""

    def require(self, condition: object, message: str) -> None:
        """Raise SourceError with the present line unless ``condition`` holds."""
        if not condition:
            fail(f"{self._path}:{self._number}: {message}", SourceError)

    def take(self, what: str) -> str:
        """The next line; raises SourceError if there is none."""
        if not self._advance():
            fail(f"{self._path}: ends where {what} should be", SourceError)
        return self._line

    def starts_image(self) -> bool:
        """Whether another image follows; its first line is taken."""
        if not self._advance():
            return False
        mark, _, index = self._line.partition("#")
        self.require(
            not mark and index.strip().isdecimal(),
            f'"{self._line}" where "# INDEX" of an image should be',
        )
        return True

    def windows(self, image: int) -> Iterator[WindowBox]:
        """The windows of an image whose path was taken last."""
        channels = self._take_number("the number of channels")
        self.require(
            channels == CHANNELS, f"{channels} channels; images are read in color, {CHANNELS}"
        )
        self._take_number("the height of an image")
        self._take_number("the width of an image")
        for _ in range(self._take_number("the number of windows")):
            yield self._take_window(image)

    def _advance(self) -> bool:
        for number, line in self._lines:
            if line.strip():
                self._number, self._line = number, line.strip()
                return True
        return False

    def _take_number(self, what: str) -> int:
        line = self.take(what)
        self.require(line.isdecimal(), f'"{line}" where {what} should be')
        return int(line)

    def _take_window(self, image: int) -> WindowBox:
        cells = self.take("a window").split()
        try:
            label, overlap, *box = cells
            window = WindowBox(image, int(label), float(overlap), *map(int, box))
        except (ValueError, TypeError):
            fail(
                f'{self._path}:{self._number}: "{self._line}" is no window '
                "(class overlap x1 y1 x2 y2)",
                SourceError,
            )
        self.require(window.x1 <= window.x2 and window.y1 <= window.y2, f"{window} is empty")
        return window
