"""The shape of every blob, found by asking each layer in turn.

Shapes are Caffe's: (N, C, H, W) for images, whatever layout a run computes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakValueDictionary

from netspec.errors import GraphError, blame, counted, fail, require
from netspec.frontend.graph import Graph, Node
from netspec.layers.base import Blob, Shape, count, text
from netspec.proto.layers_pb2 import ParamSpec


class ParamKey(NamedTuple):
    """Which learned array, or which memory: its layer and its name there, e.g. conv1, weight."""

    layer: str
    blob: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.blob}"


@dataclass(frozen=True, eq=False)
class KnownShapes:
    """What `infer_known` found.

    values: the shape of each of the graph's values, None where it is not known. blobs: per node,
    its learned arrays by name. unasked: the nodes that could not be asked, whose arrays are not
    among these.
    """

    graph: Graph
    values: tuple[Shape | None, ...]
    blobs: tuple[Mapping[str, Blob], ...]
    unasked: frozenset[int] = frozenset()

    @property
    def fed(self) -> dict[str, Shape]:
        """Blob name -> the shape in which the host feeds it, as far as known."""
        first = self.graph.first_blobs
        fed = {name: self.values[first[name]] for name in self.graph.fed}
        return {name: shape for name, shape in fed.items() if shape is not None}

    @cached_property
    def keys(self) -> tuple[Mapping[str, ParamKey], ...]:
        """Per node, blob name -> the array that stands behind it, shared arrays resolved."""
        keys: list[dict[str, ParamKey]] = []
        for n, blobs in enumerate(self.blobs):
            mine: dict[str, ParamKey] = {}
            for i, name in enumerate(blobs):
                if (n, i) in self.graph.shared:
                    owner, j = self.graph.shared[n, i]
                    theirs = mine if owner == n else keys[owner]
                    mine[name] = theirs[list(self.blobs[owner])[j]]
                else:
                    mine[name] = ParamKey(self.graph.nodes[n].name, name)
            keys.append(mine)
        return tuple(keys)

    @cached_property
    def params(self) -> dict[ParamKey, Blob]:
        """Every learned array once, in the order of the net."""
        return {
            keys[name]: blob
            for n, (keys, blobs) in enumerate(zip(self.keys, self.blobs, strict=True))
            for i, (name, blob) in enumerate(blobs.items())
            if (n, i) not in self.graph.shared
        }

    @cached_property
    def param_specs(self) -> dict[ParamKey, ParamSpec]:
        """The merged ``param`` of every learned array: multipliers given by any of its sharers."""
        specs: dict[ParamKey, ParamSpec] = {}
        for node, keys in zip(self.graph.nodes, self.keys, strict=True):
            for i, key in enumerate(keys.values()):
                specs.setdefault(key, ParamSpec()).MergeFrom(node.param_spec(i))
        return specs


@dataclass(frozen=True, eq=False)
class Shapes(KnownShapes):
    """What `infer` found: the shape of every value, the learned arrays of every node."""

    values: tuple[Shape, ...]

    def __getitem__(self, name: str) -> Shape:
        """The shape of a blob by name."""
        return self.values[self.graph.blob(name)]

    @cached_property
    def by_name(self) -> dict[str, Shape]:
        """Blob name -> shape."""
        return {name: self.values[i] for name, i in self.graph.blobs.items()}

    @cached_property
    def carried_per_node(self) -> tuple[Mapping[str, Shape], ...]:
        """Per node, the arrays that a run leaves for the next one."""
        return tuple(
            node.layer.carried(*(self.values[i] for i in node.bottoms)) for node in self.graph.nodes
        )

    @cached_property
    def carried(self) -> dict[ParamKey, Shape]:
        """All arrays that a run leaves for the next one."""
        return {
            ParamKey(node.name, name): shape
            for node, carried in zip(self.graph.nodes, self.carried_per_node, strict=True)
            for name, shape in carried.items()
        }

    @cached_property
    def wanted(self) -> tuple[tuple[bool, ...], ...]:
        """Per node and bottom, whether training needs the gradient: ``propagate_down`` in Caffe.

        It does where something learns below and a loss stands above, unless the layer's own
        ``propagate_down`` says else; ``force_backward`` wants all gradients that there are.
        Caffe: ``Net::Init``, ``AppendBottom`` in ``net.cpp``.
        """
        runs, wanted = _asked_for(self)
        _drop_unused(self.graph, runs, wanted)
        if self.graph.force_backward:
            return tuple(
                tuple(want or node.layer.allow_force_backward(i) for i, want in enumerate(mine))
                for node, mine in zip(self.graph.nodes, wanted, strict=True)
            )
        return tuple(
            tuple(mine) if run else (False,) * len(mine)
            for run, mine in zip(runs, wanted, strict=True)
        )


def _asked_for(shapes: Shapes) -> tuple[list[bool], list[list[bool]]]:
    """Per node, whether it or a node below it learns; and the bottoms that lead there."""
    learns: set[int] = set()
    runs, wanted = [], []
    for node, blobs in zip(shapes.graph.nodes, shapes.blobs, strict=True):
        below = [i in learns for i in node.bottoms]
        runs.append(any(below) or any(node.param_spec(i).lr_mult for i in range(len(blobs))))
        wanted.append(list(node.layer.spec.propagate_down) or below)
        learns.update(node.tops if runs[-1] else ())
    return runs, wanted


def _drop_unused(graph: Graph, runs: list[bool], wanted: list[list[bool]]) -> None:
    """Clear what no loss depends on, and what all readers of a node's tops keep gradients from."""
    # Tops without a reader count as used, as do losses.
    used = {i for i, readers in enumerate(graph.readers) if not readers}
    used |= {i for i, _ in graph.losses}
    for n in reversed(range(len(graph.nodes))):
        node = graph.nodes[n]
        if n not in graph.under_loss or (runs[n] and not used & set(node.tops)):
            runs[n], wanted[n] = False, [False] * len(node.bottoms)
        used |= {i for i, want in zip(node.bottoms, wanted[n], strict=True) if want}


def infer(graph: Graph, given: Mapping[str, Shape] | None = None) -> Shapes:
    """Shapes of all blobs and learned arrays of a net.

    given: shapes of blobs that the host feeds; they replace those that an Input layer states.
    Raises LayerError where bottoms or settings cannot work, with place, layer and numbers.
    """
    given = given or {}
    _check_given(graph, given)
    values: list[Shape] = []
    blobs: list[Mapping[str, Blob]] = []
    learners: set[str] = set()
    for n, node in enumerate(graph.nodes):
        with blame(node.place, node.who):
            bottoms = [values[i] for i in node.bottoms]
            tops = _source(graph, node, given) if node.layer.is_source else _tops(node, bottoms)
            _check_tops(graph, node, tops)
            values.extend(tops)
            blobs.append(node.layer.blobs(*bottoms))
            _check_params(graph, n, blobs, learners)
    return Shapes(graph, tuple(values), tuple(blobs))


def infer_once(graph: Graph, given: Mapping[str, Shape]) -> Shapes:
    """As `infer`; nets that are alike in all have one object while one lives, and its programs."""
    layers = [node.layer for node in graph.nodes]
    if not all(layer.is_plain and not layer.on_host for layer in layers):
        return infer(graph, given)
    alike = (
        *(graph.file, graph.name, graph.phase, graph.force_backward),
        tuple((type(layer), layer.spec.SerializeToString()) for layer in layers),
        tuple(node.place for node in graph.nodes),
        tuple(sorted((name, tuple(shape)) for name, shape in given.items())),
    )
    found = _INFERRED.get(alike)
    if found is None:
        found = _INFERRED[alike] = infer(graph, given)
    return found


_INFERRED: WeakValueDictionary[tuple[object, ...], Shapes] = WeakValueDictionary()


def infer_known(graph: Graph, given: Mapping[str, Shape]) -> KnownShapes:
    """As `infer`, as far as shapes are known.

    A stand-in's tops have none, nor those of a source whose data is not open and that are not
    given, nor what hangs on such blobs. Raises LayerError as `infer` does for all the rest.
    """
    _check_given(graph, given)
    values: list[Shape | None] = []
    blobs: list[Mapping[str, Blob]] = []
    unasked: set[int] = set()
    learners: set[str] = set()
    for n, node in enumerate(graph.nodes):
        with blame(node.place, node.who):
            bottoms = [shape for i in node.bottoms if (shape := values[i]) is not None]
            ready = node.layer.known and len(bottoms) == len(node.bottoms)
            tops: Sequence[Shape | None] = [None] * len(node.tops)
            if node.layer.is_source:
                tops = _known_source(graph, node, given)
            elif ready:
                tops = _tops(node, bottoms)
            _check_tops(graph, node, tops)
            values.extend(tops)
            owners = {
                graph.shared.get((n, i), (n, i))[0] for i in range(len(node.layer.spec.param))
            }
            if ready and None not in tops and not owners & unasked:
                blobs.append(node.layer.blobs(*bottoms))
                _check_params(graph, n, blobs, learners)
            else:
                blobs.append({})
                unasked.add(n)
    return KnownShapes(graph, tuple(values), tuple(blobs), frozenset(unasked))


def infer_fed(graph: Graph, given: Mapping[str, Shape]) -> KnownShapes:
    """The shapes of the blobs that the host feeds, as far as known, and no others.

    What of a net hangs on no more than these can be told even if it does not fit together.
    """
    _check_given(graph, given)
    values: list[Shape | None] = [None] * len(graph.values)
    for node in graph.sources:
        with blame(node.place, node.who):
            for top, shape in zip(node.tops, _known_source(graph, node, given), strict=True):
                values[top] = shape
    nothing: tuple[Mapping[str, Blob], ...] = ({},) * len(graph.nodes)
    return KnownShapes(graph, tuple(values), nothing, frozenset(range(len(graph.nodes))))


def _check_given(graph: Graph, given: Mapping[str, Shape]) -> None:
    for name in given:
        require(
            name in graph.fed,
            f'{graph.file}: no input blob "{name}"; the net is fed '
            f"{', '.join(graph.fed) or 'none'}",
            GraphError,
        )


def _tops(node: Node, bottoms: list[Shape]) -> tuple[Shape, ...]:
    shape = node.layer.shape(*bottoms)
    single = not shape or isinstance(shape[0], int)
    tops = (shape,) if single and node.tops else shape
    return tuple(tops)  # type: ignore[arg-type]


def _source(graph: Graph, node: Node, given: Mapping[str, Shape]) -> tuple[Shape, ...]:
    names = [graph.values[top].name for top in node.tops]
    if all(name in given for name in names):
        return tuple(tuple(given[name]) for name in names)
    stated = dict(zip(names, _tops(node, []), strict=True))
    return tuple(tuple(given.get(name, stated[name])) for name in names)


def _known_source(graph: Graph, node: Node, given: Mapping[str, Shape]) -> Sequence[Shape | None]:
    names = [graph.values[top].name for top in node.tops]
    if node.layer.states_shapes or all(name in given for name in names):
        return _source(graph, node, given)
    return [given.get(name) for name in names]


# Caffe counts in an int, and so do its files.
_MOST = 2**31 - 1


def _check_tops(graph: Graph, node: Node, tops: Sequence[Shape | None]) -> None:
    for i, shape in zip(node.tops, tops, strict=True):
        if shape is not None:
            _check_size(f'blob "{graph.values[i].name}"', shape)


def _check_size(what: str, shape: Shape) -> None:
    # Asked of every blob: the messages are made only for those that fail.
    if min(shape, default=0) < 0:
        fail(f"{what} is {text(shape)}; no size can be negative")
    if count(shape) > _MOST:
        fail(f"{what} is {text(shape)}: {count(shape):,} numbers, but at most {_MOST:,} fit a blob")


def _check_params(
    graph: Graph, n: int, blobs: list[Mapping[str, Blob]], learners: set[str]
) -> None:
    """Raise LayerError where node ``n`` cannot learn its ``blobs``; enters it in ``learners``."""
    node = graph.nodes[n]
    for name, blob in blobs[n].items():
        _check_size(f"its {name}", blob.shape)
    require(
        len(node.layer.spec.param) <= len(blobs[n]),
        f"{len(node.layer.spec.param)} param given, but the layer learns "
        f"{counted(len(blobs[n]), 'blob')}",
    )
    if blobs[n]:
        require(
            node.name not in learners,
            f'a layer named "{node.name}" learns blobs already; weights are kept by layer name',
        )
        learners.add(node.name)
    for i, (name, blob) in enumerate(blobs[n].items()):
        if (n, i) not in graph.shared:
            continue
        owner, j = graph.shared[n, i]
        theirs = list(blobs[owner].values())[j].shape
        alike = count(blob.shape) == count(theirs)
        permissive = node.param_spec(i).share_mode == ParamSpec.PERMISSIVE
        require(
            blob.shape == theirs or (permissive and alike),
            f'{name} {text(blob.shape)} cannot share param "{node.param_spec(i).name}" with '
            f'layer "{graph.nodes[owner].name}", whose is {text(theirs)}'
            + ("; share_mode: PERMISSIVE asks for equal counts only" if alike else ""),
        )
