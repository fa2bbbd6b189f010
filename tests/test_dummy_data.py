"""DummyData: fillers, shapes, and the numbers of each forward."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from open_sources import goes_on, numbers, opened, raised

from netspec import caffe
from netspec.sources import Source


def dummy(param: str, tops: str = "x", seed: int | None = 7) -> Source:
    named = " ".join(f'top: "{top}"' for top in tops.split())
    return opened(
        f'layer {{ name: "d" type: "DummyData" {named} dummy_data_param {{ {param} }} }}', seed
    )


SHAPES = {
    "shape { dim: 2 dim: 3 }": {"x": (2, 3), "y": (2, 3)},
    "shape { dim: 2 } shape { dim: 3 dim: 5 dim: 7 }": {"x": (2,), "y": (3, 5, 7)},
    "shape { }": {"x": (), "y": ()},
    "num: 2 channels: 3 height: 5 width: 7": {"x": (2, 3, 5, 7), "y": (2, 3, 5, 7)},
    "num: 2 num: 4 channels: 3 height: 5 width: 7 width: 8": {
        "x": (2, 3, 5, 7),
        "y": (4, 3, 5, 8),
    },
}


@pytest.mark.parametrize("param", SHAPES)
def test_dummy_shapes(param: str) -> None:
    source = dummy(param, "x y")
    assert source.tops == SHAPES[param]
    batch = source.next()
    assert {name: array.shape for name, array in batch.items()} == SHAPES[param]
    for array in batch.values():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert not array.any()


# filler -> what holds of 4 x 1000 numbers that it makes.
FILLERS: dict[str, Callable[[NDArray[np.float32]], object]] = {
    'type: "uniform" min: -2 max: 3': lambda x: -2 <= x.min() < -1.9 and 2.9 < x.max() < 3,
    'type: "gaussian" mean: 5 std: 2': lambda x: abs(x.mean() - 5) < 0.2 and 1.9 < x.std() < 2.1,
    'type: "gaussian" std: 1 sparse: 1': lambda x: 0.2 < (x != 0).mean() < 0.3,
    'type: "xavier"': lambda x: 0.054 < x.max() < 0.0548,
    'type: "xavier" variance_norm: FAN_OUT': lambda x: 0.8 < x.max() < 0.867,
    'type: "msra" variance_norm: AVERAGE': lambda x: 0.06 < x.std() < 0.066,
    'type: "positive_unitball"': lambda x: np.allclose(x.sum(1), 1, atol=1e-5),
}


@pytest.mark.parametrize("filler", FILLERS)
def test_dummy_fills_anew_at_each_forward(filler: str) -> None:
    source = dummy(f"shape {{ dim: 4 dim: 1000 }} data_filler {{ {filler} }}")
    first, second = (source.next()["x"] for _ in range(2))
    assert FILLERS[filler](first)
    assert FILLERS[filler](second)
    assert (first != second).any()
    again = dummy(f"shape {{ dim: 4 dim: 1000 }} data_filler {{ {filler} }}")
    np.testing.assert_array_equal(again.next()["x"], first)
    other = dummy(f"shape {{ dim: 4 dim: 1000 }} data_filler {{ {filler} }}", seed=8)
    assert (other.next()["x"] != first).any()


def test_dummy_fills_each_top_its_way() -> None:
    source = dummy(
        'shape { dim: 3 } data_filler { value: 4 } data_filler { type: "uniform" }', "x y"
    )
    assert source.describe() == "DummyData: 2 tops filled with constant, uniform"
    assert source.batches == 1
    first, second = source.next(), source.next()
    assert first["x"].tolist() == second["x"].tolist() == [4, 4, 4]
    assert first["y"].tolist() != second["y"].tolist()
    # What is done to a batch does not reach the next.
    second["x"][:] = 9
    assert source.next()["x"].tolist() == [4, 4, 4]


def test_dummy_fills_no_two_tops_alike() -> None:
    param = 'shape { dim: 3 } data_filler { type: "uniform" }'
    both = dummy(param, "x y").next()
    assert both["x"].tolist() != both["y"].tolist()
    # Not those of another layer either.
    assert dummy(param, "z").next()["z"].tolist() not in numbers(both).values()


def test_dummy_fills_a_kernel() -> None:
    shape = "shape { dim: 2 dim: 1 dim: 4 dim: 4 }"
    batch = dummy(f'{shape} data_filler {{ type: "bilinear" }}').next()
    assert batch["x"][1, 0, 1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_dummy_goes_on_where_its_state_was_taken(taken: int) -> None:
    goes_on(
        lambda seed: dummy('shape { dim: 3 } data_filler { type: "gaussian" }', seed=seed), taken
    )


DUMMY_MISTAKES = {
    "": "0 shape for 2 tops; give one for all, or one for each",
    "shape { dim: 1 } num: 2": "give shape or num, not both",
    "num: 2 channels: 3 height: 5": "0 width for 2 tops; give one for all, or one for each",
    "shape { dim: 1 } data_filler { } data_filler { } data_filler { }": (
        "3 data_filler for 2 tops; give one for all, or one for each"
    ),
    'shape { dim: 1 } data_filler { type: "unifrom" }': (
        'unknown filler "unifrom"; did you mean "uniform"?'
    ),
    'shape { dim: 1 } data_filler { type: "uniform" min: 3 }': "min 3 > max 1",
}


@pytest.mark.parametrize("param", DUMMY_MISTAKES)
def test_dummy_settings_that_cannot_work(param: str) -> None:
    message = raised(lambda: dummy(param, "x y"))
    assert message == f'net.prototxt:1: layer "d" (DummyData): {DUMMY_MISTAKES[param]}'


def test_dummy_feeds_a_net(tmp_path: Path) -> None:
    """As Caffe: ``batch_size`` forwards apart, a constant is what it was."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        """
        layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
          shape { dim: 2 dim: 3 } data_filler { value: 2 } data_filler { type: "gaussian" } } }
        layer { name: "e" type: "Eltwise" bottom: "x" bottom: "y" top: "z"
          eltwise_param { operation: PROD } }
        """
    )
    net = caffe.Net(str(path), caffe.TEST)
    seen = [net.forward()["z"].copy() for _ in range(2)]
    assert (seen[0] != seen[1]).all()
    np.testing.assert_allclose(net.blobs["y"].data * 2, seen[1])
