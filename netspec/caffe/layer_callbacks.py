"""What pycaffe's Net calls before and after each layer's pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netspec.caffe.passes import Nodes

# What is called with a layer's index.
Callback = Callable[[int], Any]


class LayerCallbacks:
    """The functions that are called beside layers; with one, layers run one by one."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callback]] = {}

    def before_forward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index before its forward."""
        self._callbacks.setdefault("before_forward", []).append(run)

    def after_forward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index after its forward."""
        self._callbacks.setdefault("after_forward", []).append(run)

    def before_backward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index before its backward."""
        self._callbacks.setdefault("before_backward", []).append(run)

    def after_backward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index after its backward."""
        self._callbacks.setdefault("after_backward", []).append(run)

    def _spans(self, way: str, nodes: range) -> list[Nodes]:
        """The parts in which a pass runs: one, or one a layer where there are callbacks."""
        if any(name.endswith(way) for name in self._callbacks):
            return [(n, n) for n in nodes]
        return [(min(nodes), max(nodes))] if nodes else []

    def _call(self, when: str, nodes: Nodes) -> None:
        for run in self._callbacks.get(when, ()):
            run(nodes[0])
