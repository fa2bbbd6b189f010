"""What a solver file asks for: nets, states, weights to start from, and messages."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from solver_nets import BASE, ROWS, WEIGHT, Log, net, solver, weight_of, weights_file
from solver_nets import folder as folder

from netspec.errors import NetSpecError, ParseError, SolverError, WeightsError
from netspec.frontend.prototxt import read_solver
from netspec.frontend.upgrade import upgrade_solver
from netspec.proto.layers_pb2 import TEST, TRAIN
from netspec.solving import settings as solver_settings
from netspec.solving.solver import Solver

# Weights to start from


def test_weights_come_in_order() -> None:
    weights_file("a.caffemodel", WEIGHT)
    weights_file("b.caffemodel", 2 * WEIGHT)
    loop = solver()
    copied = loop.load_weights("b.caffemodel, a.caffemodel")
    assert [one.file for one in copied] == ["b.caffemodel", "a.caffemodel"]
    assert np.array_equal(weight_of(loop), WEIGHT)
    named = 'weights: "a.caffemodel" weights: "a.caffemodel,b.caffemodel"'
    assert np.array_equal(weight_of(solver(named)), 2 * WEIGHT)


def test_weights_may_lie_beside_the_solver() -> None:
    shutil.copytree(".", "there")
    weights_file("there/a.caffemodel")
    Path("there/solver.prototxt").write_text(BASE + 'weights: "a.caffemodel"')
    assert np.array_equal(weight_of(Solver.from_file("there/solver.prototxt")), WEIGHT)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("no.caffemodel", "no.caffemodel: cannot read: no such file"),
        ("a.caffemodel,", ".: cannot read: is a directory"),
        ("b.caffemodel", "b.caffemodel: has no layer of net.prototxt; it has conv1"),
        (
            "c.caffemodel",
            'c.caffemodel: layer "ip" (InnerProduct): weight is 3 in the file, 2x3 in the net; '
            "skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it",
        ),
    ],
)
def test_weights_that_do_not_fit(names: str, message: str) -> None:
    weights_file("a.caffemodel")
    weights_file("b.caffemodel", layer="conv1")
    weights_file("c.caffemodel", [1, 2, 3])
    with pytest.raises(WeightsError) as raised:
        solver().load_weights(names)
    assert str(raised.value) == message


# What a solver asks for


def texts(settings: str) -> tuple[Any, list[Any]]:
    Path("solver.prototxt").write_text(settings)
    return solver_settings.net_texts(upgrade_solver(read_solver("solver.prototxt")))


def inline(name: str) -> str:
    return f'{name} {{ name: "{name}" layer {{ name: "data" type: "Input" top: "x" }} }} '


@pytest.mark.parametrize(
    ("settings", "train", "tests"),
    [
        ('net: "net.prototxt"', "net.prototxt", []),
        ('net: "net.prototxt" test_iter: 5 test_interval: 1', "net.prototxt", ["net.prototxt"]),
        (
            'net: "net.prototxt" test_iter: 5 test_iter: 2 test_interval: 1',
            "net.prototxt",
            ["net.prototxt"] * 2,
        ),
        (
            'net: "net.prototxt" test_net: "a.prototxt" test_iter: 5 test_iter: 2 test_interval: 1',
            "net.prototxt",
            ["a.prototxt", "net.prototxt"],
        ),
        ('train_net: "a.prototxt"', "a.prototxt", []),
        (
            'train_net: "a.prototxt" test_net: "net.prototxt" test_iter: 1 test_interval: 1',
            "a.prototxt",
            ["net.prototxt"],
        ),
        (inline("net_param") + "test_iter: 5 test_interval: 1", "net_param", ["net_param"]),
        (
            inline("train_net_param")
            + inline("test_net_param")
            + 'test_net: "a.prototxt" test_iter: 1 test_iter: 2 test_interval: 1',
            "train_net_param",
            ["test_net_param", "a.prototxt"],
        ),
    ],
)
def test_forms_of_nets(settings: str, train: str, tests: list[str]) -> None:
    for name in ("net.prototxt", "a.prototxt"):
        Path(name).write_text(f'name: "{name}"')
    found, others = texts(settings)
    assert found[0].message.name == train
    assert [net.message.name for net, _ in others] == tests
    assert found[1].phase == TRAIN
    assert {state.phase for _, state in others} <= {TEST}


def test_nets_are_found_beside_the_solver() -> None:
    Path("there").mkdir()
    Path("net.prototxt").rename("there/net.prototxt")
    Path("there/solver.prototxt").write_text('net: "net.prototxt"')
    train, _ = solver_settings.net_texts(upgrade_solver(read_solver("there/solver.prototxt")))
    assert train[0].file == "there/net.prototxt"


def test_states_add_up() -> None:
    Path("net.prototxt").write_text('state { level: 1 stage: "net" }')
    (_, train), tests = texts(
        'net: "net.prototxt" train_state { level: 2 stage: "train" } test_interval: 1 '
        'test_iter: 1 test_state { stage: "a" } test_iter: 1 test_state { level: 3 stage: "b" }'
    )
    assert (train.phase, train.level, list(train.stage)) == (TRAIN, 2, ["net", "train"])
    assert [(s.phase, s.level, list(s.stage)) for _, s in tests] == [
        (TEST, 1, ["net", "a"]),
        (TEST, 3, ["net", "b"]),
    ]


NETS = "net, net_param, train_net, train_net_param"


@pytest.mark.differs("iter-size-0")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", f": needs exactly one of {NETS}; it has none"),
        (
            'net: "net.prototxt" train_net: "net.prototxt"',
            f":2: needs exactly one of {NETS}; it has net, train_net",
        ),
        (
            'net: "net.prototxt" test_net: "net.prototxt" test_interval: 1',
            ": 0 test_iter for 1 test nets; give one for each",
        ),
        (
            'train_net: "net.prototxt" test_iter: 1 test_interval: 1',
            ":2: 1 test_iter for 0 test nets; give one for each",
        ),
        (
            'train_net: "net.prototxt" test_net: "net.prototxt" test_iter: 1 test_iter: 1',
            ":2: 2 test_iter for 1 test nets; give one for each",
        ),
        (
            'net: "net.prototxt" test_iter: 1 test_interval: 1 test_state { } test_state { }',
            ":2: 2 test_state for 1 test nets; give none, or one for each",
        ),
        (
            'net: "net.prototxt" test_iter: 1',
            ": has test nets but no test_interval; how many updates lie between tests?",
        ),
        ("iter_size: 0", ":2: iter_size 0 must be at least 1"),
        ("average_loss: 0", ":2: average_loss 0 must be at least 1"),
        ("max_iter: -1", ":2: max_iter -1 must not be negative"),
        ("display: -20", ":2: display -20 must not be negative"),
        ("snapshot: -1", ":2: snapshot -1 must not be negative"),
        ("test_interval: -1", ":2: test_interval -1 must not be negative"),
    ],
)
def test_messages(settings: str, message: str) -> None:
    with pytest.raises(SolverError) as raised:
        solver(settings, base='base_lr: 1 lr_policy: "fixed"\n')
    assert str(raised.value) == f"solver.prototxt{message}"


def test_a_list_of_devices_is_told() -> None:
    with pytest.raises(ParseError) as raised:
        solver("device_id: 0,1", base='base_lr: 1 lr_policy: "fixed"\n')
    assert str(raised.value) == (
        "solver.prototxt:2: device_id: 0,1 is a list, but device_id takes one value; "
        "netspec solve --devices trains on several"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('net: "no.prototxt"', "solver.prototxt: no.prototxt: no such file"),
        (
            'net: "net.prototxt" type: "SDG"',
            'solver.prototxt:1: unknown solver type "SDG"; did you mean "SGD"?',
        ),
        (
            'net: "net.prototxt" regularization_type: "l2"',
            'solver.prototxt:1: unknown regularization_type "l2"; did you mean "L2"?',
        ),
    ],
)
def test_messages_of_what_a_solver_names(settings: str, message: str) -> None:
    with pytest.raises(NetSpecError) as raised:
        solver(settings, base='base_lr: 1 lr_policy: "fixed" ')
    assert str(raised.value) == message


def test_without_base_lr_nothing_is_learned() -> None:
    """As in Caffe, where it is 0; a warning says so."""
    loop = solver(base='net: "net.prototxt" lr_policy: "fixed" ')
    before = weight_of(loop)
    loop.step(2)
    assert np.array_equal(weight_of(loop), before)
    assert solver_settings.doubts(loop.text) == [
        "solver.prototxt: base_lr is not set, so that it is 0: nothing will be learned"
    ]


@pytest.mark.differs("tests-of-nothing")
@pytest.mark.parametrize("count", [0, -1])
def test_a_test_of_no_batches_is_none(count: int) -> None:
    """As in Caffe; published solvers switch tests off so, and their test data may be absent."""
    absent = f"test_net_param {{ {net().replace('rows.txt', 'absent.txt')} }}"
    log = Log()
    loop = solver(f"{absent} test_iter: {count} test_interval: 1 max_iter: 2", log)
    loop.solve()
    assert [event for event in log.events if event.startswith("test ")] == []
    assert loop.iteration == 2


def test_one_test_of_no_batches_beside_another() -> None:
    log = Log()
    loop = solver("test_iter: 0 test_iter: 2 test_interval: 1", log)
    loop.test_all()
    assert [event for event in log.events if event.startswith("test ")] == ["test 1 at 0"]
    assert loop.test(0).batches == 0


def test_statistics_are_kept_by_training_and_not_learned() -> None:
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "n" }'
    lines = net(batch=2).replace('bottom: "x" top: "y"', 'bottom: "n" top: "y"')
    Path("net.prototxt").write_text(
        lines.replace('layer {\n  name: "ip"', f'{norm}\nlayer {{ name: "ip"')
    )
    loop = solver("weight_decay: 0.5 iter_size: 2")
    loop.step(1)
    # The second pass of an update sees the statistics that the first has left.
    first, second = ROWS[:2], ROWS[2:4]
    decay = 0.999
    wanted = {
        "mean": decay * first.mean(0) + second.mean(0),
        "variance": decay * first.var(0, ddof=1) + second.var(0, ddof=1),
        "scale_factor": [decay + 1],
    }
    for name, value in wanted.items():
        found = loop.net.params["bn"][name][...]
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)
