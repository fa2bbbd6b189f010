"""pycaffe's solvers, over `netspec.solving`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from rich.console import Console

from netspec.caffe.net import Net, NetVec
from netspec.caffe.runtime import is_quiet, next_seed
from netspec.frontend.prototxt import read_solver
from netspec.frontend.refused_gradients import check_backward
from netspec.frontend.shapes import ParamKey
from netspec.frontend.upgrade import upgrade_solver_type
from netspec.proto.solver_pb2 import SolverParameter
from netspec.reporting.console import ConsoleReport
from netspec.runtime.backward import Residuals
from netspec.solving.callback import Callback
from netspec.solving.options import SolverOptions
from netspec.solving.solver import Solver as Loop
from netspec.solving.updates import Tree


class Solver:
    """A solver as pycaffe shows it, of the type that its prototxt names.

    net: the net in training. Its blobs are those of the last update's pass, its learned blobs'
    diffs the steps that were taken; blobs' diffs are those of the last ``net.backward()``. What it
    tells goes to standard error as Caffe's log. Raises a NetSpecError.
    """

    # What a class is called after goes before the prototxt's type.
    rule: ClassVar[str] = ""

    def __init__(self, solver_file: str) -> None:
        text = upgrade_solver_type(read_solver(solver_file))
        if self.rule:
            text.message.type = self.rule
        if text.message.random_seed < 0:
            text.message.random_seed = next_seed()
        callback = _callback(text.message)
        self._loop = Loop(text, SolverOptions(callback=callback, keep_all=True))
        self._settings = self.param.SerializeToString()
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self.net = Net.of(self._loop.net, self._loop.feed, self._loop.seed)
        # Made when they are asked for.
        self._test_nets: NetVec | None = None

    @property
    def iter(self) -> int:
        """Updates made so far."""
        return self._loop.iteration

    @property
    def param(self) -> SolverParameter:
        """The solver's own message; what is set there counts from the next update on."""
        return self._loop.param

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        self._reread_param()
        return float(self._loop.rate(jnp.asarray(self.iter)))

    @property
    def test_nets(self) -> NetVec:
        """The nets that are tested, with data of their own, on the arrays of `net`."""
        if self._test_nets is None:
            pairs = zip(self._loop.tests.nets, self._loop.tests.feeds, strict=True)
            self._test_nets = NetVec(Net.of(net, feed, self._loop.seed) for net, feed in pairs)
            for net in self._test_nets:
                net.share_with(self.net)
        return self._test_nets

    def step(self, iterations: int) -> None:
        """Make updates, on what ``net``'s input blobs hold if it has such.

        Raises LayerError for a net that needs a gradient which a layer does not have.
        """
        check_backward(self.net.module.shapes)
        for count in [1] * iterations if self._callbacks else [iterations]:
            for on_start, _ in self._callbacks:
                on_start()
            self._train(partial(self._loop.step, count))

    def solve(self, resume_file: str | None = None) -> None:
        """Train to the end, from a .solverstate if one is named."""
        if resume_file is not None:
            self.restore(resume_file)
        self._train(self._loop.solve)

    def apply_update(self) -> None:
        """Update ``net``'s learned blobs by their diffs; `iter` stays.

        The diffs are the steps taken then. Raises SolverError where one is not finite.
        """
        self._hand_over()
        diffs = self.net.param_diffs()
        trainer = self._loop.trainer
        try:
            trainer.apply({key: diffs[key] for key in trainer.updated_specs}, self.iter)
        finally:
            self.net.refresh()
        self.net.show_steps(trainer.steps)

    def restore(self, state_file: str) -> None:
        """Go on from a .solverstate; raises WeightsError."""
        self.net.sync()
        self._loop.restore(state_file)
        self.net.refresh()

    def snapshot(self) -> None:
        """Write weights and state."""
        self.net.sync()
        self._loop.snapshot()

    def share_weights(self, net: Net) -> None:
        """Give another net the learned arrays of `net`: see `Net.share_with`."""
        net.share_with(self.net)

    def add_callback(
        self, on_start: Callable[[], Any], on_gradients_ready: Callable[[], Any]
    ) -> None:
        """Call two functions at every update: before its pass, and before the gradients are used.

        The second finds the gradients, summed over ``iter_size``, in the diffs of ``net``'s learned
        blobs, and may change them there.
        """
        self._callbacks.append((on_start, on_gradients_ready))
        self._loop.trainer.change_gradients(self._show_gradients)

    def _show_gradients(self, gradients: Tree) -> Tree:
        self.net.show_diffs(gradients)
        for _, on_gradients_ready in self._callbacks:
            on_gradients_ready()
        found: dict[ParamKey, Any] = self.net.param_diffs()
        return {key: found[key] for key in gradients}

    def _hand_over(self) -> None:
        """Give the loop what was written into the nets' blobs."""
        self._reread_param()
        for net in (self.net, *(self._test_nets or ())):
            net.sync()
        self._loop.set_inputs(
            {name: self.net.blobs[name].data_mirror.device for name in self.net.inputs}
        )

    def _train(self, train: Callable[[], None]) -> None:
        """Make updates on what the net's blobs hold, and show what they made, if any."""
        self._hand_over()
        before = self.iter
        try:
            train()
        finally:
            # An error on the way leaves the views of learned blobs what they are.
            if self.iter > before:
                self._take_over()
            else:
                self.net.refresh()

    def _take_over(self) -> None:
        """Show what the loop's last update made."""
        self.net.refresh()
        trainer = self._loop.trainer
        began = None
        if trainer.last and (fed := trainer.last.fed):
            first = self.net.module.graph.first_blobs
            values = {first[name]: array for name, array in fed[0].items()}
            began = Residuals(trainer.carried_before, fed[1], values)
        self.net.show_pass(self._loop.outputs, began)
        self.net.show_steps(trainer.steps)

    def _reread_param(self) -> None:
        settings = self.param.SerializeToString()
        if settings != self._settings:
            self._loop.retune()
            self._settings = settings


class SGDSolver(Solver):
    """Momentum, whatever type the prototxt names."""

    rule = "SGD"


class NesterovSolver(SGDSolver):
    """Momentum looked ahead, whatever type the prototxt names."""

    rule = "Nesterov"


class AdaGradSolver(SGDSolver):
    """AdaGrad, whatever type the prototxt names."""

    rule = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """RMSProp, whatever type the prototxt names."""

    rule = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """AdaDelta, whatever type the prototxt names."""

    rule = "AdaDelta"


class AdamSolver(SGDSolver):
    """Adam, whatever type the prototxt names."""

    rule = "Adam"


_KINDS: dict[str, type[Solver]] = {
    kind.rule: kind
    for kind in (
        SGDSolver,
        NesterovSolver,
        AdaGradSolver,
        RMSPropSolver,
        AdaDeltaSolver,
        AdamSolver,
    )
}


def get_solver(solver_file: str) -> Solver:
    """The solver that a prototxt describes, in the class of its type."""
    kind = upgrade_solver_type(read_solver(solver_file)).message.type
    return _KINDS.get(kind, Solver)(solver_file)


def _callback(param: SolverParameter) -> Callback:
    if is_quiet():
        return Callback()
    return ConsoleReport(Console(file=sys.stderr, force_terminal=False), param.max_iter, glog=True)
