"""Sources that tests open, and what they hand out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import NetSpecError
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Source, open_source


def opened(layer: str, seed: int | None = 7) -> Source:
    """The source of a data layer written as prototxt."""
    net = parse_net(layer, "net.prototxt")
    return open_source(net.message.layer[0], TEST, seed, net.places[0])


def raised(act: Callable[[], object]) -> str:
    with pytest.raises(NetSpecError) as caught:
        act()
    return str(caught.value)


def numbers(batch: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in batch.items()}


def goes_on(make: Callable[[int | None], Source], taken: int) -> None:
    """A source that is restored hands out what the one whose state it is would."""
    source = make(None)
    for _ in range(taken):
        source.next()
    state = json.loads(json.dumps(source.state()))
    expected = [numbers(source.next()) for _ in range(3)]
    other = make(None)
    other.next()
    other.restore(state)
    assert [numbers(other.next()) for _ in range(3)] == expected


PIXELS = np.random.default_rng(3).integers(0, 256, (20, 26, 3), np.uint8)
WINDOWS = """# 0
im0.png
3
20
26
2
1 0.9 2 3 5 6
0 0.1 5 1 8 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with im0.png, 26x20, and a window of either kind, 4x4, in windows.txt."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("im0.png")
    Path("windows.txt").write_text(WINDOWS)
    return tmp_path


SINK = """
layer { name: "in" type: "Input" top: "x" top: "t" input_param {
  shape { dim: 2 dim: 3 dim: 4 dim: 5 } shape { dim: 2 } } }
layer { name: "double" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
layer { name: "out" type: "HDF5Output" bottom: "y" bottom: "t"
  hdf5_output_param { file_name: "sub/rows.h5" } }
"""
