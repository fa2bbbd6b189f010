"""The training loop: Caffe's steps, with one compiled and donated function for each.

Caffe: ``Solver::Step``, ``Solver::Solve``, ``Solver::Test`` in ``solver.cpp``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from netspec import build
from netspec.errors import Place, SolverError, WeightsError, blame, require
from netspec.layers.base import Array, text
from netspec.module import Net
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState
from netspec.proto.solver_pb2 import SolverParameter
from netspec.prototxt import NetText, SolverText, read_net, read_solver
from netspec.runner import run
from netspec.shapes import ParamKey, Shapes
from netspec.solving import updates
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.solving.schedules import schedule
from netspec.solving.snapshot import State, find_weights, read_state, write_state
from netspec.sources.feed import Feed
from netspec.upgrade import upgrade_solver
from netspec.weights import Copied, copy_into, read_weights, write_weights

Tree = dict[ParamKey, Array]


class Micro(NamedTuple):
    """What one forward and backward pass gives: the loss, gradients, and the net's outputs."""

    loss: Array
    gradients: Tree
    statistics: Tree
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Step:
    """What the loop tells about a step as it goes: arrays may still be under way on the device.

    iteration: the updates made before it. rate: its learning rate. outputs: of the last pass.
    """

    iteration: int
    loss: Array
    rate: float
    outputs: Mapping[str, Array]


class Listener:
    """Who is told what happens; the default ones say nothing."""

    def step(self, solver: Solver, step: Step) -> None:
        """An update was made."""

    def test(self, solver: Solver, index: int, result: Evaluation) -> None:
        """Test net ``index`` was run."""

    def testing(self, solver: Solver, index: int) -> None:
        """Test net ``index`` is about to run."""

    def snapshot(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        """A snapshot was written."""


class Solver:
    """A net in training.

    net: the train net; its arrays are those of the last update. test_nets: the nets that
    `test` runs, on the same arrays. iteration: updates made so far.
    """

    def __init__(self, text: SolverText, listener: Listener | None = None) -> None:
        """Build every net and open the training data; raises a NetSpecError."""
        self.text = upgrade_solver(text)
        self.param: SolverParameter = self.text.message
        self.listener = listener or Listener()
        with blame(Place(text.file)):
            updates.check_positive(self.param)
            self.rate = schedule(self.param)
            train, tests = _net_texts(self.text)
        self.seed = self.param.random_seed if self.param.random_seed >= 0 else _entropy()
        train_graph = build.graph_of(*train)
        self.feed = Feed(train_graph, self.seed)
        self.net = build.compile_net(train_graph, self.feed.tops, self.seed)
        self.keep: tuple[str, ...] = self.net.graph.outputs
        self.test_graphs = [build.graph_of(*test) for test in tests]
        self.iteration = 0
        self.losses: deque[Array] = deque(maxlen=self.param.average_loss)
        self.outputs: Mapping[str, Array] = {}
        with blame(Place(text.file)):
            self.transformation = updates.transformation(self.param, self._learned_specs)
        self.state = self.transformation.init(self._learned())
        self.stopping = False
        for weights in self.param.weights:
            self.load_weights(weights)

    @staticmethod
    def from_file(path: str | Path, listener: Listener | None = None) -> Solver:
        """The solver of a prototxt file; raises a NetSpecError."""
        return Solver(read_solver(path), listener)

    def load_weights(self, names: str) -> list[Copied]:
        """Fine-tune from weight files, comma-separated, by layer name."""
        return [copy_into(self.net, read_weights(name.strip())) for name in names.split(",")]

    def solve(self, max_iter: int | None = None) -> None:
        """Train to the end, with tests and snapshots on the way and at the end."""
        limit = self.param.max_iter if max_iter is None else max_iter
        self.step(limit - self.iteration)
        every = self.param.snapshot
        if self.param.snapshot_after_train and (not every or self.iteration % every):
            self.snapshot()
        if not self.stopping and self._due(self.param.test_interval):
            self.test_all()

    def step(self, count: int) -> None:
        """Make ``count`` updates, or fewer if `stopping` is set meanwhile."""
        for _ in range(count):
            if self.stopping:
                return
            if self._due(self.param.test_interval) and (
                self.iteration or self.param.test_initialization
            ):
                self.test_all()
            self._update()
            if self.param.snapshot and self.iteration % self.param.snapshot == 0:
                self.snapshot()

    def smoothed_loss(self) -> float:
        """The mean of the last ``average_loss`` losses."""
        return float(np.mean([np.asarray(loss) for loss in self.losses]))

    def test_all(self) -> None:
        """Run every test net on its data."""
        for index in range(len(self.test_nets)):
            self.listener.testing(self, index)
            self.listener.test(self, index, self.test(index))

    def test(self, index: int) -> Evaluation:
        """Run test net ``index`` for its ``test_iter`` batches."""
        net = self.test_nets[index]
        self._share_with(net)
        return evaluate(net, self.test_feeds[index], self.param.test_iter[index])

    @cached_property
    def test_nets(self) -> list[Net]:
        """The nets that `test` runs, built when first asked for."""
        feeds = zip(self.test_graphs, self.test_feeds, strict=True)
        return [build.compile_net(graph, feed.tops, self.seed) for graph, feed in feeds]

    @cached_property
    def test_feeds(self) -> list[Feed]:
        """The data of the test nets; each goes on where its last test ended, as Caffe's does."""
        return [Feed(graph, self.seed) for graph in self.test_graphs]

    def snapshot(self) -> tuple[Path, Path]:
        """Write weights and state; returns their paths. Raises SolverError if the disk will not."""
        end = ".h5" if self.param.snapshot_format == SolverParameter.HDF5 else ""
        stem = f"{self.param.snapshot_prefix}_iter_{self.iteration}"
        weights, state = Path(f"{stem}.caffemodel{end}"), Path(f"{stem}.solverstate{end}")
        arrays = self.net.arrays()
        rule = updates.rule_state(self.state)
        history = tuple(
            slot.get(key, jnp.zeros_like(array))
            for slot in rule.history
            for key, array in arrays.items()
        )
        passed = sum(self.iteration >= value for value in self.param.stepvalue)
        try:
            write_weights(weights, self.net.shapes, arrays)
            write_state(state, State(self.iteration, str(weights), history, passed))
        except OSError as error:
            raise SolverError(
                f"cannot write snapshot {stem}: {error.strerror or error}"
            ) from None
        self.listener.snapshot(self, (weights, state))
        return weights, state

    def restore(self, path: str | Path) -> None:
        """Go on from a .solverstate and the weights it names; raises WeightsError."""
        state = read_state(path)
        copy_into(self.net, read_weights(find_weights(state, path)))
        rule = updates.rule_state(self.state)
        keys = list(self.net.shapes.params)
        with blame(Place(str(path))):
            require(
                len(state.history) == len(keys) * len(rule.history),
                f"holds {len(state.history)} history blobs; this solver keeps "
                f"{len(keys) * len(rule.history)}",
                WeightsError,
            )
            slots = tuple(
                self._history_slot(state.history[i * len(keys) : (i + 1) * len(keys)])
                for i in range(len(rule.history))
            )
        count = jnp.asarray(state.iteration, jnp.int32)
        self.state = updates.with_rule_state(self.state, updates.RuleState(count, slots))
        self.iteration = state.iteration
        self.losses.clear()

    def close(self) -> None:
        """Stop the threads that read data."""
        self.feed.close()
        if "test_feeds" in self.__dict__:
            for feed in self.test_feeds:
                feed.close()

    def _due(self, interval: int) -> bool:
        return bool(interval and self.test_graphs and self.iteration % interval == 0)

    def _update(self) -> None:
        iteration, learned = self.iteration, self._learned()
        fixed = {k: a for k, a in self.net.arrays().items() if k not in learned}
        if self.param.iter_size == 1:
            micro, learned, self.state = self._single(fixed, learned)
        else:
            micro, learned, self.state = self._accumulated(fixed, learned)
        self.net.assign({**learned, **micro.statistics})
        self.outputs = micro.outputs
        self.losses.append(micro.loss)
        self.iteration += 1
        rate = float(self.rate(jnp.asarray(iteration))) if self._displays(iteration) else 0.0
        self.listener.step(self, Step(iteration, micro.loss, rate, micro.outputs))

    def _displays(self, iteration: int) -> bool:
        return bool(self.param.display) and iteration % self.param.display == 0

    def _single(self, fixed: Tree, learned: Tree) -> tuple[Micro, Tree, Any]:
        program, feeds, key = self._batch(0)
        return _whole_step(program, fixed, learned, self.state, feeds, key)

    def _accumulated(self, fixed: Tree, learned: Tree) -> tuple[Micro, Tree, Any]:
        """``iter_size`` passes, their gradients summed; the loss is their mean."""
        total: Tree = {}
        losses = []
        for i in range(self.param.iter_size):
            program, feeds, key = self._batch(i)
            micro = _pass(program, fixed, learned, total, feeds, key)
            total = micro.gradients
            fixed = {**fixed, **micro.statistics}
            losses.append(micro.loss)
        learned, state = _apply(program, learned, self.state, total)
        loss = sum(losses[1:], losses[0]) / self.param.iter_size
        return micro._replace(loss=loss), learned, state

    def _batch(self, micro: int) -> tuple[Program, Mapping[str, Array], Array]:
        """The next batch on its way to the device, and the program for its shapes."""
        feeds = self.feed.next(self.net.shapes)
        shapes = self.net.shapes_for({name: array.shape for name, array in feeds.items()})
        moment = self.iteration * self.param.iter_size + micro
        key = jax.random.fold_in(self._root_key, moment)
        return self._program(shapes), jax.device_put(feeds), key

    def _program(self, shapes: Shapes) -> Program:
        if (shapes, self.keep) not in self._programs:
            self._programs[shapes, self.keep] = Program(shapes, self.keep, self.transformation)
        return self._programs[shapes, self.keep]

    @cached_property
    def _programs(self) -> dict[tuple[Shapes, tuple[str, ...]], Program]:
        return {}

    @cached_property
    def _root_key(self) -> Array:
        return jax.random.key(self.seed)

    @cached_property
    def _learned_specs(self) -> dict[ParamKey, Any]:
        """The arrays that training changes: no gradient is computed for the others."""
        shapes = self.net.shapes
        return {
            key: spec
            for key, spec in shapes.param_specs.items()
            if spec.lr_mult and shapes.params[key].learned
        }

    def _learned(self) -> Tree:
        arrays = self.net.arrays()
        return {key: arrays[key] for key in self._learned_specs}

    def _history_slot(self, arrays: tuple[Any, ...]) -> Tree:
        slot: Tree = {}
        for (key, blob), array in zip(self.net.shapes.params.items(), arrays, strict=True):
            with blame(None, f'layer "{key.layer}"'):
                require(
                    array.size == np.prod(blob.shape, dtype=int),
                    f"the history of its {key.blob} is {text(array.shape)}, its shape "
                    f"{text(blob.shape)}",
                    WeightsError,
                )
            if key in self._learned_specs:
                slot[key] = jnp.array(array.reshape(blob.shape), jnp.float32)
        return slot

    def _share_with(self, net: Net) -> None:
        """Give a test net the train net's arrays, by layer name."""
        mine = self.net.arrays()
        shared = {}
        for key, blob in net.shapes.params.items():
            if key in mine:
                with blame(Place(net.graph.file), f'layer "{key.layer}"'):
                    require(
                        mine[key].shape == blob.shape,
                        f"its {key.blob} is {text(blob.shape)} in the test net, "
                        f"{text(mine[key].shape)} in the train net",
                        SolverError,
                    )
                shared[key] = mine[key]
        net.assign(shared)


@dataclass(frozen=True, eq=False)
class Program:
    """What a compiled step depends on besides its arrays: one for each shape of the data."""

    shapes: Shapes
    keep: tuple[str, ...]
    transformation: Any

    def micro(
        self, fixed: Tree, learned: Tree, total: Tree, feeds: Mapping[str, Array], key: Array
    ) -> Micro:
        """One forward and backward pass; its gradients are added to ``total``."""

        def loss(learned: Tree) -> tuple[Array, tuple[dict[str, Array], Tree]]:
            first = self.shapes.graph.first_blobs
            given = {first[name]: array for name, array in feeds.items()}
            made = run(self.shapes, {**fixed, **learned}, given, key)
            blobs = self.shapes.graph.blobs
            outputs = {name: made.value(blobs[name]) for name in self.keep}
            return made.loss(), (outputs, made.updates)

        (value, (outputs, statistics)), gradients = jax.value_and_grad(loss, has_aux=True)(learned)
        summed = {key: total[key] + g if total else g for key, g in gradients.items()}
        return Micro(value, summed, statistics, outputs)

    def update(self, learned: Tree, state: Any, gradients: Tree) -> tuple[Tree, Any]:
        """The arrays and the history after one update."""
        steps, state = self.transformation.update(gradients, state, learned)
        return {key: array + steps[key] for key, array in learned.items()}, state


@partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def _whole_step(
    program: Program, fixed: Tree, learned: Tree, state: Any, feeds: Mapping[str, Array], key: Array
) -> tuple[Micro, Tree, Any]:
    micro = program.micro(fixed, learned, {}, feeds, key)
    learned, state = program.update(learned, state, micro.gradients)
    return micro._replace(gradients={}), learned, state


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _pass(
    program: Program, fixed: Tree, learned: Tree, total: Tree, feeds: Mapping[str, Array], key: Array
) -> Micro:
    return program.micro(fixed, learned, total, feeds, key)


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2, 3))
def _apply(program: Program, learned: Tree, state: Any, gradients: Tree) -> tuple[Tree, Any]:
    return program.update(learned, state, gradients)


def _entropy() -> int:
    return int.from_bytes(os.urandom(4), "little") >> 1


def _net_texts(
    solver: SolverText,
) -> tuple[tuple[NetText, NetState], list[tuple[NetText, NetState]]]:
    """The train net and the test nets, each with the state to select by; raises SolverError."""
    message = solver.message
    fields = ("net", "net_param", "train_net", "train_net_param")
    given = [name for name in fields if message.HasField(name)]  # type: ignore[arg-type]
    require(
        len(given) == 1,
        f"needs exactly one of {', '.join(fields)}; it has {', '.join(given) or 'none'}",
        SolverError,
    )
    train = _text(solver, given[0])
    specific = [solver.nets["test_net_param", i] for i in range(len(message.test_net_param))]
    specific += [read_net(_find(solver.file, name)) for name in message.test_net]
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
    return read_net(_find(solver.file, getattr(solver.message, field)))


def _find(solver_file: str, name: str) -> Path:
    """A net's file: from the current folder as Caffe looks, or from the solver's."""
    beside = Path(solver_file).parent / name
    return beside if beside.exists() and not Path(name).exists() else Path(name)


def _merged(phase: Any, net: NetText, own: NetState) -> NetState:
    """The phase, overridden by the net's own state, overridden by the solver's for it."""
    state = NetState(phase=phase)
    state.MergeFrom(net.message.state)
    state.MergeFrom(own)
    return state


