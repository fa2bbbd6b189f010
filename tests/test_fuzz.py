"""The fuzzer's nets, a small part of them, and whether it finds what it is to find."""

import stat
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from netspec.layers import REGISTRY, Layer
from netspec.layers.context import Context
from netspec.layers.registry import register
from netspec.proto.layers_pb2 import LayerParameter
from tests.fuzz import campaign, checks, face, fields, known, legacy, real_caffe
from tests.fuzz.campaign import Failure, Report
from tests.fuzz.drafts import SPELLINGS, Draft, Feed
from tests.fuzz.generator import draft
from tests.fuzz.shrink import shrink

pytestmark = [
    pytest.mark.usefixtures("hasty"),
    pytest.mark.filterwarnings("ignore"),
]

CHUNK = 20
# What needs files, or is no matter of numbers.
UNUSED = {
    "InfogainLossParameter.source",
    "RecurrentParameter.debug_info",
}


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(first, marks=[pytest.mark.slow] if first else [])
        for first in range(0, 200, CHUNK)
    ],
)
def test_nets(first: int) -> None:
    report = campaign.run(range(first, first + CHUNK))
    assert report.nets == CHUNK
    assert not report.failures, "\n".join(failure.text() for failure in report.failures)


@pytest.fixture(scope="module")
def grown() -> Report:
    """The types and fields of many nets, none of which is run."""
    report = Report()
    for seed in range(1500):
        net = draft(seed).draft
        report.types.update(layer.type for layer in net.current().layer)
        report.fields.update(fields.said(net.spelled()))
        report.spellings[net.spelling] += 1
    return report


def test_every_type_is_generated(grown: Report) -> None:
    """All but those that read files or call the user's Python."""
    assert REGISTRY.keys() - face.host_types() | {"Input", "DummyData"} == grown.types.keys()


def test_every_field_is_generated(grown: Report) -> None:
    assert set(campaign.all_fields(grown.types)) - grown.fields.keys() == UNUSED


def test_every_spelling_is_generated(grown: Report) -> None:
    assert grown.spellings.keys() == set(SPELLINGS)
    assert "NetParameter.input_dim" in grown.fields


def test_a_seed_is_a_net() -> None:
    assert draft(7).draft.text() == draft(7).draft.text()
    assert draft(7).draft.text() != draft(8).draft.text()


def test_old_schemas_say_no_more_than_they_can() -> None:
    layer = draft(0).draft.layers[0]
    assert legacy.fits_v1(layer) == (legacy.v1_type(layer.type) is not None)
    layer.propagate_down.append(True)
    assert not legacy.fits_v1(layer)
    assert not legacy.fits_v0(layer)


NET = Draft(
    seed=1,
    feeds=(Feed("x", (2, 3)),),
    layers=(
        LayerParameter(name="a", type="Power", bottom=["x"], top=["a"]),
        LayerParameter(name="s", type="Sigmoid", bottom=["a"], top=["s"]),
        LayerParameter(name="t", type="TanH", bottom=["s"], top=["t"]),
    ),
)


def failed(check: str) -> Failure:
    """How a check fails at the net above."""
    state, what, kind = campaign.outcomes(NET, {check: checks.CHECKS[check]})[check]
    assert (state, kind) == ("failed", None)
    return Failure(NET.seed, check, what, NET)


@pytest.fixture
def wrong_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    right = REGISTRY["Sigmoid"].apply
    monkeypatch.setattr(REGISTRY["Sigmoid"], "apply", lambda *a: right(*a) + 1e-3)


@pytest.mark.usefixtures("wrong_sigmoid")
def test_a_wrong_number_is_found_and_its_net_minimised() -> None:
    small = shrink(failed("forward"))
    assert [layer.type for layer in small.draft.layers] == ["Sigmoid"]
    assert small.text().startswith("# seed 1, test\n# forward: s of Sigmoid: ")


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = REGISTRY["Sigmoid"].apply
    monkeypatch.setattr(REGISTRY["Sigmoid"], "apply", lambda *a: jax.lax.stop_gradient(right(*a)))
    assert failed("gradients").what.startswith("gradient of x of Input: 0 for a slope of ")


def test_what_is_raised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(REGISTRY["Sigmoid"], "describe", broken)
    assert failed("looks").what == "raw KeyError: 'x'"


@pytest.mark.usefixtures("wrong_sigmoid")
def test_a_known_fault_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known.KINDS, "too great", lambda face, check, what: check == "forward")
    _, what, kind = campaign.outcomes(NET, checks.CHECKS)["forward"]
    report = Report()
    report.enter(Failure(NET.seed, "forward", what, NET), kind)
    assert not report.failures
    assert report.counts["forward", "known"] == 1
    assert "1 known: too great" in report.table()


def test_a_new_type_is_reached_without_a_word() -> None:
    class Doubled(Layer):
        def apply(self, ctx: Context, *bottoms: Any, **_: Any) -> jax.Array:
            doubled: jax.Array = 2 * bottoms[0]
            return doubled

    register()(Doubled)
    try:
        nets = (draft(seed).draft for seed in range(200))
        net = next(net for net in nets if any(layer.type == "Doubled" for layer in net.layers))
        found = campaign.outcomes(net, checks.CHECKS)
    finally:
        del REGISTRY["Doubled"]
    assert found["forward"][:2] == ("skipped", "the reference has no Doubled")
    assert found["looks"][0] == "passed"


@pytest.fixture
def as_caffe(tmp_path: Path) -> str:
    """A Python that imports netspec as Caffe."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m netspec run "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_caffe_in_another_python(as_caffe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (caffe,) = real_caffe.checks_with(as_caffe).values()
    assert campaign.outcomes(NET, {"caffe": caffe})["caffe"] == ("passed", "", None)
    monkeypatch.setattr(real_caffe, "_WORKER", Path("/absent"))
    (caffe,) = real_caffe.checks_with(as_caffe).values()
    found = campaign.outcomes(NET, {"caffe": caffe})["caffe"]
    assert found == ("failed", "Caffe aborts: without a word", None)


def test_checks_are_done_in_turn_unless_chosen() -> None:
    for name, every in checks.EVERY.items():
        assert sum(name in checks.in_turn(seed) for seed in range(every)) == 1
    assert checks.chosen(True, None)(5) == checks.CHECKS
    assert checks.chosen(True, ["jit"])(5) == {"jit": checks.CHECKS["jit"]}
