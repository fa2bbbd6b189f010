"""What was written into a net's arrays stays, whatever is read or run afterwards."""

from pathlib import Path

import numpy as np
import pytest

from netspec import caffe

TWO = """
layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "a" type: "InnerProduct" bottom: "d" top: "a" inner_product_param { num_output: 2 } }
"""
LAST = """
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
"""
ALONE = 'layer { name: "i" type: "Input" top: "a" input_param { shape { dim: 1 dim: 2 } } }'
SOLVER = 'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 9 snapshot_prefix: "run"'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("held", [False, True])
def test_weights_that_a_file_does_not_hold_stay_as_written(held: bool) -> None:
    Path("net.prototxt").write_text(TWO + LAST)
    Path("alone.prototxt").write_text(ALONE + LAST)
    caffe.Net("alone.prototxt", caffe.TEST).save("b.caffemodel")
    net = caffe.Net("net.prototxt", caffe.TEST)
    view = net.params["a"][0].data
    view[...] = 7
    if not held:
        del view
    net.copy_from("b.caffemodel")
    net.blobs["d"].data[...] = 1
    net.forward()
    assert net.blobs["a"].data.tolist() == [[14, 14]]


def test_no_step_leaves_what_was_fed() -> None:
    loss = 'layer { name: "l" type: "Reduction" bottom: "a" top: "l" loss_weight: 1 }'
    Path("net.prototxt").write_text(TWO + loss)
    Path("solver.prototxt").write_text(SOLVER)
    solver = caffe.SGDSolver("solver.prototxt")
    solver.net.blobs["d"].data[...] = 1
    solver.step(1)
    solver.net.blobs["d"].data[...] = 5
    solver.step(0)
    np.testing.assert_array_equal(solver.net.blobs["d"].data, [[5, 5]])


def test_a_shared_array_is_one_though_its_owner_has_no_part_in_the_other_net() -> None:
    """Layer a owns what b learns; the other net has b alone."""
    tied = 'param { name: "w" } param { name: "c" }'
    Path("net.prototxt").write_text(
        TWO.replace("num_output: 2 } }", f"num_output: 2 }} {tied} }}")
        + LAST.replace("num_output: 2 } }", f"num_output: 2 }} {tied} }}")
    )
    Path("alone.prototxt").write_text(ALONE + LAST)
    net, other, third = (
        caffe.Net(f"{name}.prototxt", caffe.TEST) for name in ("net", "alone", "alone")
    )
    net.share_with(other)
    third.params["b"][0].data[...] = 5
    third.save("five.caffemodel")
    net.copy_from("five.caffemodel")
    for shown in (net.params["a"], net.params["b"], other.params["b"]):
        np.testing.assert_array_equal(shown[0].data, np.full((2, 2), 5))
    net.blobs["d"].data[...] = 1
    net.forward()
    assert net.blobs["a"].data.tolist() == [[10, 10]]


def test_what_is_written_into_a_test_net_counts_in_its_tests() -> None:
    """In a layer that the net in training does not have."""
    own = (
        'layer { name: "o" type: "InnerProduct" bottom: "a" top: "o" include { phase: TEST } '
        "inner_product_param { num_output: 1 } }"
    )
    loss = (
        'layer { name: "l" type: "Reduction" bottom: "a" top: "l" loss_weight: 1 '
        "include { phase: TRAIN } }"
    )
    source = (
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { '
        "shape { dim: 1 dim: 2 } } }"
    )
    Path("net.prototxt").write_text(source + TWO[TWO.index('layer { name: "a"') :] + own + loss)
    Path("solver.prototxt").write_text(f"{SOLVER} test_iter: 1 test_interval: 1")
    solver = caffe.SGDSolver("solver.prototxt")
    (net,) = solver.test_nets
    net.params["o"][1].data[...] = 9
    solver.step(1)
    assert solver._loop.test(0).outputs["o"].ravel().tolist() == [9]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_diffs_in_place_of_another_rank(one_by_one: bool) -> None:
    """With callbacks each layer is a pass of its own, which begins with what the blob holds."""
    Path("net.prototxt").write_text("""
    force_backward: true
    layer { name: "d" type: "Input" top: "d"
            input_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } } }
    layer { name: "s" type: "Power" bottom: "d" top: "x" power_param { scale: 2 } }
    layer { name: "p" type: "InnerProduct" bottom: "x" top: "x"
            inner_product_param { num_output: 3 } }
    layer { name: "q" type: "Power" bottom: "x" top: "o" power_param { scale: 3 } }
    """)
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["p"][0].data[...] = np.arange(9).reshape(3, 3)
    net.blobs["d"].data[...] = 1
    if one_by_one:
        net.before_backward(lambda layer: None)
    net.forward()
    net.blobs["o"].diff[...] = 1
    net.backward()
    assert net.blobs["d"].diff.ravel().tolist() == [54, 72, 90] * 2
    np.testing.assert_array_equal(net.params["p"][0].diff, np.full((3, 3), 12))
