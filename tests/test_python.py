"""Layers in Python: they compute inside the program, and their errors arrive."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from user_layers import INPUTS, MODULE, T, X, load, python
from user_layers import folder as folder

from netspec import caffe
from netspec.errors import LayerError


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
    net.blobs["x"].diff[...] = T
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 2 * np.abs(X) * T, rtol=1e-6)


@pytest.mark.parametrize("silence", ["", 'layer { name: "s" type: "Silence" bottom: "y" }'])
def test_it_runs_though_nothing_reads_its_tops(silence: str) -> None:
    text = python("Log") if silence else python("Log").replace('top: "y"', "")
    net = load(text + silence)
    seen = sys.modules["my_layers"].Log.lines  # type: ignore[attr-defined]
    net.forward({"x": X, "t": T}, ("x",))
    jax.grad(lambda x: net.forward({"x": x, "t": T}, ("x",))["x"].sum())(2 * X)
    assert seen == [X.sum(), 2 * X.sum()]


# Errors in a user's code


@pytest.mark.differs("python-shapes")
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
