"""Net-level ``input`` fields without dims, whose shapes are given apart."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import netspec
from netspec.cli import main

NET = """input: "x" input: "unread"
layer { name: "c" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 2 kernel_size: 3 } }
"""


@pytest.fixture(autouse=True)
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)


def test_shapes_are_taken() -> None:
    loaded = netspec.load("net.prototxt", shapes={"x": (1, 3, 8, 8)})
    assert loaded(x=np.ones((1, 3, 8, 8), np.float32))["y"].shape == (1, 2, 6, 6)


@pytest.mark.parametrize("verb", ["summary", "rf", "draw -o a.svg"])
def test_verbs_take_them(verb: str) -> None:
    result = CliRunner().invoke(main, [*verb.split(), "net.prototxt", "--shape", "x=1,3,8,8"])
    assert not result.exit_code, result.output


def test_without_one_the_remedy_is_told() -> None:
    with pytest.raises(netspec.NetSpecError) as caught:
        netspec.load("net.prototxt")
    assert str(caught.value) == (
        'net.prototxt:1: layer "input" (Input): states no shape; '
        "give input_param { shape { dim: ... } }, or shapes="
    )


def test_what_a_layer_makes_or_nobody_reads_needs_none() -> None:
    Path("net.prototxt").write_text("""input: "x" input: "y"
layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } }
layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
layer { name: "s" type: "ReLU" bottom: "y" top: "z" include { phase: TRAIN } }
""")
    assert netspec.load("net.prototxt").graph.fed == ("x",)


def test_old_nets_have_them_too() -> None:
    Path("net.prototxt").write_text(
        'input: "x" layers { name: "r" type: RELU bottom: "x" top: "x" }'
    )
    loaded = netspec.load("net.prototxt", shapes={"x": (2, 3)})
    assert loaded(x=np.full((2, 3), -1, np.float32))["x"].tolist() == [[0] * 3] * 2
