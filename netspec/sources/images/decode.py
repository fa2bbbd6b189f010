"""Decode image files and label images to arrays."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from netspec.errors import DamagedDataError, SourceError, fail, require, unreadable
from netspec.formats.regular import open_regular

MEAN = (104.00699, 116.66877, 122.67892)
"""Mean of blue, green and red over ILSVRC's images, which published nets subtract."""

LIMIT = "NETSPEC_MAX_MEGAPIXELS"
"""The environment variable that sets how many million pixels an image may have."""

MOST_MEGAPIXELS = 64
"""How many an image may have where that is not set: of 64 million, 8-bit color takes 192 MB."""

# What OpenCV, and so Caffe, reads and Pillow decodes itself: for EPS it would start Ghostscript.
_FORMATS = (
    "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "SUN", "TIFF", "WEBP",
)  # fmt: skip


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) of red, green and blue, as it is stored; raises SourceError."""
    return _array(_of_8_bits(_open(path)), "RGB")


def read_photo(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) of red, green and blue, upright as viewers show it.

    Transparency is left out, and of 16 bits the upper 8 are taken. Raises SourceError.
    """
    image = _open(path)
    require(
        image.mode not in ("I", "F"),
        f"{path}: has 32 bits a pixel in one channel; save it with 8 or 16",
        SourceError,
    )
    return _array(_of_8_bits(_upright(image)), "RGB")


def read_channels(
    file: Path | BinaryIO, color: bool | None, name: object = None
) -> NDArray[np.uint8]:
    """An image file as (H, W, C), as OpenCV's ``imread`` and ``imdecode`` read it.

    color: True for blue, green and red; False for one channel of grey; None for as many as it has,
    alpha last. name: the file's, for messages, if it has no path. Raises SourceError.

    Turned upright as the camera notes, unless ``color`` is None. Differs: what a truncated file
    still holds is not handed out.
    """
    image = _open(file, "L" if color is False else None, name)
    if color is None:
        return _channels(image, file if name is None else name)
    upright = _upright(image)
    # Transparency is left out; Pillow would first work it in.
    upright.info.pop("transparency", None)
    upright = _of_8_bits(upright)
    if color:
        return _array(upright, "RGB")[:, :, ::-1]
    if image.format == "PNG" and upright.mode not in ("1", "L", "LA"):
        return _grey(_array(upright, "RGB"))
    return _array(upright, "L")[:, :, None]


def _upright(image: Image.Image) -> Image.Image:
    """An image turned as the camera notes it was held."""
    return ImageOps.exif_transpose(image) if image.getexif() else image


def _of_8_bits(image: Image.Image) -> Image.Image:
    """The upper bits of grey of 16 bits, which Pillow would clip; other images as they are."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _channels(image: Image.Image, name: object) -> NDArray[np.uint8]:
    """An image with the channels that it has: grey, or blue, green, red and alpha."""
    require(
        not image.mode.startswith(("I", "F")),
        f"{name}: has more than 8 bits a channel; force_color or force_gray reduces it to 8",
        SourceError,
    )
    if image.mode in ("1", "L"):
        return _array(image, "L")[:, :, None]
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return _array(image, "RGBA")[:, :, [2, 1, 0, 3]]
    return _array(image, "RGB")[:, :, ::-1]


def _array(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) of red, green and blue to (H, W, 1) of grey, rounded down as libpng does it."""
    red, green, blue = (image[:, :, channel].astype(np.int32) for channel in range(3))
    return ((red * 9797 + green * 19234 + blue * 3737) >> 15).astype(np.uint8)[:, :, None]


def read_labels(path: Path) -> NDArray[np.uint8]:
    """A label image, palette or grey, as class indices (H, W); raises SourceError."""
    image = _open(path)
    require(
        image.mode in ("P", "L"),
        f"{path}: {image.mode} label image; class indices expected (an 8-bit palette or grey PNG; "
        "programs that save colors lose the indices)",
        SourceError,
    )
    return np.asarray(image)


def read_grey(path: Path) -> NDArray[np.float32]:
    """A grey image of 8 bits or more as its numbers (H, W); raises SourceError."""
    image = _open(path)
    require(
        image.mode in ("L", "I", "F") or image.mode.startswith("I;16"),
        f"{path}: {image.mode} image; one number a pixel expected (a grey PNG)",
        SourceError,
    )
    return np.asarray(image).astype(np.float32)


def _open(file: Path | BinaryIO, mode: str | None = None, name: object = None) -> Image.Image:
    """A decoded image; raises SourceError. mode: what a JPEG is decoded to, if it can be.

    name: the file's, for messages, if it has no path.
    """
    name = file if name is None else name
    most = _most_pixels()
    try:
        with (
            open_regular(file) if isinstance(file, Path) else nullcontext(file) as opened,
            Image.open(opened, formats=_FORMATS) as image,
        ):
            _require_size(image.size, most, name)
            if mode:
                image.draft(mode, None)
            image.load()
            return image
    except SourceError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own limit; its message begins with the number of pixels.
        _require_pixels(int(re.findall(r"\d+", str(error))[0]), most, name)
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError and more on damaged files.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            fail(unreadable(name, error), SourceError)
        fail(f"{name}: damaged, or not an image ({_reason(error)})", DamagedDataError)


def _reason(error: Exception) -> str:
    """What Pillow says, without the address of the file object that it was given."""
    return re.sub(r" <[^<>]*>", "", str(error)) or type(error).__name__


def _most_pixels() -> float:
    """The number of pixels up to which images are decoded; raises SourceError."""
    given = os.environ.get(LIMIT, str(MOST_MEGAPIXELS))
    try:
        most = float(given) * 1e6
    except ValueError:
        most = math.nan
    wanted = f"{LIMIT}={given}: a number of millions of pixels expected"
    # Data that is there is not to be read: said, too, where absent data would be passed over.
    require(most > 0, wanted, DamagedDataError)
    # Pillow's own limit is for those who set none.
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = None
    return most


def _require_size(size: tuple[int, int], most: float, name: object) -> None:
    width, height = size
    _require_pixels(width * height, most, f"{name}: {width}x{height}")


def _require_pixels(pixels: int, most: float, what: object) -> None:
    """Raise SourceError for more pixels than are decoded: a small file may state any number."""
    require(
        pixels <= most,
        f"{what}: {pixels / 1e6:,.1f} million pixels; at most {most / 1e6:g} million are decoded "
        f"({LIMIT} sets another limit)",
        DamagedDataError,
    )


def preprocess(
    image: NDArray[np.uint8], mean: float | Sequence[float] = MEAN
) -> NDArray[np.float32]:
    """An image (H, W, 3) of red, green, blue as a blob (1, 3, H, W) of blue, green, red less mean.

    mean: of blue, green and red, or one for all.
    """
    blob = np.empty((1, 3, *image.shape[:2]), np.float32)
    subtract_mean(image, mean, blob[0])
    return blob


def subtract_mean(
    image: NDArray[np.uint8], mean: float | Sequence[float], out: NDArray[np.float32]
) -> None:
    """An image (H, W, 3) of red, green, blue into ``out`` (3, H, W): blue, green, red less mean."""
    for channel, value in enumerate(np.broadcast_to(mean, 3)):
        # In double, and rounded once.
        np.subtract(
            image[:, :, 2 - channel], value, out[channel], dtype=np.float64, casting="unsafe"
        )
