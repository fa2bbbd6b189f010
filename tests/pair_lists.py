"""Lists of pairs of an image and its labels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Source, open_source

Bytes = NDArray[np.uint8]
HEIGHT, WIDTH = 9, 12


def opened(settings: str, phase: int = TEST, seed: int | None = 7, more: str = "") -> Source:
    net = parse_net(
        'layer { name: "d" type: "SegmentationData" top: "data" top: "label" '
        f"segmentation_data_param {{ {settings} }} {more} }}",
        "net.prototxt",
    )
    return open_source(net.message.layer[0], phase, seed, net.places[0])


def save(path: str, image: Bytes, palette: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    if palette:
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


def noise(number: int) -> Bytes:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def labels(number: int) -> Bytes:
    return np.full((HEIGHT, WIDTH), number, np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: images i/0.png to i/6.png of noise, and l/0.png, ... of their numbers."""
    monkeypatch.chdir(tmp_path)
    for i in range(7):
        save(f"i/{i}.png", noise(i))
        save(f"l/{i}.png", labels(i), palette=i % 2 == 0)
    write_list(*(f"i/{i}.png l/{i}.png" for i in range(7)))
    return tmp_path


def write_list(*lines: str) -> None:
    Path("list.txt").write_text("\n".join(lines), encoding="utf-8")


LIST = 'source: "list.txt"'
