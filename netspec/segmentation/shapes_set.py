"""A practice set: shapes on textured ground, in PASCAL VOC's folder layout.

Each class has a form, a texture and a leaning to a hue. Hues of neighbouring classes overlap, and
the ground takes all of them, so that colour alone does not tell classes apart.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import SourceError, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.formats.palette import save, save_indexed

Field = NDArray[np.float64]

MARKER = ".netspec-synthetic"
VOID = 255
# Pixels this near to an outline are void, as in PASCAL VOC.
BORDER = 1.0


def _disc(x: Field, y: Field) -> Field:
    distance: Field = np.hypot(x, y) - 1
    return distance


def _square(x: Field, y: Field) -> Field:
    return np.maximum(abs(x), abs(y)) - 0.85


def _triangle(x: Field, y: Field) -> Field:
    distance: Field = np.maximum(abs(x) * np.sqrt(0.75) + y / 2, -y) - 0.6
    return distance


def _ring(x: Field, y: Field) -> Field:
    distance: Field = abs(np.hypot(x, y) - 0.75) - 0.25
    return distance


def _cross(x: Field, y: Field) -> Field:
    lying, standing = (np.maximum(abs(a) - 1, abs(b) - 0.3) for a, b in ((x, y), (y, x)))
    distance: Field = np.minimum(lying, standing)
    return distance


def _grain(x: Field, y: Field) -> Field:
    return np.sin(1.7 * x) * np.sin(1.7 * y)


def _checks(x: Field, y: Field) -> Field:
    sign: Field = np.sign(np.sin(x) * np.sin(y))
    return sign


def _stripes(x: Field, y: Field) -> Field:
    return np.sign(np.sin(x))


def _waves(x: Field, y: Field) -> Field:
    return np.sin(x + np.sin(y / 2))


def _plain(x: Field, y: Field) -> Field:
    return np.zeros_like(x)


@dataclass(frozen=True)
class ObjectClass:
    """A class of objects.

    outline: distance to the outline at unit size, negative inside. texture: -1..1 over a plane
    whose unit is a pixel. hue: around which its hues lie, 0..1.
    """

    name: str
    outline: Callable[[Field, Field], Field]
    texture: Callable[[Field, Field], Field]
    hue: float


KINDS = (
    ObjectClass("disc", _disc, _checks, 0.0),
    ObjectClass("square", _square, _stripes, 0.2),
    ObjectClass("triangle", _triangle, _plain, 0.4),
    ObjectClass("ring", _ring, _waves, 0.6),
    ObjectClass("cross", _cross, _grain, 0.8),
)
CLASSES = ("background", *(kind.name for kind in KINDS))


def write_dataset(
    folder: str | Path,
    train: int = 160,
    val: int = 40,
    seed: int = 0,
    size: tuple[int, int] = (96, 128),
) -> Path:
    """Write a set with splits ``train`` and ``val``; returns its folder, the ``voc_dir`` of a net.

    size: (height, width) of all images, in pixels. The same arguments make the same set, and a
    sample does not depend on how many there are. ``classes.txt`` holds the names of `CLASSES`.
    Raises SourceError for a folder that holds something else: only a set of ours is overwritten.
    """
    require(
        min(size) >= 32 and train > 0 and val > 0,
        f"{train} and {val} images of {size[1]}x{size[0]}; needed are some of each, 32x32 or more",
        SourceError,
    )
    require(seed >= 0, f"seed {seed}: needed is 0 or more", SourceError)
    folder = Path(folder)
    _claim(folder)
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        names = [f"{split}_{i:04}" for i in range(count)]
        for i, name in enumerate(names):
            image, labels = draw(np.random.default_rng((seed, number, i)), size)
            jpeg = folder / "JPEGImages" / f"{name}.jpg"
            save(jpeg, Image.fromarray(image), "JPEG", quality=92)
            save_indexed(folder / "SegmentationClass" / f"{name}.png", labels)
        _write(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)
    _write(folder / "classes.txt", CLASSES)
    return folder


def _claim(folder: Path) -> None:
    """Make a folder ours by a marker in it; raises SourceError if it is somebody's already."""
    marker = folder / MARKER
    try:
        ours = not folder.exists() or marker.is_file() or not any(folder.iterdir())
    except OSError as error:
        raise SourceError(unreadable(folder, error)) from None
    require(
        ours,
        f"{folder}: holds files, and none says that they are a synthetic set ({MARKER}); "
        "name another folder",
        SourceError,
    )
    _write(marker, ["Written by netspec, which may overwrite what lies here."])


def _write(path: Path, lines: Iterable[str]) -> None:
    try:
        with atomic_write(path) as part:
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise SourceError(unreadable(path, error)) from None


def draw(
    random: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One sample: an image (H, W, 3) of red, green, blue and its class indices (H, W).

    Two to four objects, later ones over earlier ones; outlines are 255 (void).
    """
    image = _ground(random, size)
    labels = np.zeros(size, np.uint8)
    for _ in range(random.integers(2, 5)):
        index = int(random.integers(len(KINDS)))
        distance, colours = _object(random, size, KINDS[index])
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        image = image * (1 - cover) + colours * cover
        labels[distance < BORDER] = VOID
        labels[distance < -BORDER] = index + 1
    image += random.normal(0, 0.03, image.shape)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), labels


def _object(
    random: np.random.Generator, size: tuple[int, int], kind: ObjectClass
) -> tuple[Field, Field]:
    """Distance to an object's outline in pixels (H, W), and its colours (H, W, 3)."""
    radius = min(size) * random.uniform(0.18, 0.32)
    x, y = _turned(random, size, *(extent * random.uniform(0.1, 0.9) for extent in size))
    distance = radius * kind.outline(x / radius, y / radius)
    # Textures lie at angles of their own.
    u, v = _turned(random, size, 0, 0)
    period = random.uniform(5, 8)
    texture = kind.texture(u * 2 * np.pi / period, v * 2 * np.pi / period)
    hue = random.normal(kind.hue, 0.08) % 1
    colour = colorsys.hsv_to_rgb(hue, random.uniform(0.3, 0.8), random.uniform(0.5, 0.8))
    return distance, np.asarray(colour) * (1 + 0.25 * texture[..., None])


def _turned(
    random: np.random.Generator, size: tuple[int, int], y0: float, x0: float
) -> tuple[Field, Field]:
    """Coordinates (H, W) from a centre along axes turned by a random angle, in pixels."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    angle = random.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return c * (x - x0) + s * (y - y0), c * (y - y0) - s * (x - x0)


def _ground(random: np.random.Generator, size: tuple[int, int]) -> Field:
    """A ground (H, W, 3) in 0..1: soft patches of any colour."""
    coarse = random.uniform(60, 190, (5, 6, 3)).astype(np.uint8)
    patches = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    fine = random.normal(0, 0.04, (*size, 1))
    return np.asarray(patches) / 255 + fine
