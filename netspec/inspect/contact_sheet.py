"""Draw a contact sheet: thumbnails of samples, with lines of text about each."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from netspec.errors import NetSpecError, counted, require
from netspec.formats.palette import colour_map, save
from netspec.layers.base import text

Pixels = NDArray[np.uint8]

_INK, _SOFT, _EDGE = "#1f2933", "#5b6672", "#c9ced6"
_FONT, _LINE, _HEADING = 13, 18, 17
_MARGIN, _GAP, _SWATCH = 16, 8, 14
# A card is never so narrow that there is no room for a name.
_LEAST_CARD, _MOST_WIDTH = 200, 1600
# The limits of a JPEG, and of reasonable memory.
_MOST_HEIGHT, _MOST_PIXELS = 65_000, 150_000_000
# The longer side of a picture: larger ones are reduced, smaller ones enlarged by whole numbers.
_LARGEST, _SMALLEST = 320, 256
_IMAGE_CHANNELS = (1, 3, 4)
_VOID = 255
# Up to so many numbers are told one by one.
_FEW = 8
# How far single precision may leave a pixel from its whole number; what no picture is darker than.
_ROUNDING, _DARK = 1e-3, 16
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass(frozen=True)
class Thumbnail:
    """A picture (H, W, 3) of red, green, blue, and the lines below it.

    classes: the class indices in it, and whether each is ignored.
    """

    pixels: Pixels
    lines: tuple[str, ...]
    classes: tuple[tuple[int, bool], ...] = ()


@dataclass(frozen=True)
class Card:
    """A sample: thumbnails side by side, with lines of text above and below them."""

    names: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]
    lines: tuple[str, ...] = ()


def card(names: Iterable[str], pieces: Iterable[tuple[Any, ...]]) -> Card:
    """A sample from the names of its files and its tops, each as `thumbnail` takes it."""
    shown = [(piece, thumbnail(*piece)) for piece in pieces]
    return Card(
        tuple(dict.fromkeys(filter(None, names))),
        tuple(picture for _, picture in shown if picture),
        tuple(words(*piece[:2]) for piece, picture in shown if not picture),
    )


def thumbnail(
    top: str,
    values: NDArray[np.float32],
    pixels: NDArray[np.float32] | None = None,
    classes: bool = False,
    ignore: int | None = None,
) -> Thumbnail | None:
    """One top of one sample as a picture; None if it is none.

    values: (C, H, W), of blue, green, red or grey, or class indices (1, H, W) or (H, W). pixels:
    the image before its mean was subtracted, where one is known. classes: whether they are class
    indices, shown in PASCAL VOC's colours; ``ignore`` in that of 255.
    """
    image = values[None] if classes and values.ndim == 2 else values
    if image.ndim != 3 or image.shape[0] not in _IMAGE_CHANNELS or min(image.shape[1:]) < 2:
        return None
    if classes and len(image) == 1 and _are_classes(image[0], ignore):
        return _label_thumbnail(top, image[0].astype(np.int64), ignore)
    shown, note = visible(image if pixels is None else pixels)
    notes = [note] if note else []
    if classes:
        notes.append("not all are class indices in 0..255")
    grey = ", grey" if len(image) == 1 else ""
    return Thumbnail(_red_green_blue(shown), (f"{_called(top, image)}{grey}", *notes))


def words(top: str, values: NDArray[np.float32]) -> str:
    """One top of one sample in words: the numbers, or their range if they are many."""
    if values.size <= _FEW:
        return f"{top} {' '.join(f'{value:g}' for value in values.ravel())}"
    return f"{top} {text(values.shape)}: {values.min():.4g} to {values.max():.4g}"


def visible(image: NDArray[np.float32]) -> tuple[Pixels, str]:
    """Numbers of any range as grey levels, and a note where they are not the numbers themselves.

    Those in 0..255 stay; fractions in 0..1 are taken 255 times; others are stretched to 0..255, as
    are fractions of which all are small, since no picture is that dark.
    """
    finite = np.isfinite(image)
    numbers = np.where(finite, image, 0).astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    note = f"{low:.4g} to {high:.4g}, stretched"
    # Rounding in single precision is no other range, and no fraction.
    whole = bool((abs(numbers - np.rint(numbers)) < _ROUNDING).all())
    if low > -0.5 and high < 255.5 and (whole or high <= 1 or high > _DARK):
        fraction = high <= 1 and not whole
        numbers = numbers * 255 if fraction else numbers
        note = f"{low:.4g} to {high:.4g}, shown 255 times" if fraction else ""
    else:
        numbers = (numbers - low) * 255 / (high - low or 1)
    if not finite.all():
        note = f"{int((~finite).sum())} numbers are not finite{', ' if note else ''}{note}"
    return np.rint(numbers).clip(0, 255).astype(np.uint8), note


def _are_classes(labels: NDArray[np.float32], ignore: int | None) -> bool:
    valid = (labels >= 0) & (labels <= 255) & (labels == np.trunc(labels))
    return bool((valid | (labels == ignore if ignore is not None else False)).all())


def _label_thumbnail(top: str, labels: NDArray[np.int64], ignore: int | None) -> Thumbnail:
    found = [int(value) for value in np.unique(labels) if value != ignore]
    void = ignore is not None and bool((labels == ignore).any())
    said = ", ".join([_spans(found)] * bool(found) + [f"{ignore} ignored"] * void)
    shown = colour_map()[np.where(labels == ignore, _VOID, labels) if void else labels]
    classes = [*((value, False) for value in found), *[(ignore or 0, True)] * void]
    return Thumbnail(shown, (_called(top, labels[None]), said), tuple(classes))


def _spans(values: Sequence[int]) -> str:
    """Class indices in words: ``class 3``, ``classes 0 3 15``, ``21 classes in 0..20``."""
    if len(values) > _FEW:
        return f"{len(values)} classes in {values[0]}..{values[-1]}"
    return f"class{'es' * (len(values) > 1)} {' '.join(map(str, values))}"


def _called(top: str, image: NDArray[np.generic]) -> str:
    _, height, width = image.shape
    return f"{top} {width}x{height}"


def _red_green_blue(image: Pixels) -> Pixels:
    """(C, H, W) of grey, or of blue, green, red and perhaps more, to (H, W, 3)."""
    colours = np.repeat(image, 3, 0) if len(image) == 1 else image[2::-1]
    return colours.transpose(1, 2, 0)


def write(path: str | Path, heading: str, cards: Iterable[Card]) -> None:
    """Write a contact sheet, a .png or a .jpg, whole or not at all; raises NetSpecError."""
    kind = _KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise NetSpecError(f"{path}: the name of a contact sheet ends in .png or .jpg")
    save(path, sheet(heading, list(cards)), kind)


def sheet(heading: str, cards: Sequence[Card]) -> Image.Image:
    """Cards in rows as wide as the widest card allows, and a legend of colours below them."""
    require(cards, "no samples to show", NetSpecError)
    wide = max(map(_card_width, cards))
    columns = max(1, min(len(cards), (_MOST_WIDTH - _MARGIN) // (wide + _MARGIN)))
    rows = [cards[i : i + columns] for i in range(0, len(cards), columns)]
    heights = [max(map(_card_height, row)) for row in rows]
    width = _MARGIN + columns * (wide + _MARGIN)
    key = _key(cards, width)
    head = _MARGIN + _HEADING + _GAP
    height = head + sum(heights) + len(rows) * _MARGIN + len(key) * _LINE
    require(
        height <= _MOST_HEIGHT and width * height <= _MOST_PIXELS,
        f"{counted(len(cards), 'sample')}: a sheet of {width}x{height} is too large; show fewer",
        NetSpecError,
    )
    canvas = Image.new("RGB", (width, height), "#ffffff")
    draw = ImageDraw.Draw(canvas)
    _write(draw, (_MARGIN, _MARGIN), heading, width - 2 * _MARGIN, _INK, _HEADING)
    y = head + _GAP
    for row, tall in zip(rows, heights, strict=True):
        for i, card in enumerate(row):
            _paint(canvas, draw, card, (_MARGIN + i * (wide + _MARGIN), y), wide)
        y += tall + _MARGIN
    for i, line in enumerate(key):
        _paint_key(draw, line, y - _GAP + i * _LINE)
    return canvas


def _paint(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, card: Card, at: tuple[int, int], wide: int
) -> None:
    left, y = at
    for name in card.names:
        _write(draw, (left, y), name, wide, _INK)
        y += _LINE
    x = left
    for each in card.thumbnails:
        picture = _scaled(each)
        canvas.paste(picture, (x + 1, y + 1))
        draw.rectangle((x, y, x + picture.width + 1, y + picture.height + 1), outline=_EDGE)
        for i, line in enumerate(each.lines):
            below = y + picture.height + 4 + i * _LINE
            _write(draw, (x, below), line, _thumbnail_width(each), _SOFT)
        x += _thumbnail_width(each) + _GAP
    y += max(map(_thumbnail_height, card.thumbnails), default=0)
    for i, line in enumerate(card.lines):
        _write(draw, (left, y + i * _LINE), line, wide, _INK)


def _size(each: Thumbnail) -> tuple[int, int]:
    """Width and height as shown."""
    height, width, _ = each.pixels.shape
    longest = max(height, width)
    if longest > _LARGEST:
        scale = _LARGEST / longest
        return max(1, round(width * scale)), max(1, round(height * scale))
    factor = max(1, _SMALLEST // longest)
    return width * factor, height * factor


def _scaled(each: Thumbnail) -> Image.Image:
    # Class indices have no colours between them, and enlarged pixels are to be seen as such.
    smaller = max(each.pixels.shape) > _LARGEST and not each.classes
    way = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
    return Image.fromarray(each.pixels).resize(_size(each), way)


def _thumbnail_width(each: Thumbnail) -> int:
    """At least what the first line below needs."""
    return max(_size(each)[0] + 2, *(int(_font(_FONT).getlength(line)) for line in each.lines))


def _thumbnail_height(each: Thumbnail) -> int:
    return _size(each)[1] + 4 + len(each.lines) * _LINE


def _card_width(card: Card) -> int:
    thumbnails = sum(_thumbnail_width(each) + _GAP for each in card.thumbnails) - _GAP
    return max(_LEAST_CARD, thumbnails)


def _card_height(card: Card) -> int:
    lines = len(card.names) + len(card.lines)
    return lines * _LINE + max(map(_thumbnail_height, card.thumbnails), default=0)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    line: str,
    width: int,
    ink: str,
    size: int = _FONT,
) -> None:
    """Text no wider than ``width``; of a longer one the end, where names differ."""
    font = _font(size)
    shown, start = line, 0
    while font.getlength(shown) > width and start < len(line):
        start += 1
        shown = f"…{line[start:]}"
    draw.text(at, shown, fill=ink, font=font)


Key = list[tuple[int, Pixels, str]]


def _key(cards: Iterable[Card], width: int) -> list[Key]:
    """The classes on a sheet in lines of (x, colour, what it says)."""
    found = sorted(
        {each for card in cards for thumbnail in card.thumbnails for each in thumbnail.classes}
    )
    lines: list[Key] = []
    x = width
    for value, ignored in sorted(found, key=lambda each: (each[1], each[0])):
        said = f"{value} ignored" if ignored else str(value)
        need = _SWATCH + 4 + int(_font(_FONT).getlength(said)) + _MARGIN
        if x + need > width:
            lines.append([])
            x = _MARGIN
        lines[-1].append((x, colour_map()[_VOID if ignored else value], said))
        x += need
    return lines


def _paint_key(draw: ImageDraw.ImageDraw, line: Key, y: int) -> None:
    for x, colour, said in line:
        red, green, blue = map(int, colour)
        draw.rectangle((x, y, x + _SWATCH, y + _SWATCH), fill=(red, green, blue), outline=_EDGE)
        draw.text((x + _SWATCH + 4, y), said, fill=_INK, font=_font(_FONT))
