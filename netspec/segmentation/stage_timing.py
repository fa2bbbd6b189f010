"""Time a forward pass, stage by stage; a stage is a group of layers such as conv1 or upsampling.

Each stage is compiled separately and fed what the stages before it made, in the layout in which the
net holds it. Their sum is somewhat above the time of the whole net, which is measured too, since
the compiler cannot fuse across stages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import GraphError, require
from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.geometry.coords import step
from netspec.layers.base import Array, Shape, text
from netspec.runtime.module import Net
from netspec.runtime.run import run_layers
from netspec.runtime.timing import median_seconds
from netspec.runtime.values import Held
from netspec.segmentation.tiles import RANK, made_by

UPSAMPLING = "upsampling"


class StageTimes(NamedTuple):
    """Medians in seconds: of each stage, and of the whole net as one program.

    shape: of the first blob that was fed. device: on what it ran.
    """

    stages: Mapping[str, float]
    whole: float
    shape: Shape
    device: str

    def table(self) -> str:
        """A line a stage, with its share of their sum."""
        total = sum(self.stages.values())
        rows = [*self.stages.items(), ("sum", total), ("as one program", self.whole)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(
            f"{name:{width}}  {1000 * seconds:9.2f} ms"
            + (f"  {seconds / total:5.1%}" if name in self.stages else "")
            for name, seconds in rows
        )

    def title(self) -> str:
        """What was timed."""
        return f"forward of {text(self.shape)} on {self.device}, stages compiled one by one"


def stage_times(net: Net, feeds: Mapping[str, Shape], scores: str, repeats: int = 5) -> StageTimes:
    """Time the layers that make ``scores`` of blobs of these shapes, in order.

    Raises GraphError for a net that cannot be compiled.
    """
    graph = net.graph
    wanted = graph.blob(scores)
    made = made_by(graph, wanted)
    for node in made:
        require(
            not node.layer.traits.data_dependent,
            f"{graph.file}: {node.who} makes blobs whose size hangs on their values; such a net "
            "is not compiled, and has no stages to time",
            GraphError,
        )
    shapes = net.shapes_for(feeds)
    arrays = net.arrays()
    random = np.random.default_rng(0)
    held = {
        graph.first_blobs[name]: Held(jnp.asarray(random.normal(size=shape), jnp.float32))
        for name, shape in feeds.items()
    }
    everything = _program(shapes, _numbers(graph, made), {wanted})
    whole = median_seconds(everything, arrays, held, repeats=repeats)
    stages: dict[str, float] = {}
    for name, nodes in _runs(graph, wanted):
        program = _program(shapes, nodes, _read_later(graph, nodes, wanted))
        needed = {i: held[i] for n in nodes for i in graph.nodes[n].bottoms if i in held}
        held |= program(arrays, needed)
        seconds = median_seconds(program, arrays, needed, repeats=repeats)
        stages[name] = stages.get(name, 0.0) + seconds
    device = jax.devices()[0].device_kind
    return StageTimes(stages, whole, next(iter(feeds.values())), device)


def stages(graph: Graph, value: int) -> dict[int, str]:
    """The layers that make a value, by number, and the stage of each.

    The name of a layer that learns, up to the first ``/`` or else ``_``, is its stage: ``conv1``
    for conv1_1 and conv1_2. Layers whose top is finer than their bottom are stage "upsampling".
    Others belong to the stage of their bottom, unless their name begins with that of a stage and a
    ``/``.
    """
    numbers = _numbers(graph, made_by(graph, value))
    learned = {_head(graph.nodes[n].name) for n in numbers if graph.nodes[n].layer.learns}
    found: dict[int, str] = {}
    for n in numbers:
        node = graph.nodes[n]
        own = "/" in node.name and _head(node.name) in learned
        across = step(node, RANK) if node.bottoms else None
        if across is not None and min(across.scale) < 1:
            found[n] = UPSAMPLING
        elif node.layer.learns or own or not node.bottoms:
            found[n] = _head(node.name)
        else:
            found[n] = found.get(graph.values[node.bottoms[0]].producer, _head(node.name))
    return found


def _head(name: str) -> str:
    """``conv1`` of conv1_1, ``inception_3a`` of inception_3a/1x1."""
    return re.split("/" if "/" in name else "_", name)[0]


def _numbers(graph: Graph, nodes: list[Node]) -> list[int]:
    """Where layers stand in the net; those that the host feeds run before it."""
    return [graph.nodes.index(node) for node in nodes if not node.layer.traits.is_source]


def _runs(graph: Graph, value: int) -> list[tuple[str, list[int]]]:
    """The layers in order, cut where the stage changes."""
    found = groupby(stages(graph, value).items(), key=lambda pair: pair[1])
    return [(name, [n for n, _ in pairs]) for name, pairs in found]


def _read_later(graph: Graph, nodes: list[int], value: int) -> set[int]:
    """The values that some layers make and later ones read, or that are wanted."""
    made = {top for n in nodes for top in graph.nodes[n].tops}
    return {i for i in made if i == value or any(n > nodes[-1] for n in graph.readers[i])}


def _program(
    shapes: Shapes, nodes: list[int], kept: set[int]
) -> Callable[[Mapping[ParamKey, Array], Mapping[int, Held]], dict[int, Held]]:
    """Compile some layers as one function: the values they read -> those of ``kept``."""

    def forward(arrays: Mapping[ParamKey, Array], given: Mapping[int, Held]) -> dict[int, Held]:
        made = run_layers(shapes, nodes, arrays, given).values
        return {i: made[i].in_one_layout() for i in kept}

    return jax.jit(forward)
