import re
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from click.testing import CliRunner
from flax import nnx

import netspec
from netspec import caffe
from netspec.cli.main import main
from netspec.errors import LayerError

MODULE = """
import caffe
import numpy as np


class Times(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff


class HalfSquare(caffe.Layer):
    # Keeps what forward found for backward, as pycaffe's example of a loss does.
    def setup(self, bottom, top):
        assert len(bottom) == 2

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.difference * top[0].diff / bottom[i].num


class Phase(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape()

    def forward(self, bottom, top):
        top[0].data[()] = self.phase


class Square(caffe.Layer):
    # Reshapes once and for all; forward imports what backward needs.
    def setup(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        import caffe

        self.phases = caffe.TRAIN, caffe.TEST
        top[0].data[...] = top[0].data**2 if self.param_str == "in place" else bottom[0].data**2

    def backward(self, top, propagate_down, bottom):
        assert self.phase in self.phases
        root = np.sqrt(bottom[0].data) if self.param_str == "in place" else bottom[0].data
        bottom[0].diff[...] = 2 * root * top[0].diff


class Log(caffe.Layer):
    lines = []

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(1)

    def forward(self, bottom, top):
        self.lines.append(bottom[0].data.sum())

    def backward(self, top, propagate_down, bottom):
        pass


class Told(HalfSquare):
    told = []

    def backward(self, top, propagate_down, bottom):
        self.told.append(list(propagate_down))
        for blob in bottom:
            blob.diff[...] = 9
        HalfSquare.backward(self, top, propagate_down, bottom)


class Weigh(Times):
    def setup(self, bottom, top):
        self.blobs.add_blob(1, 3)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = [[1, 2, 4]]

    def forward(self, bottom, top):
        weight, bias = (blob.data for blob in self.blobs)
        top[0].data[...] = weight * bottom[0].data + bias

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] = np.sum(top[0].diff * bottom[0].data, 0)
        for row in top[0].diff:
            self.blobs[1].diff[0] += row.sum()
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff


class Count(Times):
    # As often as it ran: what it learned of its data.
    def setup(self, bottom, top):
        self.blobs.add_blob(1)

    def forward(self, bottom, top):
        self.blobs[0].data[0] += 1
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff


class Parameter(Times):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0

    def forward(self, bottom, top):
        pass

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] = 1


class Careless(Times):
    def setup(self, bottom, top):
        self.runs = 0

    def reshape(self, bottom, top):
        if self.param_str != "shapeless":
            Times.reshape(self, bottom, top)

    def forward(self, bottom, top):
        self.runs += 1
        if self.param_str == "grows":
            top[0].reshape(2, int(bottom[0].data.max()))
        elif self.param_str == "adds":
            self.blobs.add_blob(3)
        elif self.param_str == "replaces":
            top[0].data = bottom[0].data
        elif self.param_str == "second" and self.runs == 2:
            raise RuntimeError


class Broken(Times):
    def setup(self, bottom, top):
        self.factor = 1
        self.at("setup")

    def reshape(self, bottom, top):
        Times.reshape(self, bottom, top)
        self.at("reshape")

    def forward(self, bottom, top):
        self.at("forward")

    def backward(self, top, propagate_down, bottom):
        self.at("backward")

    def at(self, step):
        if self.param_str == step:
            raise ValueError("seven is no colour")
"""
INPUTS = """
force_backward: true
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
"""


def python(layer: str, bottoms: str = "x", param: str = "", extra: str = "") -> str:
    reads = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return (
        f'layer {{ name: "p" type: "Python" {reads} top: "y" {extra}\n'
        f'  python_param {{ module: "my_layers" layer: "{layer}" param_str: "{param}" }} }}'
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with my_layers.py in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("my_layers.py").write_text(MODULE)
    return tmp_path


def load(text: str, phase: str = "test") -> netspec.Net:
    Path("net.prototxt").write_text(INPUTS + text)
    return netspec.load("net.prototxt", phase=phase)


X = np.arange(6, dtype=np.float32).reshape(2, 3)
T = np.array([[1, 1, -1], [0, 2, 5]], np.float32)


def test_it_computes_inside_the_program() -> None:
    net = load(python("Times", param="2.5"))
    assert net(x=X, t=T)["y"].tolist() == (2.5 * X).tolist()
    assert jax.jit(lambda x: net(x=x, t=T)["y"])(X).tolist() == (2.5 * X).tolist()
    assert net(x=X[:1], t=T)["y"].shape == (1, 3)
    assert "caffe" not in sys.modules or sys.modules["caffe"].__name__ != "caffe"


def test_gradients() -> None:
    Path("net.prototxt").write_text(
        INPUTS
        + python("Times", param="2.5").replace('top: "y"', 'top: "z"').replace('"p"', '"q"')
        + python("HalfSquare", "z t", extra="loss_weight: 3")
    )
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    net.forward()
    net.backward()
    difference = 2.5 * X - T
    np.testing.assert_allclose(net.blobs["y"].data, [np.sum(difference**2) / 4])
    np.testing.assert_allclose(net.blobs["x"].diff, 3 * 2.5 * difference / 2)
    np.testing.assert_allclose(net.blobs["t"].diff, -3 * difference / 2)


@pytest.mark.parametrize(("phase", "value"), [("train", 0), ("test", 1)])
def test_it_knows_its_phase(phase: str, value: int) -> None:
    assert load(python("Phase"), phase)(x=X, t=T)["y"].tolist() == value


@pytest.mark.parametrize("step", ["setup", "reshape"])
def test_errors_while_the_net_is_built(step: str) -> None:
    message = (
        rf'net\.prototxt:4: layer "p" \(Python\): my_layers\.Broken\.{step}: ValueError: seven '
    )
    with pytest.raises(LayerError, match=message + r"is no colour \(.*my_layers\.py:\d+\)$"):
        load(python("Broken", param=step))


def test_errors_while_the_net_runs() -> None:
    net = load(python("Broken", param="forward"))
    for _ in range(2):
        with pytest.raises(
            LayerError, match=r'"p" \(Python\): my_layers\.Broken\.forward: ValueErr'
        ):
            net(x=X, t=T)


def test_errors_on_the_way_back(caplog: pytest.LogCaptureFixture) -> None:
    Path("net.prototxt").write_text(INPUTS + python("Broken", param="backward"))
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.forward()
    with pytest.raises(
        LayerError, match=r"my_layers\.Broken\.backward: ValueError: seven is no co"
    ):
        net.backward()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "my_layers",
            "her_layers",
            'no module "her_layers" in the current folder or on PYTHONPATH',
        ),
        ('"Times"', '"Tines"', 'module "my_layers" has no class "Tines"; did you mean "Times"?'),
    ],
)
def test_classes_that_are_not_there(before: str, after: str, message: str) -> None:
    with pytest.raises(LayerError, match=re.escape(message)):
        load(python("Times", param="2").replace(before, after))


def test_tops_that_only_setup_reshapes() -> None:
    net = load(python("Square"))
    for _ in range(2):
        assert net(x=X, t=T)["y"].tolist() == (X**2).tolist()


def test_in_place() -> None:
    text = python("Square", param="in place").replace('top: "y"', 'top: "x"')
    Path("net.prototxt").write_text(INPUTS + text)
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.blobs["x"].data[...] = X
    net.forward()
    assert net.blobs["x"].data.tolist() == (X**2).tolist()
    net.blobs["x"].data[...], net.blobs["x"].diff[...] = X, T
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 2 * X * T)


@pytest.mark.parametrize("silence", ["", 'layer { name: "s" type: "Silence" bottom: "y" }'])
def test_it_runs_though_nothing_reads_its_tops(silence: str) -> None:
    text = python("Log") if silence else python("Log").replace('top: "y"', "")
    net = load(text + silence)
    seen = sys.modules["my_layers"].Log.lines  # type: ignore[attr-defined]
    net.forward({"x": X, "t": T}, ("x",))
    jax.grad(lambda x: net.forward({"x": x, "t": T}, ("x",))["x"].sum())(2 * X)
    assert seen == [X.sum(), 2 * X.sum()]


# Errors in a user's code


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "grows",
            "my_layers.Careless.forward: ValueError: top 0 is 2x5 now, but was 2x3 before data "
            "came; shapes may depend on nothing but the bottoms' shapes",
        ),
        (
            "adds",
            "my_layers.Careless.forward: ValueError: the layer has 1 blob now, but had 0 after "
            "setup",
        ),
        (
            "replaces",
            "my_layers.Careless.forward: AttributeError: property 'data' of 'HostBlob' object has "
            "no setter (HERE)",
        ),
        ("shapeless", "my_layers.Careless.reshape: ValueError: top 0 has no shape; reshape it"),
    ],
)
def test_careless_layers(how: str, message: str, folder: Path) -> None:
    with pytest.raises(LayerError) as caught:
        load(python("Careless", param=how))(x=X, t=T)
    line = MODULE[: MODULE.index("top[0].data = bottom")].count("\n") + 1
    said = message.replace("HERE", f"{folder}/my_layers.py:{line}")
    assert str(caught.value) == f'net.prototxt:4: layer "p" (Python): {said}'


def test_a_second_run_may_fail_and_a_third_go_on() -> None:
    net = load(python("Careless", param="second"))
    net(x=X, t=T)
    with pytest.raises(
        LayerError, match=r"Careless\.forward: RuntimeError \(.*my_layers\.py:\d+\)$"
    ):
        net(x=X, t=T)
    assert net(x=X, t=T)["y"].shape == (2, 3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "import no_such_thing",
            "import: ModuleNotFoundError: No module named 'no_such_thing' (HERE)",
        ),
        ("class Times(:", "import: SyntaxError: invalid syntax (her_layers.py, line 1)"),
        (
            "class Times:\n    def __init__(self, spec): ...",
            "__init__: TypeError: Times.__init__() m",
        ),
        (
            "class Times:\n    pass",
            "setup: AttributeError: 'Times' object has no attribute 'setup'",
        ),
    ],
)
def test_modules_that_cannot_be_used(module: str, message: str, folder: Path) -> None:
    Path("her_layers.py").write_text(module)
    try:
        with pytest.raises(LayerError) as caught:
            load(python("Times").replace("my_layers", "her_layers"))
    finally:
        sys.modules.pop("her_layers", None)
    said = message.replace("HERE", f"{folder}/her_layers.py:1")
    where = 'net.prototxt:4: layer "p" (Python): her_layers.Times.'
    assert str(caught.value).startswith(where + said)


# Learned blobs


WEIGHT = np.array([[1, 2, 4]], np.float32)


def test_blobs_that_setup_adds_are_learned_arrays() -> None:
    net = load(python("Weigh"))
    weight, bias = net.params["p"]
    assert isinstance(weight, nnx.Param)
    assert net(x=X, t=T)["y"].tolist() == (WEIGHT * X).tolist()
    bias.set_value(np.float32([5]))
    assert net(x=X, t=T)["y"].tolist() == (WEIGHT * X + 5).tolist()
    for _ in range(2):
        found = nnx.grad(lambda net: (net(x=X, t=T)["y"] * T).sum())(net)
        gradients = found["params"]["_layers"]["p"]
        assert gradients["blob0"][...].tolist() == (X * T).sum(0, keepdims=True).tolist()
        assert gradients["blob1"][...].tolist() == [T.sum()]
    # Another net of the same file starts where setup did.
    assert netspec.load("net.prototxt")(x=X, t=T)["y"].tolist() == (WEIGHT * X).tolist()


def test_blobs_in_pycaffes_face() -> None:
    Path("net.prototxt").write_text(INPUTS + python("Parameter"))
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.forward()
    net.backward()
    layer = net.layers[list(net._layer_names).index("p")]
    assert layer.blobs[0] is net.params["p"][0]
    assert (layer.blobs[0].data[0], layer.blobs[0].diff[0]) == (0, 1)
    layer.blobs[0].data[0] += layer.blobs[0].diff[0]
    net.save("saved")
    layer.blobs[0].data[0] = -1
    net.copy_from("saved")
    assert layer.blobs[0].data[0] == 1


def test_stated_blobs_come_before_those_of_setup() -> None:
    stated = "".join(
        f"blobs {{ shape {{ {dims} }} {data} }}"
        for dims, data in (("dim: 1 dim: 3", "data: [7, 7, 7]"), ("dim: 1", "data: 1"))
    )
    assert load(python("Weigh", extra=stated))(x=X, t=T)["y"].tolist() == (7 * X + 1).tolist()


def test_blobs_are_shared_by_name() -> None:
    one = python("Weigh", extra='param { name: "w" } param { name: "b" }')
    two = one.replace('"p"', '"q"').replace('bottom: "x"', 'bottom: "t"').replace('"y"', '"z"')
    net = load(one + two)
    assert net.params["p"][0] is net.params["q"][0]
    net.params["q"][0].set_value(np.float32([[1, 0, 0]]))
    blobs = net(x=X, t=T)
    assert [blobs[name][:, 0].tolist() for name in "yz"] == [X[:, 0].tolist(), T[:, 0].tolist()]


@pytest.mark.parametrize(("rate", "counts"), [(0, [1, 2, 3]), (1, [1, 1, 1])])
def test_what_forward_writes_is_kept_where_nothing_learns(rate: int, counts: list[int]) -> None:
    net = load(python("Count", extra=f"param {{ lr_mult: {rate} }}"))
    assert [net(x=X, t=T)["y"].tolist() for _ in counts] == [(n * X).tolist() for n in counts]
    face = caffe.Net("net.prototxt", caffe.TEST)
    face.blobs["x"].data[...], face.blobs["y"].diff[...] = X, T
    for count in counts:
        face.forward()
        face.backward()
        assert face.blobs["x"].diff.tolist() == (count * T).tolist()
        assert face.params["p"][0].data[0] == (0 if rate else count)


def test_layers_that_share_what_they_write_go_on_from_each_other() -> None:
    one = python("Count", extra='param { name: "n" lr_mult: 0 }')
    net = load(one + one.replace('"p"', '"q"').replace('"y"', '"z"'))
    for count in (1, 3):
        blobs = net(x=X, t=T)
        assert blobs["y"].tolist() == (count * X).tolist()
        assert blobs["z"].tolist() == ((count + 1) * X).tolist()


# Which gradients are asked for


IP = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h" RATE
  inner_product_param { num_output: 3 bias_term: false weight_filler { value: 1 } } }
"""
IP2 = IP.replace('"ip"', '"ip2"').replace('"h"', '"k"')
LOSS = python("Told", "h t", extra="loss_weight: 1").replace('"p"', '"loss"')
ENTROPY = """
layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "h" bottom: "t" top: "loss" }
"""
BESIDE = 'layer { name: "beside" type: "ReLU" bottom: "y" top: "beside" }'
FORCE = "force_backward: true\n"
FREE = INPUTS.replace(FORCE, "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (IP + LOSS, [[False], [True, False]]),
        (IP.replace("RATE", "param { lr_mult: 0 }") + LOSS, [[False], [False, False]]),
        (IP + LOSS.replace("loss_weight: 1", ""), [[False], [False, False]]),
        (IP.replace("RATE", "propagate_down: true") + LOSS, [[True], [True, False]]),
        (
            IP + LOSS.replace("loss_weight", "propagate_down: 1 propagate_down: 1 loss_weight"),
            [[False], [True, True]],
        ),
        (
            IP + LOSS.replace("loss_weight", "propagate_down: 0 propagate_down: 0 loss_weight"),
            [[False], [False, False]],
        ),
        # What all readers keep gradients from does not run at all.
        (
            IP.replace("RATE", "propagate_down: true")
            + LOSS.replace("loss_weight", "propagate_down: 0 propagate_down: 0 loss_weight"),
            [[False], [False, False]],
        ),
        # Nor does what has nothing to learn, whatever is said of it.
        (
            IP.replace("RATE", "propagate_down: true param { lr_mult: 0 }") + LOSS,
            [[False], [False, False]],
        ),
        # A loss that is read has its gradient all the same.
        (IP + LOSS + BESIDE, [[False], [True, False], [False]]),
        (FORCE + IP + LOSS, [[True], [True, True]]),
        # No force reaches labels, but one that is learned is a bottom like others.
        (FORCE + IP + ENTROPY, [[True], [True, False]]),
        (FORCE + IP + IP2 + ENTROPY.replace('"t"', '"k"'), [[True], [True], [True, True]]),
        # Blobs of its own make a Python layer learn; what stands beside the loss does not count.
        (
            python("Weigh") + BESIDE + LOSS.replace('"h"', '"y"').replace('top: "y"', 'top: "l"'),
            [[False], [False], [True, False]],
        ),
    ],
)
def test_whose_gradients_caffe_wants(text: str, wanted: list[list[bool]]) -> None:
    Path("net.prototxt").write_text(FREE + text.replace("RATE", ""))
    shapes = netspec.load("net.prototxt", phase="train").shapes
    assert [list(mine) for mine in shapes.wanted[1:]] == wanted


def test_a_layer_is_told_whose_gradients_are_wanted() -> None:
    Path("net.prototxt").write_text(FREE + (IP + LOSS).replace("RATE", ""))
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    told = sys.modules["my_layers"].Told.told  # type: ignore[attr-defined]
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    net.forward()
    net.backward()
    difference = X @ np.ones((3, 3)) - T
    np.testing.assert_allclose(net.blobs["h"].diff, difference / 2)
    np.testing.assert_allclose(net.params["ip"][0].diff, difference.T @ X / 2)
    assert not net.blobs["t"].diff.any()
    assert told == [[True, False]]
    module = netspec.load("net.prototxt")
    # JAX may differentiate what Caffe would not.
    gradient = jax.grad(lambda t: module(x=X, t=t)["y"].sum())(T)
    np.testing.assert_allclose(gradient, -difference / 2)
    nnx.grad(lambda net: net(x=X, t=T)["y"].sum())(module)
    assert told[1:] == [[True, True], [True, False]]


def test_gradients_without_a_loss_in_the_net() -> None:
    net = load(python("Times", param="2.5"))
    gradient = jax.jit(jax.grad(lambda x: (net(x=x, t=T)["y"] * T).sum()))(X)
    np.testing.assert_allclose(gradient, 2.5 * T)


# Training


def solved(text: str, settings: str = "") -> caffe.Net:
    """The net on rows of x and t after one update by SGD."""
    with h5py.File("rows.h5", "w") as file:
        file.update({"x": X, "t": T})
    Path("rows.txt").write_text("rows.h5\n")
    source = """layer { name: "in" type: "HDF5Data" top: "x" top: "t"
      hdf5_data_param { source: "rows.txt" batch_size: 2 } }"""
    Path("net.prototxt").write_text(source + text)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s"'
        + settings
    )
    result = CliRunner().invoke(main, ["solve", "solver.prototxt"])
    assert result.exit_code == 0, result.output
    return caffe.Net("net.prototxt", "s_iter_1.caffemodel", caffe.TEST)


def test_blobs_are_trained_and_kept() -> None:
    text = (
        python("Count", extra="param { lr_mult: 0 }").replace('"p"', '"c"').replace('"y"', '"n"')
        + python("Weigh", "n", extra="param { lr_mult: 3 }").replace('"y"', '"h"')
        + LOSS
    )
    trained = solved(text, "momentum: 0.9")
    difference = WEIGHT * X - T
    weight, bias = (blob.data for blob in trained.params["p"])
    np.testing.assert_allclose(weight, WEIGHT - 0.3 * np.sum(difference * X / 2, 0), rtol=1e-6)
    np.testing.assert_allclose(bias, [-0.1 * difference.sum() / 2], rtol=1e-6)
    assert trained.params["c"][0].data.tolist() == [1]
    # The solver's history goes on, too.
    solver = caffe.get_solver("solver.prototxt")
    solver.restore("s_iter_1.solverstate")
    solver.step(1)
    assert solver.net.params["c"][0].data.tolist() == [2]
    step = weight - solver.net.params["p"][0].data
    difference = 2 * X * weight + bias - T
    momentum = 0.9 * (WEIGHT - weight)
    np.testing.assert_allclose(step, momentum + 0.3 * np.sum(difference * 2 * X / 2, 0), rtol=1e-4)


def test_training_through_a_python_loss() -> None:
    trained = solved(IP.replace("RATE", "").replace("value: 1", "") + LOSS)
    np.testing.assert_allclose(trained.params["ip"][0].data, 0.1 * T.T @ X / 2, rtol=1e-6)
