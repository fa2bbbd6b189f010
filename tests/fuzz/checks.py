"""The checks: functions of a trial, each of which returns, or raises Skip or Wrong."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from click.testing import CliRunner

from netspec import caffe
from netspec.cli import main
from netspec.errors import LayerError, NetSpecError
from netspec.frontend.refused_gradients import check_backward

from . import face, truth
from .trial import Skip, Trial, Wrong
from .truth import Point

Check = Callable[[Trial], None]
CHECKS: dict[str, Check] = {}
# What compiles programs of its own is done for every so many nets, unless all is asked for.
EVERY: dict[str, int] = {}


def check(every: int = 1) -> Callable[[Check], Check]:
    """Enter a check, for every so many nets."""

    def enter(function: Check) -> Check:
        CHECKS[function.__name__] = function
        EVERY[function.__name__] = every
        return function

    return enter


Choice = Callable[[int], dict[str, Check]]


def in_turn(seed: int) -> dict[str, Check]:
    """The checks that are done for the net of a seed unless others are chosen."""
    names = list(CHECKS)
    return {n: c for n, c in CHECKS.items() if (seed + names.index(n)) % EVERY[n] == 0}


def chosen(thorough: bool, only: Sequence[str] | None) -> Choice:
    """Seed -> checks: all of them, some by name, or each in turn."""
    if only:
        return lambda seed: {name: CHECKS[name] for name in only}
    return (lambda seed: CHECKS) if thorough else in_turn


def compare(what: str, got: Any, want: Any, tolerance: float = 1e-5, room: Any = 0.0) -> None:
    """Raise Wrong where arrays differ by more than rounding does, and by more than ``room``."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise Wrong(f"{what}: shape {got.shape} for {want.shape}")
    usual = np.abs(want[np.isfinite(want)])
    limit = tolerance * max(usual[usual < 1e38].max(initial=0), 1e-3) + room
    near = (np.abs(got - want) <= limit) | (got == want) | (np.isnan(got) & np.isnan(want))
    if not near.all():
        at = tuple(np.argwhere(~near)[0])
        raise Wrong(f"{what}: {got[at]:.7g} for {want[at]:.7g} at {list(map(int, at))}")


def room(trial: Trial, i: int) -> Any:
    """How much rounding may change a value; Skip where nothing is said of it."""
    if i not in trial.truth:
        raise Skip("a pooling window beyond the image")
    return 5 * sum(np.abs(values[i] - trial.truth[i]) for values in trial.blurred)


def compare_value(trial: Trial, what: str, i: int, got: Any, want: Any) -> None:
    """`compare` a value, with room for rounding that the net makes much of."""
    try:
        compare(what, got, want)
    except Wrong:
        compare(what, got, want, room=room(trial, i))


@check()
def forward(trial: Trial) -> None:
    """Every value is the reference's, and so is what is kept for the next run."""
    made = trial.compiled
    for i, want in trial.truth.items():
        if i not in trial.fed:
            compare_value(trial, trial.name(i), i, made.values[i], want)
    for key, want in truth.kept(trial.face, Point(trial.params, trial.fed), trial.truth).items():
        compare(f"kept {key}", made.kept.get(key, trial.params.get(key)), want, 1e-4)


@check(every=8)
def jit(trial: Trial) -> None:
    """The public net, compiled, gives what its layers give one by one."""
    blobs = trial.face.call(trial.params, trial.fed_by_name)
    for name, array in blobs.items():
        i = trial.graph.blobs[name]
        compare_value(trial, name, i, array, {**trial.fed, **trial.eager}[i])


@check()
def gradients(trial: Trial) -> None:
    """Every gradient is the reference's slope along a random direction."""
    if own := [n.type for n in trial.graph.nodes if n.type in truth.OWN_GRADIENT]:
        raise Skip(f"{own[0]}: its gradient is not its slope, in Caffe neither")
    params, fed, *_ = trial.compiled
    trial.whole()
    rough: Skip | None = None
    for key, gradient in [*params.items(), *((i, fed[i]) for i in sorted(trial.smooth))]:
        if not trial.face.learned.get(key, True):
            if gradient.any():
                raise Wrong(f"{key}: a statistic has a gradient")
            continue
        try:
            slope(trial, key, np.asarray(gradient, float))
        except Skip as why:
            rough = why
    for i in trial.fed.keys() - trial.smooth:
        if fed[i].any():
            raise Wrong(f"{trial.name(i)}: indices have a gradient")
    if rough is not None:
        raise rough


def slope(trial: Trial, key: Any, gradient: Any) -> None:
    """Compare the gradient of one array with the slope along one direction."""
    rng = np.random.default_rng(trial.draft.seed)
    direction = rng.choice([-1.0, 1.0], gradient.shape)
    got = float(np.vdot(gradient, direction))
    scale = max(float(np.linalg.norm(gradient)), abs(got), 0.02 * trial.started)
    plain = Point(trial.params, trial.fed)
    want, jump = _slope(trial, plain, trial.truth, key, direction)
    share = max(truth.NEARLY.get(node.type, 2e-4) for node in trial.graph.nodes)
    if abs(got - want) <= share * max(scale, abs(want)):
        return
    if jump > 0.02 * abs(got - want):
        raise Skip("a kink or a step at these numbers")
    for salt, base in zip((1, 2, 3), trial.blurred, strict=True):
        other, _ = _slope(trial, Point(trial.params, trial.fed, 3e-7, salt), base, key, direction)
        scale = max(scale, 1e5 * abs(other - want))
    if abs(got - want) > share * max(scale, abs(want)):
        name = trial.name(key) if isinstance(key, int) else key
        raise Wrong(f"gradient of {name}: {got:.7g} for a slope of {want:.7g}")


def _slope(trial: Trial, at: Point, base: Any, key: Any, direction: Any) -> tuple[float, float]:
    """The slope, and how far those to the two sides stay apart when the step gets small."""

    def height(step: float) -> float:
        values = trial.evaluate(at.moved(key, step * direction), base, key)
        return truth.objective(trial.face, values, trial.seeds)

    middle = truth.objective(trial.face, base, trial.seeds)
    sides = {}
    for step in (1e-5, 1e-6):
        sides[step] = (height(step) - middle) / step, (middle - height(-step)) / step
    right, left = sides[1e-5]
    near_right, near_left = sides[1e-6]
    jump = abs(near_right - near_left)
    if jump < 0.1 * abs(right - left):
        # A kink lies between the steps: the nearer slopes agree.
        return (near_right + near_left) / 2, 0.0
    # Of a smooth curve a tenth remains at a tenth of the step.
    return (right + left) / 2, jump if jump > 0.2 * abs(right - left) else 0.0


@check(every=3)
def pycaffe(trial: Trial) -> None:
    """pycaffe's passes give the compiled net's values and gradients."""
    trial.settled()
    net = caffe.Net(str(trial.path), getattr(caffe, trial.draft.phase.upper()))
    for name in net.inputs:
        net.blobs[name].data[...] = trial.fed_by_name[name]
    for layer, blobs in by_layer(trial).items():
        for blob, array in zip(net.params[layer], blobs, strict=True):
            blob.data[...] = array.reshape(blob.data.shape)
    start, seeds = reached_seeds(trial)
    params, fed, values, _ = trial.gradients(start)
    net.forward()
    for name, blob in net.blobs.items():
        i = trial.graph.all_blobs[name]
        compare_value(trial, f"data of {name}", i, blob.data, {**trial.fed, **values}[i])
    has_backward(trial)
    net.backward(**seeds)
    most = greatest(*params.values(), *fed.values())
    for n, node in enumerate(trial.graph.nodes):
        for k, key in enumerate(trial.face.keys[n]):
            if trial.face.trained(key) and trial.face.learned[key]:
                got = net.params[node.name][k].diff
                want = params[key].reshape(got.shape)
                compare(f"diff of {node.name}[{k}]", got, want, 1e-4, 1e-5 * most)
    for name in net.inputs if trial.face.forced() else ():
        i = trial.graph.first_blobs[name]
        compare(f"diff of {name}", net.blobs[name].diff, fed[i], 1e-4, 1e-5 * most)


def has_backward(trial: Trial) -> None:
    """Skip where a backward pass is refused, as Caffe refuses it."""
    try:
        check_backward(trial.face.shapes)
    except LayerError:
        raise Skip("a backward pass that is refused") from None


def reached_seeds(trial: Trial) -> tuple[dict[int, Any], dict[str, Any]]:
    """The gradients of outputs as Caffe's backward takes them: by value, and by blob.

    It starts from outputs that are no loss where all gradients are forced, or a loss depends on
    the layer.
    """
    named = {trial.graph.values[i].name: i for i in trial.seeds}
    reached = {name for name in named if trial.face.reached(name)}
    if trial.graph.data_dependent:
        reached = set()
    start = {
        i: trial.seeds[i] if name in reached else np.zeros_like(trial.seeds[i])
        for name, i in named.items()
    }
    return start, {name: trial.seeds[named[name]] for name in reached}


def greatest(*arrays: Any) -> float:
    """The greatest number in some arrays."""
    return max((float(np.abs(array).max(initial=0)) for array in arrays), default=0.0)


def by_layer(trial: Trial) -> dict[str, list[Any]]:
    """Layer name -> its learned arrays, in Caffe's order."""
    return {
        node.name: [trial.params[key] for key in keys]
        for node, keys in zip(trial.graph.nodes, trial.face.keys, strict=True)
        if keys
    }


@check(every=3)
def buckets(trial: Trial) -> None:
    """A net in larger arrays gives what it gives in arrays of its own size."""
    trial.settled()
    if trial.graph.data_dependent:
        raise Skip("is run op by op")
    said, blobs, gradients = trial.face.bucketed(trial.arrays[0], trial.fed_by_name)
    if blobs is None:
        raise Skip(
            "needs blobs of its own size" if "compiled for each" in said else "no image is fed"
        )
    zeros = {i: np.zeros_like(seed) for i, seed in trial.seeds.items()}
    params, _, values, _ = trial.gradients(zeros)
    for name, array in blobs.items():
        i = trial.graph.blobs[name]
        compare_value(trial, f"blob {name}", i, array, {**trial.fed, **values}[i])
    most = greatest(*params.values())
    for key, gradient in gradients.items():
        compare(f"gradient of {key}", gradient, params[key], 1e-4, 1e-5 * most)


def command(*arguments: str) -> str:
    """What a command of netspec's prints; raises Wrong where it fails."""
    done = CliRunner().invoke(main, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code:
        raise Wrong(f"netspec {arguments[0]}: {done.output.strip().replace(arguments[1], 'net')}")
    return done.output


@check()
def looks(trial: Trial) -> None:
    """Whatever compiles is drawn, listed and its pixels traced."""
    phase = ("--phase", trial.draft.phase)
    net = str(trial.path)
    ending = "svg" if trial.draft.seed % 2 else "dot"
    command("draw", net, "-o", str(trial.folder / f"net.{ending}"), *phase)
    form = ("table", "csv", "json")[trial.draft.seed % 3]
    command("summary", net, "--format", form, *phase)
    command("rf", net, *phase)


@check()
def upgrade(trial: Trial) -> None:
    """An old spelling is the net that the current one is, and so is its upgraded file."""
    new, newer = trial.folder / "new.prototxt", trial.folder / "newer.prototxt"
    command("upgrade", str(trial.path), str(new))
    command("upgrade", str(new), str(newer))
    if new.read_text() != newer.read_text():
        raise Wrong("upgraded twice is another net than upgraded once")
    want = layers(face.graph_of(_current(trial), trial.draft.phase))
    for text in (trial.path.read_text(), new.read_text()):
        got = layers(face.graph_of(text, trial.draft.phase))
        for mine, theirs in zip(got, want, strict=True):
            if mine != theirs:
                raise Wrong(f"a layer upgraded to {mine!r} instead of {theirs!r}")


def _current(trial: Trial) -> str:
    from google.protobuf import text_format

    return text_format.MessageToString(trial.draft.current())


def layers(graph: Any) -> list[str]:
    """All that a net's layers say, but the Input layers' division."""
    said = [str(node.layer.spec) for node in graph.nodes if node.type != "Input"]
    fed = sorted(
        f"{graph.values[top].name} {node.layer.shape()[slot]}"
        for node in graph.nodes
        if node.type == "Input"
        for slot, top in enumerate(node.tops)
    )
    return [*said, *fed, f"force_backward {graph.force_backward}"]


def outcome(function: Check, trial: Trial) -> tuple[str, str]:
    """("passed", ""), ("skipped", why) or ("failed", what)."""
    try:
        function(trial)
    except Skip as why:
        return "skipped", str(why)
    except Wrong as what:
        return "failed", str(what)
    except NetSpecError as error:
        if trial.graph.data_dependent:
            return "skipped", "cannot work at the size that its data chose"
        return "failed", f"refused: {type(error).__name__}: {error.message}"
    except Exception as error:
        return "failed", f"raw {type(error).__name__}: {str(error)[:300]}"
    return "passed", ""


Outcomes = Mapping[str, tuple[str, str]]
