"""The layers that a net keeps in one phase, level and set of stages.

Caffe: ``Net::FilterNet`` and ``Net::StateMeetsRule`` in ``net.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netspec.errors import GraphError, blame, require
from netspec.frontend.prototxt import NetText
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState, NetStateRule, Phase

_PHASES: dict[str, Phase] = {"train": TRAIN, "test": TEST}


def phase_of(name: str) -> Phase:
    """The phase of a name, "train" or "test" in any case; raises GraphError."""
    known = ", ".join(_PHASES)
    require(name.lower() in _PHASES, f'unknown phase "{name}" ({known})', GraphError)
    return _PHASES[name.lower()]


def state_of(net: NetText, phase: Phase, level: int = 0, stages: Sequence[str] = ()) -> NetState:
    """The state to select a net by: ``stages`` add to those that the net itself lists."""
    state = NetState()
    state.CopyFrom(net.message.state)
    state.phase = phase
    state.level = level
    # A single stage given as a plain string is no sequence of letters.
    state.stage.extend([stages] if isinstance(stages, str) else stages)
    return state


def select(net: NetText, state: NetState) -> NetText:
    """The net with the layers whose include and exclude rules fit ``state``; raises GraphError."""
    kept = []
    left_out: set[str] = set()
    for layer, place in zip(net.message.layer, net.places, strict=True):
        with blame(place, f'layer "{layer.name}" ({layer.type})'):
            require(
                not (layer.include and layer.exclude),
                "has include and exclude rules; give one kind, not both",
                GraphError,
            )
        wanted = (
            any(meets(state, rule) for rule in layer.include)
            if layer.include
            else not any(meets(state, rule) for rule in layer.exclude)
        )
        if wanted:
            kept.append((layer, place))
        else:
            left_out.update(layer.top)
    selected = replace(net.with_layers(kept), left_out=frozenset(left_out))
    selected.message.state.CopyFrom(state)
    return selected


def meets(state: NetState, rule: NetStateRule) -> bool:
    """Whether a state fits everything that a rule asks for."""
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and all(stage in state.stage for stage in rule.stage)
        and not any(stage in state.stage for stage in rule.not_stage)
    )


def state_text(state: NetState) -> str:
    """A state as messages name it: ``phase TRAIN, level 2, stages a, b``."""
    level = f", level {state.level}" if state.level else ""
    stages = f", stages {', '.join(state.stage)}" if state.stage else ""
    return f"phase {Phase.Name(state.phase)}{level}{stages}"
