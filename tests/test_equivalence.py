"""A regime and its equivalent: what images weigh in both, and what becomes of the file."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from netspec.cli import main
from netspec.errors import NetSpecError, SolverError
from netspec.frontend.prototxt import read_solver
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.equivalence import NAMED, Target, convert, equivalent, target
from netspec.solving.schedules import schedule

SOLVERS = Path(__file__).resolve().parents[1] / "solvers"
IMAGES = 4000


def solver(**fields: object) -> SolverParameter:
    settings = {"base_lr": 0.02, "lr_policy": "fixed", "momentum": 0.9, "iter_size": 20}
    return SolverParameter(**{**settings, **fields})


def shares(param: SolverParameter) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each image, the newest first: its weight in the last step, and how far it has moved.

    By Caffe's rule, written down here: a step averages iter_size gradients of an image each, and
    momentum keeps a part of the step before. Image i's gradient is the unit vector i.
    """
    step, moved = np.zeros(IMAGES), np.zeros(IMAGES)
    for first in range(0, IMAGES, param.iter_size):
        gradient = np.zeros(IMAGES)
        gradient[first : first + param.iter_size] = 1 / param.iter_size
        step = param.momentum * step + param.base_lr * gradient
        moved += step
    return step[::-1], moved[::-1]


# Each turned into the other, and by a factor that is not whole.
TURNED = [
    (solver(), Target(1)),
    (solver(iter_size=1, momentum=0.99), Target(20)),
    (solver(iter_size=8, momentum=0.8), Target(5)),
]


@pytest.mark.parametrize(("old", "aim"), TURNED)
def test_an_old_image_weighs_as_much_in_a_step(old: SolverParameter, aim: Target) -> None:
    """Up to one step's decay: the images of a step all weigh the same."""
    new, _ = equivalent(old, aim)
    (before, _), (after, _) = shares(old), shares(new)
    most = min(old.momentum, new.momentum)
    seen = slice(0, 200)
    ratio = after[seen] / before[seen]
    assert ratio.min() > most * 0.999
    assert ratio.max() < 1.001 / most
    # Where both regimes begin a step with the same image, nothing is left but rounding.
    both = np.lcm(old.iter_size, new.iter_size)
    np.testing.assert_allclose(ratio[::both], 1, rtol=2e-3)


@pytest.mark.parametrize(("old", "aim"), TURNED)
def test_or_moves_the_weights_as_far(old: SolverParameter, aim: Target) -> None:
    new, _ = equivalent(old, Target(aim.iter_size, keep="way"))
    (_, before), (_, after) = shares(old), shares(new)
    forgotten = slice(IMAGES // 2, None)
    np.testing.assert_allclose(after[forgotten], before[forgotten], rtol=1e-3)
    # Images that still move the weights, too, have moved them about as far.
    assert abs(after - before).max() < before.max() * (1 - min(old.momentum, new.momentum)) * 1.01


def trained(param: SolverParameter) -> float:
    """Where a weight is that has begun at 0 and learned from noisy observations of 1."""
    weight = step = 0.0
    observed = 1 + 0.1 * np.random.default_rng(0).standard_normal(2000)
    for some in observed.reshape(-1, param.iter_size):
        gradient = np.mean(weight - some)
        step = param.momentum * step + param.base_lr * gradient
        weight -= step
    return weight


def test_training_on_the_same_images_ends_in_about_the_same_place() -> None:
    """With --keep way; the papers' equation alone learns faster by more steps."""
    old = solver(base_lr=2e-4 * 20, momentum=0.8)
    way, step = (equivalent(old, Target(1, keep=keep))[0] for keep in ("way", "step"))
    assert 0.7 < trained(old) < 0.9
    assert trained(way) == pytest.approx(trained(old), abs=0.01)
    assert trained(step) > 0.95


def test_the_papers_regimes() -> None:
    """0.9 over 20 images is 0.995 over one, and the rate of FCN-heavy that of FCN-accum."""
    accum, online, heavy = (
        read_solver(SOLVERS / f"voc-fcn32s{name}.prototxt").message
        for name in ("-accum", "-online", "")
    )
    found, _ = equivalent(accum, NAMED["heavy"])
    assert (found.iter_size, found.max_iter) == (heavy.iter_size, heavy.max_iter) == (1, 100_000)
    assert found.base_lr == pytest.approx(heavy.base_lr, rel=1e-6, abs=0)
    assert found.momentum == pytest.approx(0.9 ** (1 / 20), abs=1e-6)
    assert round(found.momentum, 2) == pytest.approx(heavy.momentum)
    found, _ = equivalent(accum, NAMED["online"])
    for name in ("base_lr", "momentum", "iter_size", "max_iter", "snapshot"):
        assert getattr(found, name) == pytest.approx(getattr(online, name), rel=1e-6, abs=0), name
    found, _ = equivalent(heavy, NAMED["accum"])
    assert (found.iter_size, found.max_iter, found.snapshot) == (20, 5000, 200)
    assert found.base_lr == pytest.approx(accum.base_lr, rel=1e-6, abs=0)
    assert found.momentum == pytest.approx(0.99**20, abs=1e-6)


@pytest.mark.parametrize("momentum", [0.9, 0.999, 0.9995])
def test_what_is_near_to_1_stays_exact(momentum: float) -> None:
    """What counts is how far off 1 it is."""
    new, _ = equivalent(solver(momentum=momentum, lr_policy="exp", gamma=0.9995), Target(1))
    for kept, exact in ((new.momentum, momentum), (new.gamma, 0.9995)):
        assert 1 - kept == pytest.approx(1 - exact ** (1 / 20), rel=0.01)
    inverse, _ = equivalent(solver(iter_size=1, lr_policy="inv", gamma=0.05, power=1), Target(20))
    assert inverse.gamma == 1


@pytest.mark.parametrize("momentum", [0.0, 0.35, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_there_and_back(momentum: float) -> None:
    """To the same float."""
    old = solver(max_iter=5000, momentum=momentum, lr_policy="exp", gamma=0.9995)
    for keep in ("step", "way"):
        there, _ = equivalent(old, Target(1, keep=keep))
        back, _ = equivalent(there, Target(20, keep=keep))
        assert (back.max_iter, back.iter_size) == (5000, 20)
        assert (back.base_lr, back.momentum) == (old.base_lr, old.momentum)


@pytest.mark.parametrize(
    "fields",
    [
        {"lr_policy": "step", "gamma": 0.1, "stepsize": 300},
        {"lr_policy": "multistep", "gamma": 0.1, "stepvalue": [100, 400]},
        {"lr_policy": "exp", "gamma": 0.99},
        {"lr_policy": "inv", "gamma": 0.01, "power": 0.75},
        {"lr_policy": "poly", "power": 2.0},
        {"lr_policy": "sigmoid", "gamma": 0.02, "stepsize": 300},
    ],
)
def test_the_rate_falls_over_as_many_images(fields: dict[str, object]) -> None:
    old = solver(max_iter=1000, **fields)
    new, _ = equivalent(old, Target(4))
    iterations = range(10, 1000, 90)
    before, after = (
        [float(schedule(param)(jnp.asarray(t * parts))) / param.base_lr for t in iterations]
        for param, parts in ((old, 1), (new, 5))
    )
    assert max(before) / min(before) > 2
    assert after == pytest.approx(before, rel=1e-3)


def test_a_larger_batch_counts_as_images() -> None:
    """20 images in a batch of the net are 20 batches of one."""
    found, told = equivalent(solver(iter_size=1), Target(batch=(20, 1)))
    expected, _ = equivalent(solver(), Target(1))
    assert (found.base_lr, found.momentum) == (expected.base_lr, expected.momentum)
    assert told[0] == "images    20 -> 1 a step"
    assert (
        "the net   needs another batch_size, 1 for 20, and a loss that is divided by it, as all "
        "but normalization: NONE are"
    ) in told


def test_counts_stay_in_range() -> None:
    old = solver(max_iter=100, test_interval=999_999_999, display=20, average_loss=3)
    new, told = equivalent(old, Target(1))
    assert (new.max_iter, new.test_interval, new.display) == (2000, 2**31 - 1, 400)
    assert (
        "counts    max_iter 100 -> 2000, test_interval 999999999 -> 2147483647 (cut to the most "
        "that a solver can count), display 20 -> 400, average_loss 3 -> 60: as many images"
    ) in told
    again, told = equivalent(solver(iter_size=1, average_loss=3, snapshot=5), Target(20))
    assert (
        "counts    snapshot 5 -> 1 (rounded from 0.25), average_loss 3 -> 1 (rounded from 0.15): "
        "as many images"
    ) in told
    assert (again.average_loss, again.snapshot) == (1, 1)
    assert not again.HasField("max_iter")


def test_as_many_images_are_the_same_regime() -> None:
    """Whatever it is called, and to the last digit."""
    online = solver(iter_size=1, base_lr=1.23456789e-5)
    new, told = equivalent(online, NAMED["heavy"])
    assert new == online
    assert told == [
        "images    1 -> 1 a step",
        "unchanged momentum 0.9, base_lr 1.2345679e-05 and all else: a regime of as many images a "
        "step is its own equivalent (--momentum P asks for another memory, as 0.99 of FCN-heavy)",
    ]
    assert equivalent(online, Target(momentum=0.99))[0].momentum == pytest.approx(0.99)


def test_no_momentum_stays_none() -> None:
    new, told = equivalent(SolverParameter(base_lr=0.1, iter_size=4), Target(1))
    assert not new.HasField("momentum")
    assert told[1] == "momentum  0: a step forgets those before it, whatever their images"


def test_clipping_is_of_the_sum() -> None:
    new, told = equivalent(solver(clip_gradients=10), Target(2))
    assert new.clip_gradients == 1
    assert any(line.startswith("clipping  clip_gradients 10 -> 1: ") for line in told)


@pytest.mark.parametrize(
    ("fields", "aim", "message"),
    [
        ({"type": "Adam"}, {}, "type \"Adam\": p^(1/k) = p'^(1/k') is about SGD and Nesterov"),
        ({"base_lr": 0}, {}, "base_lr 0 must be positive"),
        (
            {"iter_size": 10**6},
            {"iter_size": 1},
            "momentum would have to be 0.999999895 for 1 of 1000000 images a step, too near to 1 "
            "to keep",
        ),
        (
            {"lr_policy": "exp", "gamma": 0.99999},
            {"iter_size": 1},
            "gamma would have to be 0.999999499 for 1 of 20 images a step, too near to 1 to keep",
        ),
        ({"lr_policy": "exp", "gamma": -0.5}, {"iter_size": 1}, "gamma -0.5 must not be negative"),
        ({"momentum": 1.0}, {}, "momentum 1 is outside 0 to 1"),
        ({"iter_size": 0}, {}, "iter_size 0 must be at least 1"),
        ({}, {"momentum": 1.5}, "--momentum 1.5 is outside 0 to 1"),
        ({}, {"iter_size": 0}, "--iter-size 0 must be at least 1"),
        ({}, {"iter_size": 2**31}, "--iter-size 2147483648 must be at most 2147483647"),
        ({}, {"batch": (1, 0)}, "--batch 0 must be at least 1"),
    ],
)
def test_mistakes(fields: dict[str, object], aim: dict[str, object], message: str) -> None:
    with pytest.raises(SolverError) as error:
        equivalent(solver(**fields), Target(**aim))
    assert str(error.value) == message


def test_a_name_says_the_iter_size() -> None:
    assert target(["accum"], None, momentum=0.9, keep="way") == Target(20, (1, 1), 0.9, "way")
    assert target([], 3, momentum=None) == Target(3)
    for names, size, said in (
        (["accum"], 3, "--accum and --iter-size"),
        (["accum", "heavy"], None, "--accum and --heavy"),
    ):
        with pytest.raises(SolverError) as error:
            target(names, size)
        assert str(error.value) == f"{said} each say how many batches make a step; give one"
    with pytest.raises(SolverError, match=r"^say what to turn it into: --accum, "):
        target([], None, momentum=None, keep="way")


def test_a_solver_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER)
    with pytest.raises(NetSpecError, match=r"solver\.prototxt: is the solver to turn; write to "):
        convert(path, path, target(["heavy"], None))
    assert path.read_text() == SOLVER


# The command

SOLVER = """# Mine: 20 images a step.
net: "net.prototxt"   # whose data layer reads one
base_lr: 2e-2 lr_policy: "multistep" gamma: 0.1
stepvalue: [10, 20]  # epochs
momentum: 0.9 iter_size: 20
train_state { stage: "momentum: 1" }
max_iter: 30 # counts
snapshot_prefix: "a"
"""
TURNED_SOLVER = """# solver.prototxt, turned by netspec regime: images 20 -> 1 a step.
# Mine: 20 images a step.
net: "net.prototxt"   # whose data layer reads one
base_lr: 0.001 lr_policy: "multistep" gamma: 0.1
stepvalue: [200, 400]  # epochs
momentum: 0.9947458 iter_size: 1
train_state { stage: "momentum: 1" }
max_iter: 600 # counts
snapshot_prefix: "a"
"""
TOLD = """images    20 -> 1 a step
momentum  0.9 -> 0.9947458: p^(1/k) stays, so that an image is forgotten after as many others
base_lr   0.02 -> 0.001: Caffe averages a step over its images; an image's weight in a step, \
base_lr / k, stays 0.001; in all, base_lr / k / (1 - p), it moves the weights 19 times as far, by \
20 times as many steps (--keep way: as far)
counts    max_iter 30 -> 600, stepvalue 10+20 -> 200+400: as many images
snapshots a, as before: runs of both regimes would write over each other's
new/solver.prototxt
"""


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["regime", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("solver.prototxt").write_text(SOLVER)
    result = run("solver.prototxt", "--heavy", "-o", "new/solver.prototxt")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == TOLD
    assert Path("new/solver.prototxt").read_text() == TURNED_SOLVER


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # What is new stands at the end.
        ("base_lr: 1 momentum: 0.5", ["base_lr: 4 momentum: 0.0625", "iter_size: 4"]),
        # A value that a comment hides.
        ("base_lr: # !\n1", ["base_lr: 4", "iter_size: 4"]),
        ("weights: 'base_lr: 7' base_lr: 1", ["weights: 'base_lr: 7' base_lr: 4", "iter_size: 4"]),
    ],
)
def test_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.prototxt").write_text(text)
    assert run("a.prototxt", "--iter-size", "4", "-o", "b.prototxt").exit_code == 0
    _, *lines = Path("b.prototxt").read_text().splitlines()
    assert lines == expected
    assert read_solver("b.prototxt").message.iter_size == 4


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("base_lr: 1\nmomentum: 2", [], "a.prototxt:2: momentum 2 is outside 0 to 1"),
        ("momentun: 2", [], 'a.prototxt:1: unknown field "momentun" in SolverParameter; '),
        ("base_lr: 1", ["-o", "a.prototxt/b"], "a.prototxt/b: not a directory"),
        ("base_lr: 1", ["-o", "."], ".: is a directory"),
        ("base_lr: 1", ["--accum"], "--accum and --heavy each say how many batches make a step; "),
    ],
)
def test_mistakes_of_the_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.prototxt").write_text(text)
    result = run("a.prototxt", "--heavy", "-o", "b.prototxt", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"netspec: {message}")
