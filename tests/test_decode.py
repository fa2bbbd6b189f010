"""Decoding and resizing, as OpenCV does both."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sources import _among_the_files as _among_the_files
from image_sources import noise
from PIL import Image

from netspec.errors import SourceError
from netspec.sources.images.decode import read_channels, read_image
from netspec.sources.images.resize import resize


def files_of_all_kinds() -> dict[str, bytes]:
    image = noise(9, 12, 3)
    colour = Image.fromarray(image.repeat(4, 0).repeat(4, 1))
    alpha = colour.copy()
    alpha.putalpha(colour.getchannel(0))
    palette = colour.quantize(16)
    turned = Image.Exif()
    turned[274] = 6
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "png": (colour, "PNG", {}),
        "grey png": (colour.convert("L"), "PNG", {}),
        "1-bit png": (colour.convert("1"), "PNG", {}),
        "alpha png": (alpha, "PNG", {}),
        "grey alpha png": (alpha.convert("LA"), "PNG", {}),
        "palette png": (palette, "PNG", {}),
        "palette png, one transparent": (palette, "PNG", {"transparency": 3}),
        "palette png, some transparent": (palette, "PNG", {"transparency": b"\0\3\xff\7"}),
        "16-bit png": (Image.fromarray(noise(8, 9).astype(np.uint16) * 255 + 7), "PNG", {}),
        "jpeg": (colour, "JPEG", {}),
        "grey jpeg": (colour.convert("L"), "JPEG", {}),
        "progressive jpeg": (colour, "JPEG", {"progressive": True}),
        "turned jpeg": (colour, "JPEG", {"exif": turned}),
        "bmp": (colour, "BMP", {}),
    }
    found = {}
    for name, (picture, kind, options) in made.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found[name] = file.getvalue()
    return found


# Where OpenCV rounds grey to the nearest number, and Pillow does so a little differently.
ROUGH = {("bmp", False)}


@pytest.mark.parametrize("name", files_of_all_kinds())
def test_decoding_is_opencvs(name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    content = files_of_all_kinds()[name]
    for color, flag in ((True, cv2.IMREAD_COLOR), (False, cv2.IMREAD_GRAYSCALE), (None, -1)):
        expected = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
        if expected.dtype != np.uint8:
            continue
        expected = expected.reshape(*expected.shape[:2], -1)
        image = read_channels(io.BytesIO(content), color, name)
        assert image.shape == expected.shape
        off = np.abs(image.astype(int) - expected)
        assert off.max() <= ((name, color) in ROUGH), (name, color)


def test_decoding_by_hand() -> None:
    """Without OpenCV: the channels, their order, and libpng's grey."""
    made = {
        name: read_channels(io.BytesIO(c), None, name)
        for name, c in files_of_all_kinds().items()
        if "16" not in name
    }
    image = noise(9, 12, 3).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(made["png"], image[:, :, ::-1])
    np.testing.assert_array_equal(made["alpha png"], image[:, :, [2, 1, 0, 0]])
    shapes = {name: array.shape[2] for name, array in made.items()}
    assert shapes == dict.fromkeys(made, 3) | {
        "grey png": 1,
        "1-bit png": 1,
        "grey jpeg": 1,
        "alpha png": 4,
        "grey alpha png": 4,
        "palette png, one transparent": 4,
        "palette png, some transparent": 4,
    }
    turned = files_of_all_kinds()["turned jpeg"]
    for color, size in ((True, (48, 36, 3)), (False, (48, 36, 1)), (None, (36, 48, 3))):
        assert read_channels(io.BytesIO(turned), color, "turned").shape == size


# What OpenCV 5.0 made of (i * 37) % 256, i = 0..34, of 5 rows and 7 columns.
SMALLER = [[15, 79, 144, 209], [20, 85, 149, 214], [25, 89, 154, 219]]
LARGER = [
    [0, 25, 53, 82, 111, 140, 168, 197, 222],
    [1, 26, 55, 83, 112, 141, 170, 199, 223],
    [3, 28, 56, 85, 114, 143, 172, 200, 225],
    [5, 30, 58, 87, 116, 145, 174, 202, 227],
    [7, 32, 60, 89, 118, 146, 175, 204, 229],
    [9, 33, 62, 91, 120, 148, 177, 206, 231],
    [11, 35, 64, 93, 122, 150, 179, 208, 233],
    [12, 37, 65, 94, 123, 152, 180, 209, 234],
]


def test_resizing_by_hand() -> None:
    image = (np.arange(35) * 37 % 256).astype(np.uint8).reshape(5, 7, 1)
    for expected in (SMALLER, LARGER):
        made = resize(image, len(expected), len(expected[0]))
        assert made[:, :, 0].tolist() == expected
    assert resize(image, 5, 7) is image
    assert resize(noise(1, 1, 3), 4, 2).tolist() == [[noise(1, 1, 3)[0, 0].tolist()] * 2] * 4


def test_resizing_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    sizes = np.random.default_rng(3).integers(1, 60, (200, 4))
    halves = [(2 * h, 2 * w, h, w) for h, w in ((3, 5), (1, 7), (20, 13))]
    for rows, columns, height, width in [*sizes.tolist(), *halves]:
        for channels in (1, 3):
            image = noise(rows, columns, channels)
            expected = cv2.resize(image, (width, height)).reshape(height, width, channels)
            np.testing.assert_array_equal(resize(image, height, width), expected)


def test_a_format_that_needs_a_program_is_not_opened(tmp_path: Path) -> None:
    """Pillow starts Ghostscript for EPS; whoever sent the file should not start programs."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (7, 5)).save(path, "EPS")
    with pytest.raises(SourceError, match="not an image"):
        read_image(path)
