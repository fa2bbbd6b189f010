"""Gradients of recurrent nets in pycaffe: they begin with the state that the pass began with."""

from pathlib import Path

import numpy as np
import pytest

from netspec import caffe

NET = """
force_backward: true
layer { name: "d" type: "Input" top: "d" top: "c"
        input_param { shape { dim: 2 dim: 1 dim: 2 } shape { dim: 2 dim: 1 } } }
layer { name: "r" type: "RNN" bottom: "d" bottom: "c" top: "h"
        recurrent_param { num_output: 2 weight_filler { type: "constant" value: 0.5 } } }
layer { name: "i" type: "InnerProduct" bottom: "h" top: "o"
        inner_product_param { num_output: 1 axis: 2 weight_filler { type: "constant" value: 1 } } }
layer { name: "l" type: "Reduction" bottom: "o" top: "l" loss_weight: 1 }
"""


def gradients(net: caffe.Net) -> list[np.ndarray]:
    net.clear_param_diffs()
    net.backward()
    return [net.blobs["d"].diff.copy(), *(blob.diff.copy() for blob in net.params["r"])]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("iter_size", [1, 2])
def test_backward_after_a_step_begins_where_its_pass_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: int, iter_size: int
) -> None:
    """A step whose rate is next to nothing leaves what as many forward passes leave."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: 1e-20 lr_policy: "fixed" max_iter: 9 iter_size: {iter_size}'
    )
    solver = caffe.SGDSolver("solver.prototxt")
    plain = caffe.Net("net.prototxt", caffe.TRAIN)
    for net in (solver.net, plain):
        net.blobs["d"].data[...] = np.arange(4).reshape(2, 1, 2) / 10 + 0.1
        net.blobs["c"].data[...] = 1
    solver.step(passes)
    for _ in range(passes * iter_size):
        plain.forward()
    np.testing.assert_allclose(solver.net.blobs["h"].data, plain.blobs["h"].data, rtol=1e-6)
    for got, want in zip(gradients(solver.net), gradients(plain), strict=True):
        assert np.abs(want).max() > 0
        np.testing.assert_allclose(got, want, rtol=1e-5)
