"""MemoryData: rows in turn, and what is written into its arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from open_sources import SINK, goes_on, opened, raised

from netspec import caffe
from netspec.sources import Source
from netspec.sources.readers.memory_data import MemoryReader


def memory(param: str = "batch_size: 2 channels: 3 height: 4 width: 5", more: str = "") -> Source:
    return opened(
        f'layer {{ name: "m" type: "MemoryData" top: "data" top: "label" {more} '
        f"memory_data_param {{ {param} }} }}"
    )


def rows(count: int, shape: tuple[int, ...] = (3, 4, 5)) -> NDArray[np.float32]:
    size = (count, *(1 for _ in shape))
    return np.arange(count, dtype=np.float32).reshape(size) * np.ones(shape, np.float32)


def with_arrays(data: Any, labels: Any) -> MemoryReader:
    source = memory()
    assert isinstance(source, MemoryReader)
    source.set_arrays(data, labels)
    return source


def test_memory_hands_out_rows_in_turn() -> None:
    source = with_arrays(rows(6), np.arange(6))
    assert source.tops == {"data": (2, 3, 4, 5), "label": (2,)}
    assert source.batches == 3
    assert source.describe() == "MemoryData: 6 rows in memory"
    for expected in ([0, 1], [2, 3], [4, 5], [0, 1]):
        batch = source.next()
        assert batch["label"].tolist() == expected
        np.testing.assert_array_equal(batch["data"], rows(6)[expected])
        for array in batch.values():
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
    # New arrays begin with their first row; labels may have the shape that pycaffe gives them.
    source.set_arrays(rows(2) + 7, np.array([8, 9]).reshape(2, 1, 1, 1))
    for _ in range(2):
        batch = source.next()
        assert batch["label"].tolist() == [8, 9]
        assert batch["data"][:, 2, 3, 4].tolist() == [7, 8]


def test_memory_feeds_what_is_written_into_its_arrays() -> None:
    data, labels = rows(2), np.zeros(2, np.float32)
    source = with_arrays(data, labels)
    first = source.next()
    data += 5
    labels += 1
    second = source.next()
    assert (first["data"][1, 0, 0, 0], second["data"][1, 0, 0, 0]) == (1, 6)
    assert (first["label"].tolist(), second["label"].tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_memory_goes_on_where_its_state_was_taken(taken: int) -> None:
    goes_on(lambda seed: with_arrays(rows(6), np.arange(6)), taken)


def test_memory_refuses_the_state_of_other_arrays() -> None:
    state = with_arrays(rows(6), np.arange(6)).state()
    assert "the state is of arrays with 6 rows, but there are 2" in raised(
        lambda: with_arrays(rows(2), np.arange(2)).restore(state)
    )


MEMORY_MISTAKES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: memory().next(),
        "has no arrays yet; hand them in first: net.set_input_arrays(data, labels)",
    ),
    (lambda: memory().batches, "has no arrays yet; hand them in first: net.set_input_arrays(data"),
    (lambda: with_arrays(rows(3), np.zeros(3)), "data has 3 rows; needs a multiple of batch_size"),
    (lambda: with_arrays(rows(0), np.zeros(0)), "data has 0 rows; needs a multiple of batch_size"),
    (lambda: with_arrays(rows(2, (3, 5, 4)), [0, 1]), "data is 2x3x5x4; needs n x 3x4x5"),
    (lambda: with_arrays(rows(2, (60,)), [0, 1]), "data is 2x60; needs n x 3x4x5"),
    (lambda: with_arrays(rows(2), [0, 1, 2]), "labels are 3; data has 2 rows, so they must be 2"),
    (lambda: with_arrays(rows(2), ["a", "b"]), "labels holds <U1 values; numbers expected"),
    (
        lambda: memory("batch_size: 2 channels: 3 height: 4"),
        "batch_size, channels, height and width are 2x3x4x0; all must be positive",
    ),
    (
        lambda: memory(more="transform_param { scale: 2 }"),
        "does not transform arrays: transform_param has no meaning here",
    ),
]


@pytest.mark.parametrize(("act", "message"), MEMORY_MISTAKES)
def test_memory_mistakes(act: Callable[[], object], message: str) -> None:
    assert raised(act).startswith(f'net.prototxt:1: layer "m" (MemoryData): {message}')


MEMORY_NET = """
layer { name: "m" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }
layer { name: "p" type: "Power" bottom: "data" top: "y" power_param { scale: 2 } }
"""


def test_memory_feeds_a_net(tmp_path: Path) -> None:
    """Nothing is read before it is asked for: arrays may come, and be written into, at any time."""
    path = tmp_path / "net.prototxt"
    path.write_text(MEMORY_NET)
    net = caffe.Net(str(path), caffe.TEST)
    message = raised(net.forward)
    assert message.startswith(f'{path}:2: layer "m" (MemoryData): has no arrays yet; hand them in')
    data = rows(4)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    for i in (0, 2, 0):
        assert net.forward()["y"][:, 0, 0, 0].tolist() == [2 * i, 2 * i + 2]
    assert net.blobs["label"].data.tolist() == [0, 1]
    data[2:] = 9
    assert net.forward()["y"][:, 0, 0, 0].tolist() == [18, 18]
    message = raised(lambda: net.set_input_arrays(data[:3], np.zeros(3)))
    assert "data has 3 rows; needs a multiple of batch_size, 2" in message


def test_arrays_for_a_net_that_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(SINK)
    net = caffe.Net(str(path), caffe.TEST)
    assert raised(lambda: net.set_input_arrays(rows(2), np.zeros(2))) == (
        f'{path}:2: layer "in" (Input): set_input_arrays feeds a net whose first layer is a '
        "MemoryData"
    )
