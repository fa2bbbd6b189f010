"""Which bottoms training needs the gradient of: ``propagate_down`` in Caffe.

It needs those with something that learns below and a loss above, unless the layer's own
``propagate_down`` says else; ``force_backward`` wants all gradients that there are.
Caffe: ``Net::Init``, ``AppendBottom`` in ``net.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from netspec.frontend.graph import Graph


class Wanted(NamedTuple):
    """What training wants of a layer.

    gradients: per bottom, whether it needs that gradient. backward: whether it runs the layer's
    backward pass, perhaps for learned arrays only.
    """

    gradients: tuple[bool, ...]
    backward: bool


def wanted_gradients(graph: Graph, learned: Sequence[int]) -> list[Wanted]:
    """What training wants of each node.

    learned: per node, how many learned arrays it has.
    """
    runs, wanted = _asked_for(graph, learned)
    _drop_unused(graph, runs, wanted)
    if graph.force_backward:
        forced = [
            tuple(want or node.layer.bottom_use.is_forced(i) for i, want in enumerate(mine))
            for node, mine in zip(graph.nodes, wanted, strict=True)
        ]
        return [Wanted(gradients, True) for gradients in forced]
    return [
        Wanted(tuple(mine) if run else (False,) * len(mine), run)
        for run, mine in zip(runs, wanted, strict=True)
    ]


def _asked_for(graph: Graph, learned: Sequence[int]) -> tuple[list[bool], list[list[bool]]]:
    """Per node, whether it or a node below it learns; and the bottoms that lead there."""
    learns: set[int] = set()
    runs, wanted = [], []
    for node, blobs in zip(graph.nodes, learned, strict=True):
        below = [i in learns for i in node.bottoms]
        runs.append(any(below) or any(node.param_spec(i).lr_mult for i in range(blobs)))
        wanted.append(list(node.layer.spec.propagate_down) or below)
        learns.update(node.tops if runs[-1] else ())
    return runs, wanted


def _drop_unused(graph: Graph, runs: list[bool], wanted: list[list[bool]]) -> None:
    """Clear what no loss depends on, and what all readers of a node's tops keep gradients from."""
    # Tops without a reader count as used, as do those whose loss weight a split has.
    used = {i for i, readers in enumerate(graph.readers) if not readers}
    used |= {i for i, _ in graph.seeds}
    for n in reversed(range(len(graph.nodes))):
        node = graph.nodes[n]
        if n not in graph.under_loss or (runs[n] and not used & set(node.tops)):
            runs[n], wanted[n] = False, [False] * len(node.bottoms)
        used |= {i for i, want in zip(node.bottoms, wanted[n], strict=True) if want}
