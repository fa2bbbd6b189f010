"""One compiled training step: forward, backward, update.

Arrays that a step replaces are donated, so that it needs room for one copy of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax

from netspec.layers.base import Array
from netspec.runner import run
from netspec.shapes import Shapes
from netspec.solving.updates import Tree


class Micro(NamedTuple):
    """What one forward and backward pass gives: the loss, gradients, and the net's outputs."""

    loss: Array
    gradients: Tree
    statistics: Tree
    outputs: dict[str, Array]


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
def whole_step(
    program: Program, fixed: Tree, learned: Tree, state: Any, feeds: Mapping[str, Array], key: Array
) -> tuple[Micro, Tree, Any]:
    """A pass and its update; learned arrays and state are updated in place."""
    micro = program.micro(fixed, learned, {}, feeds, key)
    learned, state = program.update(learned, state, micro.gradients)
    return micro._replace(gradients={}), learned, state


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def accumulate(
    program: Program,
    fixed: Tree,
    learned: Tree,
    total: Tree,
    feeds: Mapping[str, Array],
    key: Array,
) -> Micro:
    """A pass whose gradients are added to ``total``, in place."""
    return program.micro(fixed, learned, total, feeds, key)


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def apply_update(program: Program, learned: Tree, state: Any, gradients: Tree) -> tuple[Tree, Any]:
    """An update by summed gradients; learned arrays and state are updated in place."""
    return program.update(learned, state, gradients)
