import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from netspec.errors import GraphError
from netspec.frontend.net_graph import read_graph
from netspec.frontend.phase import meets, select, state_of
from netspec.frontend.prototxt import NetText, parse_net
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState, NetStateRule, Phase

GOLDEN = Path(__file__).parent / "golden" / "phase"
KEPT = json.loads((GOLDEN / "kept.json").read_text())


def names(net: NetText) -> list[str]:
    return [layer.name for layer in net.message.layer]


@pytest.mark.parametrize(
    ("phase", "level", "stages", "kept"),
    KEPT,
    ids=[f"{phase}-{level}-{''.join(stages)}" for phase, level, stages, _ in KEPT],
)
def test_kept_as_by_caffe(phase: str, level: int, stages: list[str], kept: list[str]) -> None:
    connected = read_graph(GOLDEN / "net.prototxt", phase, level, stages)
    assert [node.name for node in connected.nodes] == kept
    assert connected.phase == Phase.Value(phase)


# A rule's fields, states that fit it, and states that do not, as (phase, level, stages).
RULES = [
    ({}, [(TRAIN, 0, ""), (TEST, -3, "a")], []),
    ({"phase": TRAIN}, [(TRAIN, 0, "")], [(TEST, 0, "")]),
    ({"phase": TEST}, [(TEST, 7, "ab")], [(TRAIN, 0, "")]),
    ({"min_level": 2}, [(TEST, 2, ""), (TEST, 5, "")], [(TEST, 1, ""), (TEST, 0, "")]),
    ({"max_level": 2}, [(TEST, 2, ""), (TEST, -1, "")], [(TEST, 3, "")]),
    ({"max_level": 0}, [(TEST, 0, "")], [(TEST, 1, "")]),
    ({"min_level": 2, "max_level": 3}, [(TEST, 3, "")], [(TEST, 1, ""), (TEST, 4, "")]),
    ({"stage": "ab"}, [(TEST, 0, "ab"), (TEST, 0, "cba")], [(TEST, 0, "a"), (TEST, 0, "")]),
    ({"not_stage": "ab"}, [(TEST, 0, ""), (TEST, 0, "c")], [(TEST, 0, "a"), (TEST, 0, "cb")]),
    ({"stage": "a", "not_stage": "a"}, [], [(TEST, 0, "a"), (TEST, 0, "")]),
    ({"phase": TRAIN, "stage": "a"}, [(TRAIN, 0, "a")], [(TRAIN, 0, ""), (TEST, 0, "a")]),
]
State = tuple[Phase, int, str]


@pytest.mark.parametrize(("rule", "fit", "misfit"), RULES)
def test_rules(rule: dict[str, Any], fit: list[State], misfit: list[State]) -> None:
    for states, expected in ((fit, True), (misfit, False)):
        for phase, level, stages in states:
            state = NetState(phase=phase, level=level, stage=stages)
            assert meets(state, NetStateRule(**rule)) is expected


def selected(text: str, phase: Phase, level: int = 0, stages: Sequence[str] = ()) -> NetText:
    net = parse_net(text, "net.prototxt")
    return select(net, state_of(net, phase, level, stages))


MIXED = """
layer { name: "always" }
layer { name: "a or test" include { stage: "a" } include { phase: TEST } }
layer { name: "neither a nor test" exclude { stage: "a" } exclude { phase: TEST } }
"""


@pytest.mark.parametrize(
    ("phase", "stages", "kept"),
    [
        (TRAIN, "", ["always", "neither a nor test"]),
        (TRAIN, "a", ["always", "a or test"]),
        (TEST, "", ["always", "a or test"]),
        (TEST, "a", ["always", "a or test"]),
    ],
)
def test_one_fitting_rule_is_enough(phase: Phase, stages: str, kept: list[str]) -> None:
    assert names(selected(MIXED, phase, stages=stages)) == kept


def test_places_stay_with_their_layers() -> None:
    net = selected(MIXED, TEST)
    assert [place.line for place in net.places] == [2, 3]


def test_a_net_states_stages_of_its_own() -> None:
    """Stages add up; phase and level are the caller's, as for Caffe's ``Net(file, phase, ...)``."""
    text = """
    state { phase: TRAIN level: 3 stage: "own" }
    layer { name: "train" include { phase: TRAIN } }
    layer { name: "test" include { phase: TEST } }
    layer { name: "level 3" include { min_level: 3 } }
    layer { name: "own" include { stage: "own" } }
    layer { name: "given" include { stage: "given" } }
    """
    net = selected(text, TEST, 0, ["given"])
    assert names(net) == ["test", "own", "given"]
    assert net.message.state == NetState(phase=TEST, level=0, stage=["own", "given"])


def test_selecting_does_not_touch_the_net() -> None:
    net = parse_net(MIXED)
    select(net, state_of(net, TEST))
    assert net == parse_net(MIXED)


def test_include_and_exclude_do_not_mix() -> None:
    text = """
    layer { name: "a" type: "ReLU" include { phase: TRAIN } exclude { stage: "b" } }
    """
    with pytest.raises(GraphError) as error:
        selected(text, TEST)
    assert str(error.value) == (
        'net.prototxt:2: layer "a" (ReLU): has include and exclude rules; give one kind, not both'
    )


def test_an_unknown_phase(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r'^unknown phase "tst" \(train, test\)$'):
        read_graph(GOLDEN / "net.prototxt", "tst")
