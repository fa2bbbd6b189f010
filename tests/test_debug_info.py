"""What Caffe prints of each blob, against numpy, and the step that a look repeats."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike
from single_steps import DATA, RELU, TWO, XAVIER, Step, X, layer, product

from netspec.frontend.shapes import ParamKey
from netspec.solving.diagnosis.debug_info import debug_info_lines

FREEZE = "param { lr_mult: 0 } param { lr_mult: 0 }"


# A number as Caffe prints it, after a colon or in the brackets of the norms.
FIGURE = re.compile(r"(?<=[:(,] )[-+.\de]+|(?<=\()[-+.\de]+")


def figures(line: str) -> list[float]:
    return [float(figure) for figure in FIGURE.findall(line)]


@pytest.mark.differs("debug-info")
def test_debug_info_says_what_numpy_computes() -> None:
    """An in-place layer, an array that two layers share, a frozen one, and two losses."""
    step = Step(
        DATA
        + product("a", "x", 3, more='param { name: "w" } param { lr_mult: 0 }')
        + layer("relu", "ReLU", "a", "a")
        + product("b", "a", 3, f"bias_term: false {XAVIER}", 'param { name: "w" }')
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "x" top: "loss" }\n'
        + layer("sum", "Reduction", "b", "sum", "loss_weight: 0.5"),
        {"a.bias": 0.25},
    )
    w = np.asarray(step.params[ParamKey("a", "weight")], np.float64)
    x = X.astype(np.float64)
    a = x @ w.T + 0.25
    relu = np.maximum(a, 0)
    b = relu @ w.T
    loss, total = np.sum((b - x) ** 2) / 4, np.sum(b)
    db = (b - x) / 2 + 0.5
    drelu = db @ w
    da = drelu * (a > 0)
    dw = da.T @ x + db.T @ relu

    def mean(array: ArrayLike) -> str:
        return f"{np.mean(np.abs(array)):g}"

    pairs = ((w, dw), (np.full(3, 0.25), np.zeros(3)))
    l1 = [sum(np.abs(pair[i]).sum() for pair in pairs) for i in (0, 1)]
    l2 = [np.sqrt(sum((pair[i] ** 2).sum() for pair in pairs)) for i in (0, 1)]
    expected = f"""
    [Forward] Layer data, top blob x data: {mean(x)}
    [Forward] Layer a, top blob a data: {mean(a)}
    [Forward] Layer a, param blob w data: {mean(w)}
    [Forward] Layer a, param blob 1 data: 0.25
    [Forward] Layer relu, top blob a data: {mean(relu)}
    [Forward] Layer b, top blob b data: {mean(b)}
    [Forward] Layer b, param blob w data: {mean(w)}
    [Forward] Layer loss, top blob loss data: {mean(loss)}
    [Forward] Layer sum, top blob sum data: {mean(total)}
    [Backward] Layer sum, bottom blob b diff: {mean(db)}
    [Backward] Layer loss, bottom blob b diff: {mean(db)}
    [Backward] Layer b, bottom blob a diff: {mean(drelu)}
    [Backward] Layer b, param blob 0 diff: {mean(dw)}
    [Backward] Layer relu, bottom blob a diff: {mean(da)}
    [Backward] Layer a, param blob 0 diff: {mean(dw)}
    [Backward] All net params (data, diff): L1 norm = ({l1[0]:g}, {l1[1]:g}); \
L2 norm = ({l2[0]:g}, {l2[1]:g})
    [Update] Layer a, param w data: {mean(w)}; diff: 0.125
    [Update] Layer a, param 1 data: 0.25; diff: 0
    [Update] Layer b, param blob w (owned by layer a, param w) diff: 0.125
""".strip("\n").split("\n")
    steps = {ParamKey("a", "weight"): jnp.full((3, 3), -0.125)}
    found = debug_info_lines(step.look(), step.shapes, steps)
    found = [line for line in found if "blob label" not in line]
    assert [FIGURE.sub("#", line) for line in found] == [FIGURE.sub("#", x) for x in expected]
    for line, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(figures(line), figures(wanted), rtol=1e-4, err_msg=line)
    assert step.look().loss == pytest.approx(loss + 0.5 * total, rel=1e-5)


def test_a_look_sees_the_step_that_training_takes() -> None:
    """Frozen arrays get no gradient, nor does what lies below them alone."""
    frozen = Step(DATA + product("ip", "x", 5, more=FREEZE) + RELU + TWO.split(RELU)[1])
    seen, graph = frozen.look(), frozen.shapes.graph
    assert set(seen.gradients) == {ParamKey("score", "weight"), ParamKey("score", "bias")}
    assert {graph.values[i].name for i in seen.diffs} == {"score", "loss"}
    assert set(seen.params) == set(frozen.shapes.params)
    forced = Step("force_backward: true\n" + frozen.text)
    names = {forced.shapes.graph.values[i].name for i in forced.look().diffs}
    assert names == {"x", "ip", "score", "loss"}
