"""HDF5 files for tests to read, and sources that they open."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Source, open_source


def opened(layer: str, seed: int | None = 7) -> Source:
    """The source of a data layer written as prototxt."""
    net = parse_net(layer, "net.prototxt")
    return open_source(net.message.layer[0], TEST, seed, net.places[0])


def write_rows(
    path: Path, first: int, count: int, shape: tuple[int, ...] = (2, 3), **more: object
) -> None:
    """A file whose row r holds the number first + r, in ``data`` and in ``label``."""
    numbers = np.arange(first, first + count)
    with h5py.File(path, "w") as file:
        file["data"] = np.broadcast_to(numbers.reshape(-1, *(1 for _ in shape)), (count, *shape))
        file["label"] = numbers.astype(np.float64)
        for name, value in more.items():
            if name in file:
                del file[name]
            file[name] = value


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows 0..4 in a.h5, 5..7 in b.h5 and a list of both."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.h5", 0, 5)
    write_rows(tmp_path / "b.h5", 5, 3)
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    return tmp_path
