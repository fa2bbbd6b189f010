"""pycaffe's solvers, over `netspec.solving`."""

from __future__ import annotations

from functools import cached_property

from netspec.caffe.net import Net
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.loop import Solver as Loop


class Solver:
    """A solver as pycaffe shows it: ``net``, ``test_nets``, ``iter``, ``step``, ``restore``."""

    def __init__(self, solver_file: str) -> None:
        self._loop = Loop.from_file(solver_file)
        self.net = Net.of(self._loop.net, self._loop.feed)
        self._loop.trainer.keep = tuple(self.net.blobs)

    @property
    def iter(self) -> int:
        """Updates made so far."""
        return self._loop.iteration

    @property
    def param(self) -> SolverParameter:
        """The solver's own message."""
        return self._loop.param

    @cached_property
    def test_nets(self) -> list[Net]:
        """The nets that are tested, with data of their own."""
        pairs = zip(self._loop.tests.nets, self._loop.tests.feeds, strict=True)
        return [Net.of(net, feed) for net, feed in pairs]

    def step(self, count: int) -> None:
        """Make ``count`` updates, on what ``net``'s input blobs hold if it has such."""
        self._hand_over()
        self._loop.step(count)
        self.net.show(self._loop.outputs)

    def solve(self, resume_file: str | None = None) -> None:
        """Train to the end, from a .solverstate if one is named."""
        if resume_file is not None:
            self.restore(resume_file)
        self._hand_over()
        self._loop.solve()
        self.net.show(self._loop.outputs)

    def restore(self, state_file: str) -> None:
        """Go on from a .solverstate."""
        self._loop.restore(state_file)

    def snapshot(self) -> None:
        """Write weights and state."""
        self.net._sync()
        self._loop.snapshot()

    def _hand_over(self) -> None:
        """Let the loop see what was written into the net's blobs."""
        self.net._sync()
        self._loop.inputs = {
            name: self.net.blobs[name].data_mirror.device for name in self.net.inputs
        }


def get_solver(solver_file: str) -> Solver:
    """The solver that a prototxt describes, whatever its type."""
    return Solver(solver_file)
