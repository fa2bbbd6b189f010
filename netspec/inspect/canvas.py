"""Draw boxes, lines and texts as SVG or PNG.

Texts are measured with the font that comes with Pillow, so no font of the system is needed. SVG
viewers set them in a font of their own, which they stretch to the width measured here.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from netspec.inspect.placement import Point, Size

SCALE = 2
MOST_PIXELS = 24_000_000
_OVERSAMPLED = 2
_ARROW = 7.0
_RADIUS = 4.0
_DASH = 4.0


@dataclass(frozen=True)
class Box:
    """A rounded rectangle; ``tip`` is shown where a viewer knows how to."""

    corner: Point
    size: Size
    fill: str
    edge: str
    dashed: bool = False
    tip: str = ""

    @property
    def far(self) -> Point:
        """The corner at the lower right."""
        return Point(self.corner.x + self.size.width, self.corner.y + self.size.height)


@dataclass(frozen=True)
class Line:
    """A line through points: straight where upright or level, elsewhere an S-curve downwards."""

    points: tuple[Point, ...]
    ink: str
    arrow: bool = False


@dataclass(frozen=True)
class Text:
    """A line of text whose middle height is at ``at.y``; ``anchor`` is start, middle or end."""

    at: Point
    text: str
    size: float
    ink: str
    anchor: str = "start"


@dataclass(frozen=True)
class Scene:
    """A picture, painted in this order: lines, boxes, texts."""

    size: Size
    lines: tuple[Line, ...]
    boxes: tuple[Box, ...]
    texts: tuple[Text, ...]


@functools.cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def text_width(text: str, size: float) -> float:
    """How many pixels wide a text is."""
    return _font(size * 8).getlength(text) / 8


def svg(scene: Scene) -> str:
    """The scene as an SVG document."""
    width, height = math.ceil(scene.size.width), math.ceil(scene.size.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *itertools.chain.from_iterable(map(_svg_line, scene.lines)),
        *map(_svg_box, scene.boxes),
        *map(_svg_text, scene.texts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _svg_line(line: Line) -> Iterator[str]:
    points = _shortened(line)
    path = f"M{_number(points[0].x)} {_number(points[0].y)}"
    for start, end in itertools.pairwise(points):
        if _is_straight(start, end):
            path += f"L{_number(end.x)} {_number(end.y)}"
        else:
            middle = (start.y + end.y) / 2
            controls = (start.x, middle, end.x, middle, *end)
            path += "C" + " ".join(map(_number, controls))
    yield f'<path d="{path}" fill="none" stroke="{line.ink}" stroke-width="1.4"/>'
    if line.arrow:
        corners = " ".join(f"{_number(x)},{_number(y)}" for x, y in _arrowhead(line))
        yield f'<polygon points="{corners}" fill="{line.ink}"/>'


def _svg_box(box: Box) -> str:
    dashes = f' stroke-dasharray="{_number(_DASH)}"' if box.dashed else ""
    title = f"<title>{escape(box.tip)}</title>" if box.tip else ""
    return (
        f'<rect x="{_number(box.corner.x)}" y="{_number(box.corner.y)}" '
        f'width="{_number(box.size.width)}" height="{_number(box.size.height)}" '
        f'rx="{_number(_RADIUS)}" fill="{box.fill}" stroke="{box.edge}"{dashes}>{title}</rect>'
    )


def _svg_text(text: Text) -> str:
    width = text_width(text.text, text.size)
    return (
        f'<text x="{_number(text.at.x)}" y="{_number(text.at.y + 0.35 * text.size)}" '
        f'font-size="{_number(text.size)}" fill="{text.ink}" text-anchor="{text.anchor}" '
        f'textLength="{_number(width)}" lengthAdjust="spacingAndGlyphs" pointer-events="none">'
        f"{escape(text.text)}</text>"
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def png(scene: Scene) -> bytes:
    """The scene as a PNG file, `SCALE` times as large unless that exceeds `MOST_PIXELS`."""
    scale = min(SCALE, math.sqrt(MOST_PIXELS / (scene.size.width * scene.size.height)))
    fine = scale * _OVERSAMPLED
    size = tuple(math.ceil(extent * scale) * _OVERSAMPLED for extent in scene.size)
    image = Image.new("RGB", (size[0], size[1]), "#ffffff")
    canvas = ImageDraw.Draw(image)
    for line in scene.lines:
        path = [(x * fine, y * fine) for x, y in trace(line)]
        canvas.line(path, fill=line.ink, width=round(1.4 * fine), joint="curve")
        if line.arrow:
            canvas.polygon([(x * fine, y * fine) for x, y in _arrowhead(line)], fill=line.ink)
    for box in scene.boxes:
        _paint_box(canvas, box, fine)
    for text in scene.texts:
        font = _font(text.size * fine)
        at = (text.at.x * fine, (text.at.y + 0.35 * text.size) * fine)
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
        canvas.text(at, text.text, fill=text.ink, font=font, anchor=anchor)
    file = io.BytesIO()
    image.reduce(_OVERSAMPLED).save(file, "PNG", optimize=True)
    return file.getvalue()


def _paint_box(canvas: ImageDraw.ImageDraw, box: Box, scale: float) -> None:
    corners = [value * scale for value in (*box.corner, *box.far)]
    outline = None if box.dashed else box.edge
    canvas.rounded_rectangle(corners, _RADIUS * scale, box.fill, outline, round(scale))
    if box.dashed:
        left, top, right, bottom = corners
        for y in (top, bottom):
            for x in _dashes(left, right, scale):
                canvas.line([(x, y), (min(x + _DASH * scale, right), y)], box.edge, round(scale))
        for x in (left, right):
            for y in _dashes(top, bottom, scale):
                canvas.line([(x, y), (x, min(y + _DASH * scale, bottom))], box.edge, round(scale))


def _dashes(start: float, end: float, scale: float) -> Iterator[float]:
    """Where the dashes of an edge begin."""
    step = 2 * _DASH * scale
    return (start + i * step for i in range(math.ceil((end - start) / step)))


def trace(line: Line, steps: int = 24) -> list[Point]:
    """A line as straight pieces, short enough to look curved."""
    points = _shortened(line)
    traced = [points[0]]
    for start, end in itertools.pairwise(points):
        pieces = 1 if _is_straight(start, end) else steps
        middle = (start.y + end.y) / 2
        for i in range(1, pieces + 1):
            t = i / pieces
            x = start.x + (end.x - start.x) * t * t * (3 - 2 * t)
            y = (1 - t) ** 3 * start.y + 3 * t * (1 - t) * middle + t**3 * end.y
            traced.append(Point(x, y))
    return traced


def _is_straight(start: Point, end: Point) -> bool:
    return start.x == end.x or start.y == end.y


def _shortened(line: Line) -> tuple[Point, ...]:
    """The line's points, its end drawn back to make room for the arrowhead."""
    if not line.arrow:
        return line.points
    end = line.points[-1]
    return (*line.points[:-1], Point(end.x, end.y - _ARROW))


def _arrowhead(line: Line) -> tuple[Point, ...]:
    x, y = line.points[-1]
    return Point(x, y), Point(x - _ARROW / 2, y - _ARROW), Point(x + _ARROW / 2, y - _ARROW)
