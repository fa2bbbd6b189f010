from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from click.testing import CliRunner

import netspec
from netspec import caffe
from netspec.cli import main
from netspec.errors import LayerError

X = np.array([[1, -2], [3, 4], [5, -6], [7, 8], [-9, 0]], np.float32)
Y = np.arange(5, dtype=np.float32)
KEEP = np.array([0, 1, 0, -0.5, 1], np.float32)
NET = """
layer { name: "in" type: "Input" top: "x" top: "y" top: "keep"
  input_param { shape { dim: 5 dim: 2 } shape { dim: 5 } shape { dim: 5 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 2 bias_term: false
    weight_filler { type: "constant" value: 1 } } }
layer { name: "filter" type: "Filter" bottom: "h" bottom: "y" bottom: "keep" top: "kept" top: "y2" }
layer { name: "sum" type: "Reduction" bottom: "kept" top: "loss" loss_weight: 1
  reduction_param { operation: SUMSQ } }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def test_items_are_kept(path: Path) -> None:
    blobs = netspec.load(path)(x=X, y=Y, keep=KEEP[:, None])
    sums = X.sum(1)
    assert blobs["kept"].tolist() == [[s, s] for s in sums[[1, 3, 4]]]
    assert blobs["y2"].tolist() == [1, 3, 4]
    assert float(blobs["loss"]) == 2 * float((sums[[1, 3, 4]] ** 2).sum())


@pytest.mark.parametrize("count", [0, 2, 5])
def test_any_number_may_be_kept(path: Path, count: int) -> None:
    blobs = netspec.load(path)(x=X, y=Y, keep=(count > Y).astype(np.float32)[:, None])
    assert blobs["kept"].shape == (count, 2)


def test_gradients_of_what_is_dropped_are_zero(path: Path) -> None:
    net = caffe.Net(str(path), caffe.TEST)
    for name, array in (("x", X), ("y", Y), ("keep", KEEP[:, None])):
        net.blobs[name].data[...] = array
    net.forward()
    net.backward()
    kept = (KEEP != 0)[:, None]
    h_diff = np.where(kept, 2 * X.sum(1, keepdims=True), 0) * np.ones(2)
    assert net.blobs["h"].diff.tolist() == h_diff.tolist()
    assert net.params["ip"][0].diff.tolist() == (h_diff.T @ X).tolist()


def test_a_net_that_filters_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("rows.h5", "w") as file:
        file.update({"x": X, "y": Y, "keep": KEEP[:, None]})
    Path("rows.txt").write_text("rows.h5\n")
    source = 'layer { name: "in" type: "HDF5Data" top: "x" top: "y" top: "keep" '
    source += 'hdf5_data_param { source: "rows.txt" batch_size: 3 } }'
    Path("net.prototxt").write_text(source + NET[NET.index('layer { name: "ip"') :])
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1e-3 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s"'
    )
    result = CliRunner().invoke(main, ["solve", "solver.prototxt"])
    assert result.exit_code == 0, result.output
    assert result.output.count("op by op") == 1
    assert 'not compiled, as what layer "filter" (Filter) keeps depends on data' in result.output
    first = X[:3][KEEP[:3] != 0]
    gradient = 2 * (first.sum(1, keepdims=True) * np.ones(2)).T @ first
    trained = caffe.Net("net.prototxt", "s_iter_1.caffemodel", caffe.TEST)
    want = 1 - 1e-3 * gradient
    np.testing.assert_allclose(trained.params["ip"][0].data, want, rtol=1e-6)


def test_a_selector_has_no_gradient(tmp_path: Path) -> None:
    """Below it something learns: Caffe ends there, too."""
    path = tmp_path / "net.prototxt"
    path.write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 1 } } }
        layer { name: "s" type: "Scale" bottom: "x" top: "s" }
        layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "y" }
        layer { name: "l" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }
        """)
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["x"].data[...] = [[0], [2], [3]]
    net.forward()
    assert net.blobs["y"].data.tolist() == [[2], [3]]
    with pytest.raises(LayerError, match='no gradient goes to its bottom "s"'):
        net.backward()


def test_inside_jit_it_says_so(path: Path) -> None:
    net = netspec.load(path)
    with pytest.raises(LayerError, match=r'"filter" \(Filter\): its output\'s size depends on dat'):
        jax.jit(lambda keep: net(x=X, y=Y, keep=keep)["kept"])(KEEP[:, None])
