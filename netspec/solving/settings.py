"""Reads and checks the settings of a solver prototxt: its counts, its nets and their states.

Caffe: ``Solver::Init``, ``InitTrainNet``, ``InitTestNets`` in ``solver.cpp``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from netspec.errors import SolverError, require
from netspec.frontend.prototxt import NetText, SolverText, read_net
from netspec.frontend.refused_gradients import check_backward
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState, Phase
from netspec.proto.solver_pb2 import SolverParameter


def check(solver: SolverParameter) -> None:
    """Raise SolverError for counts that make no sense, and for numbers that are not finite."""
    _check_finite(solver)
    for name in ("iter_size", "average_loss"):
        value = getattr(solver, name)
        require(value > 0, f"{name} {value} must be at least 1", SolverError)
    for name in ("max_iter", "display", "snapshot", "test_interval"):
        value = getattr(solver, name)
        require(value >= 0, f"{name} {value} must not be negative", SolverError)


def _check_finite(solver: SolverParameter) -> None:
    for field, value in solver.ListFields():
        require(
            not isinstance(value, float) or math.isfinite(value),
            f"{field.name} {value} is not finite",
            SolverError,
        )


def seed(solver: SolverParameter) -> int:
    """The seed of a run: ``random_seed``, or any number where that is negative, as by default."""
    if solver.random_seed >= 0:
        return solver.random_seed
    return int.from_bytes(os.urandom(4), "little") >> 1


def doubts(text: SolverText) -> list[str]:
    """Warnings of settings that Caffe accepts and hardly anybody means, each with its place."""
    solver, found = text.message, []
    if not solver.HasField("base_lr"):
        found.append("base_lr is not set, so that it is 0: nothing will be learned")
    if not 0 <= solver.momentum < 1:
        found.append(f"momentum {solver.momentum:g} is outside 0 to 1: steps grow without bound")
    if solver.type == "Adam" and not 0 <= solver.momentum2 < 1:
        found.append(f"momentum2 {solver.momentum2:g} is outside 0 to 1, where Adam is defined")
    for name in ("base_lr", "weight_decay"):
        if getattr(solver, name) < 0:
            found.append(f"{name} {getattr(solver, name):g} is negative: training goes uphill")
    if list(solver.stepvalue) != sorted(solver.stepvalue):
        found.append("stepvalue is not in rising order: Caffe takes one after the other")
    return [f"{text.place_of(doubt)}: {doubt}" for doubt in found]


def check_learns(shapes: Shapes, learned: Sequence[ParamKey]) -> None:
    """Raise SolverError for a train net without a loss, or without learned blobs.

    And LayerError for one that needs a gradient which a layer does not have.
    """
    graph = shapes.graph
    require(
        graph.losses,
        f"the train net {graph.file} has no loss: no loss layer, and no loss_weight on any top",
        SolverError,
    )
    require(
        learned,
        f"the train net {graph.file} has nothing to learn: no learned blobs, or all of them have "
        "lr_mult: 0",
        SolverError,
    )
    check_backward(shapes)


def tests_before(solver: SolverParameter, start: int, limit: int) -> bool:
    """Whether a test is due between two iterations, both included."""
    every = solver.test_interval
    # Published solvers switch tests off by `test_iter: 0`.
    if not every or all(batches <= 0 for batches in solver.test_iter):
        return False
    first = -(-start // every) * every
    if first == 0 and not solver.test_initialization:
        first = every
    return first <= limit


def net_texts(
    solver: SolverText,
) -> tuple[tuple[NetText, NetState], list[tuple[NetText, NetState]]]:
    """The train net and the test nets, each with the state to select by; raises SolverError."""
    message = solver.message
    names = ("net", "net_param", "train_net", "train_net_param")
    given = [name for name in names if message.HasField(name)]
    require(
        len(given) == 1,
        f"needs exactly one of {', '.join(names)}; it has {', '.join(given) or 'none'}",
        SolverError,
    )
    train = _text(solver, given[0])
    specific = [solver.nets["test_net_param", i] for i in range(len(message.test_net_param))]
    specific += [read_net(find(solver.file, name)) for name in message.test_net]
    count = len(message.test_iter)
    generic = given[0] in ("net", "net_param")
    require(
        count >= len(specific) if generic else count == len(specific),
        f"{count} test_iter for {len(specific)} test nets; give one for each",
        SolverError,
    )
    tests = specific + [train] * (count - len(specific))
    states = len(message.test_state)
    require(
        states in (0, len(tests)),
        f"{states} test_state for {len(tests)} test nets; give none, or one for each",
        SolverError,
    )
    require(
        not tests or message.test_interval > 0,
        "has test nets but no test_interval; how many updates lie between tests?",
        SolverError,
    )
    chosen = [message.test_state[i] if states else NetState() for i in range(len(tests))]
    return (
        (train, _merged(TRAIN, train, message.train_state)),
        [(net, _merged(TEST, net, own)) for net, own in zip(tests, chosen, strict=True)],
    )


def _text(solver: SolverText, field: str) -> NetText:
    if (field, 0) in solver.nets:
        return solver.nets[field, 0]
    return read_net(find(solver.file, getattr(solver.message, field)))


def find(solver_file: str, name: str) -> Path:
    """Find a file that a solver names: in the current folder as Caffe does, or in the solver's."""
    beside = Path(solver_file).parent / name
    return beside if os.path.exists(beside) and not os.path.exists(name) else Path(name)


def _merged(phase: Phase, net: NetText, own: NetState) -> NetState:
    """The phase, overridden by the net's own state, and that by the solver's state for it."""
    state = NetState(phase=phase)
    state.MergeFrom(net.message.state)
    state.MergeFrom(own)
    return state
