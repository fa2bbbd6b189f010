"""Images, and sizes that settings ask for, are bounded before anything is allocated."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from image_sources import data, images, opened, write_lmdb
from PIL import Image

from netspec.caffe.io import UnreadImage, load_image
from netspec.cli.verbs import main
from netspec.errors import DamagedDataError, NetSpecError, SourceError
from netspec.proto.layers_pb2 import Datum
from netspec.sources.images import decode
from netspec.sources.images.decode import read_image, read_labels, read_photo


def png(width: int, height: int) -> bytes:
    """A PNG that states a size, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + (chunk(b"IEND", b""))
    )


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.png").write_bytes(png(9000, 8000))
    (tmp_path / "list.txt").write_text("bomb.png 0\n")
    return tmp_path


SAID = (
    "bomb.png: 9000x8000: 72.0 million pixels; at most 64 million are decoded "
    "(NETSPEC_MAX_MEGAPIXELS sets another limit)"
)


@pytest.mark.parametrize("read", [read_image, read_photo, read_labels])
def test_every_reader_has_the_limit(bomb: Path, read: object) -> None:
    with pytest.raises(DamagedDataError) as caught:
        read(Path("bomb.png"))  # type: ignore[operator]
    assert str(caught.value) == SAID


@pytest.mark.differs("image-limit")
def test_layers_and_pycaffe_have_it(bomb: Path) -> None:
    with pytest.raises(SourceError) as caught:
        images('source: "list.txt" batch_size: 1')
    assert str(caught.value).endswith(SAID)
    record = Datum(data=(bomb / "bomb.png").read_bytes(), encoded=True, label=0)
    with pytest.raises(SourceError, match=r'record "0": 9000x8000: 72.0 million pixels'):
        data(write_lmdb(bomb / "db", record) + " batch_size: 1")
    with pytest.raises(UnreadImage, match=r"72.0 million pixels"):
        load_image("bomb.png")
    (bomb / "w.txt").write_text("# 0\nbomb.png\n3\n8\n8\n2\n1 .9 0 0 3 3\n2 .1 1 1 4 4\n")
    with pytest.raises(SourceError, match=r"72.0 million pixels"):
        opened(
            'layer { type: "WindowData" top: "x" top: "y" transform_param { crop_size: 8 } '
            'window_data_param { source: "w.txt" batch_size: 1 } }'
        )


@pytest.mark.parametrize("size", [(10_000, 9_500), (40_000, 40_000)])
def test_pillows_own_limits_say_no_more(bomb: Path, size: tuple[int, int]) -> None:
    (bomb / "bomb.png").write_bytes(png(*size))
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(action, Image.DecompressionBombWarning)  # type: ignore[arg-type]
            with pytest.raises(DamagedDataError, match=r"million pixels; at most 64 million are"):
                read_image(Path("bomb.png"))


def test_the_limit_can_be_set(bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((20, 50), np.uint8)).save("small.png")
    monkeypatch.setenv(decode.LIMIT, "0.0009")
    with pytest.raises(DamagedDataError, match=r"50x20: 0.0 million pixels; at most 0.0009 millio"):
        read_image(Path("small.png"))
    monkeypatch.setenv(decode.LIMIT, "0.001")
    assert read_image(Path("small.png")).shape == (20, 50, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv(decode.LIMIT, "2000")
    (bomb / "bomb.png").write_bytes(png(40_000, 40_000))
    with pytest.raises(DamagedDataError, match=r"bomb.png: damaged, or not an image"):
        read_image(Path("bomb.png"))
    for wrong in ("many", "-1", "nan", ""):
        monkeypatch.setenv(decode.LIMIT, wrong)
        with pytest.raises(SourceError, match=f"^{decode.LIMIT}={wrong}: a number of millions of"):
            read_image(Path("small.png"))


def test_the_command_line_says_it_in_one_line(bomb: Path) -> None:
    (bomb / "bomb.png").write_bytes(png(10_000, 9_500))
    (bomb / "net.prototxt").write_text(
        'layer { name: "d" type: "ImageData" top: "x" top: "y" '
        'image_data_param { source: "list.txt" batch_size: 1 } }'
    )
    result = CliRunner().invoke(main, ["summary", "net.prototxt"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "million pixels; at most 64 million" in result.stderr


def image_file() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


WINDOWS = "# 0\nok.png\n3\n8\n8\n2\n1 .9 0 0 3 3\n2 .1 1 1 4 4\n"
TOO_LARGE = {
    "window": 'type: "WindowData" transform_param { crop_size: 100000 } '
    'window_data_param { source: "w.txt" batch_size: 1 }',
    "image": 'type: "ImageData" image_data_param { source: "ok.txt" batch_size: 1 '
    "new_height: 100000 new_width: 100000 }",
    "image of most": 'type: "ImageData" image_data_param { source: "ok.txt" batch_size: 1 '
    "new_height: 4294967295 new_width: 4294967295 }",
    "batch": 'type: "ImageData" image_data_param { source: "ok.txt" batch_size: 100000 '
    "new_height: 500 new_width: 500 }",
    "labels": 'type: "SegmentationData" segmentation_data_param { source: "pairs.txt" '
    "crop_size: 100000 }",
    "scaled": 'type: "SegmentationData" segmentation_data_param { source: "pairs.txt" '
    "crop_size: 8 min_scale: 1e6 max_scale: 1e6 }",
}


@pytest.mark.parametrize("layer", TOO_LARGE.values(), ids=list(TOO_LARGE))
def test_sizes_that_no_blob_has(bomb: Path, layer: str) -> None:
    (bomb / "ok.png").write_bytes(image_file())
    (bomb / "l.png").write_bytes(b"")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("l.png")
    (bomb / "ok.txt").write_text("ok.png 0\n")
    (bomb / "pairs.txt").write_text("ok.png l.png\n")
    (bomb / "w.txt").write_text(WINDOWS)
    with pytest.raises(NetSpecError, match=r"numbers, but at most 2,147,483,647 fit a blob$"):
        opened(f'layer {{ name: "d" top: "x" top: "y" {layer} }}', phase=0).next()


def test_resizing_to_what_no_blob_has(bomb: Path) -> None:
    (bomb / "ok.png").write_bytes(image_file())
    (bomb / "list.txt").write_text("ok.png 0\n")
    result = CliRunner().invoke(main, "data lmdb list.txt db --resize 100000x100000".split())
    assert result.exit_code == 1
    assert result.stderr == (
        "netspec: --resize 100000x100000: an image of at most 715,827,882 pixels\n"
    )


def test_a_number_that_is_no_float() -> None:
    digits = "9" * 4000
    with pytest.raises(SourceError) as caught:
        opened(
            'layer { type: "Python" top: "d" top: "l" python_param { module: "voc_layers" '
            'layer: "VOCSegDataLayer" param_str: '
            f"\"{{'voc_dir': 'x', 'split': 'v', 'mean': ({digits}, 1, 2)}}\" }} }}"
        )
    assert len(str(caught.value)) < 400
    assert "needs one number or three (blue, green, red)" in str(caught.value)


def test_running_out_of_memory_is_one_line(bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> None:
        raise MemoryError("112 GiB")

    monkeypatch.setattr(decode, "_array", starve)
    (bomb / "ok.png").write_bytes(image_file())
    (bomb / "list.txt").write_text("ok.png 0\n")
    with pytest.raises(SourceError, match=r"its batch does not fit in memory \(112 GiB\)"):
        images('source: "list.txt" batch_size: 1')
    result = CliRunner().invoke(main, "data mean list.txt".split())
    assert (result.exit_code, result.stderr) == (
        1,
        "netspec: there is not enough memory (112 GiB)\n",
    )
