"""HDF5Output: what is written, when, and what cannot be."""

import re
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from open_sources import SINK, opened, raised
from open_sources import folder as folder

import netspec
from netspec import caffe
from netspec.errors import LayerError

X = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
T = np.array([7, 8], np.float32)


def sink(text: str = SINK) -> netspec.Net:
    Path("net.prototxt").write_text(text)
    return netspec.load("net.prototxt")


def stored() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with h5py.File("sub/rows.h5", "r") as file:
        assert sorted(file) == ["data", "label"]
        assert file["data"].dtype == file["label"].dtype == np.float32
        return file["data"][()], file["label"][()]


@pytest.mark.differs("hdf5-output")
def test_output_is_written_at_each_forward(folder: Path) -> None:
    net = sink()
    assert not Path("sub").exists()
    for count in (1, 2, 3):
        net(x=X + count, t=T + count)
        data, label = stored()
        assert data.shape == (2 * count, 3, 4, 5)
        # Caffe's blobs have four axes here.
        assert label.shape == (2 * count, 1, 1, 1)
        for i in range(count):
            np.testing.assert_array_equal(data[2 * i : 2 * i + 2], 2 * (X + i + 1))
            assert label.ravel()[2 * i : 2 * i + 2].tolist() == [8 + i, 9 + i]
    # Another number of rows; nothing else lies beside the file.
    net(x=X[:1], t=T[:1])
    assert len(stored()[0]) == 7
    assert [path.name for path in Path("sub").iterdir()] == ["rows.h5"]
    # Another net begins the file anew.
    sink()(x=X, t=T)
    assert len(stored()[0]) == 2


def test_output_inside_jit_and_loops(folder: Path) -> None:
    net = sink()
    run = jax.jit(lambda x: net(x=x, t=T)["y"])
    for i in range(3):
        run(X + i).block_until_ready()
    assert stored()[0][:, 0, 0, 0].tolist() == [0, 120, 2, 122, 4, 124]
    jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, s: s + net(x=X, t=T)["y"].sum(), 0.0))(
        2
    ).block_until_ready()
    assert len(stored()[0]) == 10


def test_output_has_no_gradient(folder: Path) -> None:
    net = sink()
    loss = jax.jit(jax.value_and_grad(lambda x: jnp.sum(net(x=x, t=T)["y"])))
    value, gradient = loss(X)
    assert value == 2 * X.sum()
    np.testing.assert_array_equal(gradient, np.full_like(X, 2))
    assert len(stored()[0]) == 2


def test_output_is_not_written_on_the_way_back(folder: Path) -> None:
    Path("net.prototxt").write_text(f"force_backward: true {SINK}")
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    net.forward()
    net.backward()
    assert len(stored()[0]) == 2


def test_output_of_large_rows(folder: Path) -> None:
    """Large arrays reach the host by another road than small ones."""
    text = SINK.replace("dim: 4 dim: 5", "dim: 1000 dim: 700")
    x = np.ones((2, 3, 1000, 700), np.float32)
    sink(text)(x=x, t=T)
    assert stored()[0].sum() == 2 * x.size


def test_output_that_cannot_be_written(folder: Path) -> None:
    net = sink()
    net(x=X, t=T)
    message = raised(lambda: net(x=X.reshape(2, 3, 5, 4), t=T))
    assert message == (
        'net.prototxt:5: layer "out" (HDF5Output): sub/rows.h5: a row of "data" is 3x4x5, '
        "but now it is 3x5x4"
    )
    # Neither data set has grown; the next rows fit again.
    net(x=X, t=T)
    assert [len(array) for array in stored()] == [4, 4]
    with h5py.File("sub/rows.h5", "w") as file:
        file["data"] = X
    message = raised(lambda: net(x=X, t=T))
    assert message.endswith('no data set "label": another program wrote this file')
    Path("sub/rows.h5").unlink()
    assert raised(lambda: net(x=X, t=T)).endswith("sub/rows.h5: no such file")
    Path("sub").rmdir()
    Path("sub").write_text("a file")
    assert "(HDF5Output): " in raised(lambda: sink()(x=X, t=T))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('file_name: "sub/rows.h5"', "", "file_name must be given"),
        ("shape { dim: 2 } }", "shape { dim: 3 } }", "data has 2 rows, but label has 3"),
        ("shape { dim: 2 } }", "shape { } }", "a bottom is one number; rows expected"),
    ],
)
def test_output_settings_that_cannot_work(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SINK
    with pytest.raises(LayerError, match=re.escape(f'"out" (HDF5Output): {message}')):
        sink(SINK.replace(old, new))


def test_output_is_what_hdf5_data_reads(folder: Path) -> None:
    sink()(x=X, t=T)
    Path("list.txt").write_text("sub/rows.h5\n")
    source = opened(
        'layer { type: "HDF5Data" top: "data" top: "label" '
        'hdf5_data_param { source: "list.txt" batch_size: 2 } }'
    )
    np.testing.assert_array_equal(source.next()["data"], 2 * X)
