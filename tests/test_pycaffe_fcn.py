"""What people do with FCNs in pycaffe: write the net, operate on it, train, score, infer.

The calls are those of the published FCN scripts, on nets and sets small enough for a test.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_sets import SIZE, write_sbd, write_voc

from netspec import caffe
from netspec.cli import main

CLASSES = 21

NET = """
import caffe
from caffe import layers as L, params as P
from caffe.coord_map import crop


def conv_relu(bottom, nout, ks=3, stride=1, pad=1):
    conv = L.Convolution(bottom, kernel_size=ks, stride=stride, num_output=nout, pad=pad,
        weight_filler=dict(type="xavier"),
        param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)])
    return conv, L.ReLU(conv, in_place=True)


def fcn(split):
    n = caffe.NetSpec()
    settings = dict(split=split, mean=(104.0, 116.7, 122.7), seed=1337)
    if split == "train":
        settings["sbdd_dir"], kind = "sbd", "SBDDSegDataLayer"
    elif split == "deploy":
        kind = None
    else:
        settings["voc_dir"], kind = "voc", "VOCSegDataLayer"
    if kind is None:
        n.data = L.Input(shape=[dict(dim=[1, 3, 20, 28])])
    else:
        n.data, n.label = L.Python(module="voc_layers", layer=kind, ntop=2,
            param_str=str(settings))
    n.conv1, n.relu1 = conv_relu(n.data, 4, pad=10)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.fc6, n.relu6 = conv_relu(n.pool1, 6, ks=3, pad=0)
    n.drop6 = L.Dropout(n.relu6, dropout_ratio=0.5, in_place=True)
    n.score_fr = L.Convolution(n.drop6, num_output=21, kernel_size=1, pad=0,
        param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)])
    n.upscore = L.Deconvolution(n.score_fr,
        convolution_param=dict(num_output=21, kernel_size=4, stride=2, bias_term=False),
        param=[dict(lr_mult=0)])
    n.score = crop(n.upscore, n.data)
    if kind is not None:
        n.loss = L.SoftmaxWithLoss(n.score, n.label,
            loss_param=dict(normalize=False, ignore_label=255))
    return n.to_proto()


if __name__ == "__main__":
    for split in ("train", "seg11valid", "deploy"):
        with open(split + ".prototxt", "w") as f:
            f.write(str(fcn(split)))
"""

SURGERY = """
import numpy as np


def bilinear(size):
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    og = np.ogrid[:size, :size]
    return (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)


def interp(net, layers):
    for layer in layers:
        m, k, h, w = net.params[layer][0].data.shape
        assert m == k and h == w
        net.params[layer][0].data[range(m), range(k), :, :] = bilinear(h)


def transplant(new_net, net):
    for name in net.params:
        if name not in new_net.params:
            continue
        for i in range(len(net.params[name])):
            new_net.params[name][i].data.flat = net.params[name][i].data.flat
"""

SCORE = """
import numpy as np


def hist_of(net, images, layer="score", gt="label"):
    n = net.blobs[layer].channels
    hist, loss = np.zeros((n, n)), 0
    for _ in images:
        net.forward()
        truth = net.blobs[gt].data[0, 0].flatten()
        made = net.blobs[layer].data[0].argmax(0).flatten()
        known = (truth >= 0) & (truth < n)
        hist += np.bincount(n * truth[known].astype(int) + made[known],
            minlength=n * n).reshape(n, n)
        loss += net.blobs["loss"].data.flat[0]
    return hist, loss / len(images)


def seg_tests(solver, images):
    solver.test_nets[0].share_with(solver.net)
    hist, loss = hist_of(solver.test_nets[0], images)
    accuracy = np.diag(hist).sum() / hist.sum()
    print(solver.iter, int(hist.sum()), round(float(accuracy), 4), loss)
"""

SOLVE = """
import sys

import numpy as np

import caffe
import score
import surgery

caffe.set_device(int(sys.argv[1]))
caffe.set_mode_gpu()
solver = caffe.SGDSolver("solver.prototxt")
solver.net.copy_from("base.caffemodel")
surgery.interp(solver.net, [k for k in solver.net.params.keys() if "up" in k])
val = np.loadtxt("voc/ImageSets/Segmentation/seg11valid.txt", dtype=str, ndmin=1)
for _ in range(3):
    solver.step(4)
    score.seg_tests(solver, val)
solver.net.save("trained.caffemodel")
"""

REGIME = """
train_net: "train.prototxt" test_net: "seg11valid.prototxt" test_iter: 1 test_interval: 999999
lr_policy: "fixed" base_lr: 1e-5 momentum: 0.9 max_iter: 100000 weight_decay: 0.0005
test_initialization: false random_seed: 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.setenv("GLOG_minloglevel", "1")
    write_sbd(Path("sbd"))
    write_voc(Path("voc"))
    scripts = {"net": NET, "surgery": SURGERY, "score": SCORE, "solve": SOLVE}
    for name, script in scripts.items():
        Path(f"{name}.py").write_text(script)
    Path("solver.prototxt").write_text(REGIME)
    caffe.set_random_seed(0)
    run("net.py")
    yield tmp_path
    for name in scripts:
        sys.modules.pop(name, None)
    caffe.uninstall()


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["run", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_net_is_written() -> None:
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    assert list(net.params) == ["conv1", "fc6", "score_fr", "upscore"]
    assert net.blobs["score"].shape == (1, CLASSES, *SIZE)
    text = Path("train.prototxt").read_text()
    assert "offset: " in text
    assert "voc_layers" in text


@pytest.mark.slow
def test_training_and_scoring() -> None:
    caffe.Net("deploy.prototxt", caffe.TEST).save("base.caffemodel")
    rows = [line.split() for line in run("solve.py", "0").splitlines()]
    assert [int(row[0]) for row in rows] == [4, 8, 12]
    assert {int(row[1]) for row in rows} == {SIZE[0] * SIZE[1]}
    losses = [float(row[3]) for row in rows]
    assert losses[2] < losses[0]
    # What was scored is the net in training: one forward of the weights it left gives the same.
    net = caffe.Net("seg11valid.prototxt", "trained.caffemodel", caffe.TEST)
    assert float(net.forward()["loss"]) == pytest.approx(losses[2], rel=1e-5)
    up = net.params["upscore"][0].data
    np.testing.assert_allclose(up[3, 3, 0], np.array([1, 3, 3, 1]) / 16)
    assert (up[3, 4] == 0).all()


FULLY_CONNECTED = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 20 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 10 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 8 stride: 8 } }
layer { name: "crop" type: "Slice" bottom: "pool1" top: "a" top: "b"
  slice_param { axis: 2 slice_point: 3 } }
layer { name: "crop2" type: "Slice" bottom: "a" top: "c" top: "d"
  slice_param { axis: 3 slice_point: 3 } }
layer { name: "fc6" type: "InnerProduct" bottom: "c" top: "fc6"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
"""


def test_fully_connected_weights_become_a_convolution() -> None:
    surgery = import_module("surgery")
    Path("fc.prototxt").write_text(FULLY_CONNECTED)
    old = caffe.Net("fc.prototxt", caffe.TEST)
    new = caffe.Net("deploy.prototxt", caffe.TEST)
    surgery.transplant(new, old)
    weight = old.params["fc6"][0].data
    assert new.params["fc6"][0].data.shape == (6, 4, 3, 3)
    assert np.array_equal(new.params["fc6"][0].data, weight.reshape(6, 4, 3, 3))
    new.forward(data=np.ones((1, 3, *SIZE)))
    old.forward(data=np.ones((1, 3, *SIZE)))
    patch = new.blobs["pool1"].data[0, :, 4:7, 4:7]
    np.testing.assert_allclose(
        new.blobs["fc6"].data[0, :, 4, 4],
        np.maximum(weight @ patch.ravel() + old.params["fc6"][1].data, 0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_layer_s_first_rows_and_channels_are_transplanted() -> None:
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    base = np.random.default_rng(0).standard_normal((4, 2, 3, 3))
    net.params["conv1"][0].data[:, :2] = base
    net.params["conv1"][0].data[:, 2] = np.mean(base, axis=1)
    net.params["score_fr"][1].data[:5][...] = 1
    weight = net.params["conv1"][0].data
    np.testing.assert_allclose(weight[:, 2], base.mean(1), rtol=1e-5)
    net.forward(data=np.zeros((1, 3, *SIZE)))
    assert (net.blobs["score_fr"].data[0, :5] >= 1).all()


def test_inference_on_images_of_any_size() -> None:
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    for size in ((20, 28), (33, 17), (20, 28)):
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        array = np.array(Image.fromarray(picture), dtype=np.float32)[:, :, ::-1]
        array = (array - np.array((104.0, 116.7, 122.7))).transpose((2, 0, 1))
        net.blobs["data"].reshape(1, *array.shape)
        net.blobs["data"].data[...] = array
        net.forward()
        out = net.blobs["score"].data[0].argmax(axis=0)
        assert out.shape == size
        assert net.blobs["score"].shape == net.blobs["score"].diff.shape == (1, CLASSES, *size)
