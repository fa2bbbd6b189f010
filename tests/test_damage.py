"""Files that were cut or changed are refused with a message, or hold other numbers: no more."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from sweeps import first_of_each

from netspec.errors import WeightsError
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.runtime.module import Net
from netspec.solving.snapshots.solverstate import State, put_state, read_state
from netspec.sources.fed_net import compile_net
from netspec.weights.caffemodel import copy_into, read_weights, write_weights

PLACES = 200

NET = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer {
  name: "a/b" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer {
  name: "c" type: "InnerProduct" bottom: "a" top: "c"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
"""


def tiny() -> Net:
    parsed = parse_net(NET, "net.prototxt")
    return compile_net(graph_of(parsed, state_of(parsed, TEST)))


def write_net(path: Path, net: Net) -> None:
    write_weights(path, net.shapes, net.arrays(), net.arrays())


def read_net(path: Path, net: Net) -> None:
    assert copy_into(net, read_weights(path), skip_misfits=True).layers


def write_run(path: Path, net: Net) -> None:
    history = tuple(np.asarray(array) for array in net.arrays().values())
    put_state(path, State(7, "tiny_iter_7.caffemodel", history, 2), path.suffix == ".h5")


def read_run(path: Path, net: Net) -> None:
    assert read_state(path).iteration >= 0


class Kind(NamedTuple):
    """A kind of file: how it is written and read."""

    name: str
    write: Callable[[Path, Net], None]
    read: Callable[[Path, Net], None]


KINDS = [
    Kind("x.caffemodel", write_net, read_net),
    Kind("x.caffemodel.h5", write_net, read_net),
    Kind("x.solverstate", write_run, read_run),
    Kind("x.solverstate.h5", write_run, read_run),
]


def cut(data: bytes) -> Iterator[bytes]:
    """The first bytes of a file, up to ``PLACES`` places that are always the same."""
    for size in np.random.default_rng(1).choice(len(data), min(PLACES, len(data)), replace=False):
        yield data[:size]


def flipped(data: bytes) -> Iterator[bytes]:
    """A file with one bit or one byte changed at each of ``PLACES`` places."""
    draw = np.random.default_rng(2)
    for i in range(PLACES):
        damaged = bytearray(data)
        damaged[draw.integers(len(data))] ^= 1 << draw.integers(8) if i % 2 else 255
        yield bytes(damaged)


def emptied(data: bytes) -> Iterator[bytes]:
    """A file of which a part, from a place on, was never written: it is zeros."""
    for start in np.random.default_rng(3).integers(len(data), size=PLACES):
        yield data[:start] + bytes(len(data) - start)


DAMAGES = [cut, flipped, emptied]


@pytest.mark.parametrize(
    "damage", first_of_each(range(len(DAMAGES))), ids=[each.__name__ for each in DAMAGES]
)
@pytest.mark.parametrize(
    "kind", first_of_each(range(len(KINDS))), ids=[kind.name for kind in KINDS]
)
def test_damage_is_told(tmp_path: Path, kind: int, damage: int) -> None:
    """Every error is a WeightsError that names the file.

    In a process of its own: HDF5's library may write where it should not when it reads such files.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(tmp_path), str(kind), str(damage)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def tell(folder: Path, kind: Kind, damage: Callable[[bytes], Iterator[bytes]]) -> None:
    net = tiny()
    kind.write(folder / kind.name, net)
    path = folder / f"damaged-{kind.name}"
    messages = []
    for data in damage((folder / kind.name).read_bytes()):
        path.write_bytes(data)
        try:
            kind.read(path, net)
        except WeightsError as error:
            messages.append(str(error))
    assert messages
    assert all(m.startswith(f"{path}: ") and m.isprintable() for m in messages)


@pytest.mark.parametrize(
    "settings",
    [{}, {"chunks": (1000,)}, {"chunks": (1000,), "compression": "gzip"}],
    ids=["whole", "chunks", "packed"],
)
def test_sizes_that_a_file_only_states(tmp_path: Path, settings: dict[str, object]) -> None:
    """A blob that would fill all memory is refused before it is read."""
    path = tmp_path / "x.caffemodel.h5"
    with h5py.File(path, "w") as file:
        blob = file.create_dataset("data/c/0", (2**40,), np.float32, **settings)
        if settings:
            blob[:1000] = 1
    message = f'layer "c": is damaged: a blob of {2**42} bytes is stored in '
    with pytest.raises(WeightsError, match=rf"^{path}: {message}\d+$"):
        read_weights(path)


@pytest.mark.parametrize("settings", [{"chunks": (2, 3)}, {"compression": "gzip"}])
def test_packed_blobs_are_read(tmp_path: Path, settings: dict[str, object]) -> None:
    path = tmp_path / "x.caffemodel.h5"
    numbers = np.arange(300, dtype=np.float64).reshape(3, 100)
    with h5py.File(path, "w") as file:
        file.create_dataset("data/c/0", data=numbers, **settings)
        file["data/c/1"] = numbers[0].astype(">f2")
        file.create_dataset("data/c/2", (0, 3), np.float32)
    blobs = read_weights(path).layers["c"]
    assert np.array_equal(blobs[0].array, numbers)
    assert np.array_equal(blobs[1].array, numbers[0])
    assert blobs[2].array.shape == (0, 3)


if __name__ == "__main__":
    tell(Path(sys.argv[1]), KINDS[int(sys.argv[2])], DAMAGES[int(sys.argv[3])])
