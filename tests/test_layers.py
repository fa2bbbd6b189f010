"""The battery that every row of ``cases`` earns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, GOLDEN, GOLDEN_CASES, Case
from layer_runs import Trial, close, compiled
from numpy.typing import ArrayLike, NDArray
from reference import batch_statistics, carried_on, evaluate, in_phase
from sweeps import first_of_each

from netspec import caffe
from netspec.frontend.shapes import ParamKey
from netspec.layers import REGISTRY
from netspec.layers.numerics import MemoryLayout
from netspec.runtime import layer_pass


@pytest.fixture(
    scope="module",
    params=first_of_each(CASES, lambda case: case.graph.nodes[-1].type),
    ids=lambda case: case.name,
)
def trial(request: pytest.FixtureRequest) -> Trial:
    return Trial(request.param)


def test_shapes_are_those_of_the_arrays(trial: Trial) -> None:
    def values_and_updates(inputs: Any, params: Any) -> tuple[Any, Any]:
        made = trial.run(inputs, params)
        updates = {f"{key}": array for key, array in made.updates.items()}
        return {i: made.value(i) for i in made.values if i not in inputs}, updates

    made, updates = jax.eval_shape(values_and_updates, trial.inputs, trial.params)
    assert keeps(trial.case) or not updates, "a layer changes what it has learned"
    for i, value in made.items():
        assert value.shape == trial.case.shapes.values[i]
        assert value.dtype == jnp.float32
    assert len(made) == len(trial.case.shapes.values) - len(trial.inputs)


def test_forward_is_right(trial: Trial) -> None:
    """As the plain loops have it, and as Caffe has it, which proves the loops too."""
    expected = evaluate(trial.case.shapes, trial.case.params, trial.case.inputs)
    for i, value in trial.computed[0].items():
        close(value, expected[i])
    for name, array in trial.case.written_by_caffe("out/").items():
        close(trial.computed[0][trial.case.graph.blobs[name]], array)


def test_backward_is_right(trial: Trial) -> None:
    """As Caffe has it, or else as the plain loops' slope along random directions."""
    case = trial.case
    _, inputs, params = trial.computed
    if case.golden is not None and "has_backward" in case.golden:
        for name, array in case.written_by_caffe("bottomdiff/").items():
            close(inputs[case.graph.first_blobs[name]], array)
        for name, array in case.written_by_caffe("paramdiff/").items():
            close(params[case.param_key(name)], array)
        return
    for i in case.indices:
        assert not inputs[i].any()
    if not case.smooth:
        assert all(np.isfinite(gradient).all() for gradient in (*inputs.values(), *params.values()))
        return
    rng = np.random.default_rng(0)
    for i in inputs.keys() - case.indices:
        for direction in rng.choice([-1.0, 1.0], (2, *inputs[i].shape)):
            slope = _slope(
                lambda x, i=i: trial.reference({**case.inputs, i: x}, case.params),
                case.inputs[i],
                direction,
            )
            _close_slope(inputs[i], direction, slope)
    for key in params:
        if not case.shapes.params[key].learned:
            assert not params[key].any()
            continue
        for direction in rng.choice([-1.0, 1.0], (2, *params[key].shape)):
            slope = _slope(
                lambda w, key=key: trial.reference(case.inputs, {**case.params, key: w}),
                case.params[key],
                direction,
            )
            _close_slope(params[key], direction, slope)


def keeps(case: Case) -> bool:
    """Whether a case has arrays that a run may change: statistics or carried state."""
    return bool(case.shapes.carried) or any(not b.learned for b in case.shapes.params.values())


@pytest.mark.parametrize(
    "case", [case for case in CASES if keeps(case)], ids=lambda case: case.name
)
def test_statistics_are_kept(case: Case) -> None:
    """Statistics and carried state, as the plain loops have it, and as Caffe has it."""
    trial = Trial(case)
    updates = compiled(lambda *a: trial.run(*a).updates)(trial.inputs, trial.params)
    kept = {**case.params, **updates}
    for name, array in case.written_by_caffe("param_after/").items():
        close(kept[case.param_key(name)], array)
    expected: dict[ParamKey, Any] = {}
    values = evaluate(case.shapes, case.params, case.inputs)
    for node, keys in ((each.node, each.keys) for each in case.shapes.nodes):
        if node.type == "BatchNorm":
            blobs = [np.asarray(case.params[key], np.float64) for key in keys.values()]
            layer = in_phase(case.graph, node)
            statistics = batch_statistics(layer, blobs, values[node.bottoms[0]])
            expected.update(zip(keys.values(), statistics, strict=True))
    expected |= carried_on(case.shapes, case.params, values)
    assert expected, "the reference says nothing of what this case keeps"
    for key, array in expected.items():
        close(kept[key], array)
    assert updates.keys() <= expected.keys()


def _slope(function: Any, at: NDArray, direction: NDArray) -> float:
    step = 1e-5
    ahead, behind = (function(at.astype(np.float64) + s * direction) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def _close_slope(gradient: ArrayLike, direction: NDArray, slope: float) -> None:
    gradient = np.asarray(gradient, np.float64)
    error = abs(np.vdot(gradient, direction) - slope)
    assert error <= 2e-5 * max(np.linalg.norm(gradient), abs(slope), 1e-3)


def test_layout_changes_nothing(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = trial.turned()
    monkeypatch.setattr(layer_pass, "computes_channels_last", lambda node, bottoms: False)
    assert not trial.turned()
    if not turned:
        return  # the same program
    for ours, others in zip(trial.computed, trial.compute(), strict=True):
        assert ours.keys() == others.keys()
        for i in ours:
            close(ours[i], others[i])


@pytest.mark.slow
def test_images_are_channels_last_where_a_layer_can() -> None:
    """Every type that says so takes part in the comparison above."""
    seen = {
        case.graph.nodes[case.graph.values[i].producer].type
        for case in CASES
        for i in Trial(case).turned()
    }
    able = {
        name
        for name, layer in REGISTRY.items()
        if layer.numerics.layout is not MemoryLayout.CHANNELS_FIRST
        and not layer.traits.is_source
        and name not in ("Filter", "Silence")
    }
    # A loss and Accuracy make scalars, but read what is channels-last.
    scalar = {name for name in able if REGISTRY[name].traits.is_loss} | {"Accuracy"}
    assert able - scalar <= seen


FIRST_OF_TYPE = {case.graph.nodes[-1].type: case for case in reversed(CASES)}


@pytest.mark.parametrize("name", sorted(FIRST_OF_TYPE))
def test_jit_changes_nothing(name: str) -> None:
    trial = Trial(FIRST_OF_TYPE[name])
    jitted = jax.jit(trial.values)(trial.inputs, trial.params)
    for i, value in trial.values(trial.inputs, trial.params).items():
        close(jitted[i], value, 1e-6)


# It asks no layer's type, so that one case of each will do.
FACE = {case.graph.nodes[-1].type: case for case in GOLDEN_CASES}
FACE["whole"] = next(case for case in GOLDEN_CASES if case.name == "Caffe fcn_head")


@pytest.mark.parametrize("case", FACE.values(), ids=lambda case: case.name)
def test_the_pycaffe_face_is_caffes(case: Case) -> None:
    assert case.golden is not None
    path = GOLDEN / f"{case.name.removeprefix('Caffe ')}.prototxt"
    net = caffe.Net(str(path), getattr(caffe, str(case.golden["phase"])))
    for name, array in case.written_by_caffe("in/").items():
        net.blobs[name].data[...] = array
    for name, array in case.written_by_caffe("param/").items():
        layer, i = name.rsplit("/", 1)
        net.params[layer][int(i)].data[...] = array
    net.forward()
    for name, array in case.written_by_caffe("param_after/").items():
        layer, i = name.rsplit("/", 1)
        close(net.params[layer][int(i)].data, array)
    for name, array in case.written_by_caffe("out/").items():
        close(net.blobs[name].data, array)
    if "has_backward" in case.golden:
        net.backward(**case.written_by_caffe("topdiff/"))
        for name, array in case.written_by_caffe("bottomdiff/").items():
            close(net.blobs[name].diff, array)
        for name, array in case.written_by_caffe("paramdiff/").items():
            layer, i = name.rsplit("/", 1)
            close(net.params[layer][int(i)].diff, array)
