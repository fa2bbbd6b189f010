"""The shape of every blob, found by asking each layer in turn.

Shapes are Caffe's: (N, C, H, W) for images, whatever layout a run computes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, NamedTuple, TypeVar, cast, overload

from netspec.errors import GraphError, LayerError, blame, counted, fail, require
from netspec.frontend.graph import Graph, Node
from netspec.frontend.wanted_gradients import wanted_gradients
from netspec.layers.base import Shape, count, text
from netspec.layers.records import Blob
from netspec.proto.layers_pb2 import ParamSpec

# A shape, or one that may not be known.
AnyShape = TypeVar("AnyShape", bound=Shape | None, covariant=True)


class ParamKey(NamedTuple):
    """The key of a learned or carried array: its layer and its name there, e.g. conv1, weight."""

    layer: str
    blob: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.blob}"


class NodeShapes(NamedTuple, Generic[AnyShape]):
    """A node of the graph with all that its shapes tell.

    bottoms, tops: the shapes of what it reads and makes. blobs: its learned arrays by name. keys:
    blob name -> the array behind it, another layer's if it is shared. carried: arrays that a run
    leaves for the next one, by name. wanted: per bottom, whether training needs its gradient.
    backward: whether training runs the layer's backward pass.
    known: whether the layer could be asked; if not, blobs, keys and carried are empty. layer: what
    its arrays are kept under: its name, with a number where an earlier layer of that name learns.
    """

    node: Node
    bottoms: tuple[AnyShape, ...]
    tops: tuple[AnyShape, ...]
    blobs: Mapping[str, Blob]
    keys: Mapping[str, ParamKey]
    carried: Mapping[str, Shape]
    wanted: tuple[bool, ...]
    backward: bool
    known: bool
    layer: str

    @property
    def learned(self) -> Iterator[tuple[str, ParamKey, Blob]]:
        """(name, key, blob) of each learned array and statistic, in Caffe's order."""
        return ((name, self.keys[name], blob) for name, blob in self.blobs.items())


@dataclass(frozen=True, eq=False)
class KnownShapes:
    """The shapes of a graph as far as they are known: a `NodeShapes` for each of its nodes."""

    graph: Graph
    nodes: tuple[NodeShapes[Shape | None], ...]

    @cached_property
    def values(self) -> tuple[Shape | None, ...]:
        """The shape of each of the graph's values, None where it is not known."""
        return tuple(shape for each in self.nodes for shape in each.tops)

    @cached_property
    def fed(self) -> Mapping[str, Shape]:
        """Blob name -> the shape in which the host feeds it, as far as known."""
        first = self.graph.first_blobs
        fed = {name: self.values[first[name]] for name in self.graph.fed}
        return {name: shape for name, shape in fed.items() if shape is not None}

    @cached_property
    def params(self) -> dict[ParamKey, Blob]:
        """Every learned array once, in the order of the net."""
        return {
            key: blob
            for n, each in enumerate(self.nodes)
            for i, (_, key, blob) in enumerate(each.learned)
            if (n, i) not in self.graph.shared
        }

    @cached_property
    def param_specs(self) -> dict[ParamKey, ParamSpec]:
        """The merged ``param`` of every learned array: multipliers given by any of its sharers."""
        specs: dict[ParamKey, ParamSpec] = {}
        for each in self.nodes:
            for i, key in enumerate(each.keys.values()):
                specs.setdefault(key, ParamSpec()).MergeFrom(each.node.param_spec(i))
        return specs


@dataclass(frozen=True, eq=False)
class Shapes(KnownShapes):
    """The shapes of a graph, all of them known."""

    nodes: tuple[NodeShapes[Shape], ...]

    @cached_property
    def values(self) -> tuple[Shape, ...]:
        """The shape of each of the graph's values."""
        return tuple(shape for each in self.nodes for shape in each.tops)

    def __getitem__(self, name: str) -> Shape:
        """The shape of a blob by name."""
        return self.values[self.graph.blob(name)]

    @cached_property
    def by_name(self) -> dict[str, Shape]:
        """Blob name -> shape."""
        return {name: self.values[i] for name, i in self.graph.blobs.items()}

    @cached_property
    def carried(self) -> dict[ParamKey, Shape]:
        """All arrays that a run leaves for the next one."""
        return {
            ParamKey(each.layer, name): shape
            for each in self.nodes
            for name, shape in each.carried.items()
        }


# How much to ask a graph for: see `infer`.
Ask = Literal["all", "known", "fed"]


@overload
def infer(graph: Graph, given: Mapping[str, Shape] | None = None) -> Shapes: ...
@overload
def infer(
    graph: Graph, given: Mapping[str, Shape] | None, ask: Literal["known", "fed"]
) -> KnownShapes: ...
def infer(graph: Graph, given: Mapping[str, Shape] | None = None, ask: Ask = "all") -> KnownShapes:
    """The shapes of a graph's blobs and learned arrays.

    given: shapes of blobs that the host feeds; they replace those that an Input layer states.
    ask: "all" shapes, or LayerError if one can't be known; all that are "known", which leaves out
    the tops of placeholders, of sources whose data is not open, and what depends on those; or only
    those of blobs that are "fed", which the rest of the net need not fit. Raises GraphError for a
    given blob that is not fed, and LayerError where bottoms or settings can't work, with place,
    layer and numbers.
    """
    if ask == "all":
        shapes = _infer_all(graph, given or {})
        _check_reshaped_inputs(shapes, given or {})
        return shapes
    return KnownShapes(graph, _asked(graph, given or {}, ask))


def _infer_all(graph: Graph, given: Mapping[str, Shape]) -> Shapes:
    return Shapes(graph, cast(tuple[NodeShapes[Shape], ...], _asked(graph, given, "all")))


def _asked(
    graph: Graph, given: Mapping[str, Shape], ask: Ask
) -> tuple[NodeShapes[Shape | None], ...]:
    found = _Inference(graph, given, ask)
    for n, node in enumerate(graph.nodes):
        with blame(node.place, node.who):
            found.add(n, node)
    return found.nodes()


def _check_reshaped_inputs(shapes: Shapes, given: Mapping[str, Shape]) -> None:
    """Raise LayerError where layers in place leave a fed blob in a shape that they change again.

    In Caffe a blob has one shape, so that the next pass begins with the last one of this pass.
    """
    graph = shapes.graph
    for name in graph.fed:
        first, last = (shapes.values[at[name]] for at in (graph.first_blobs, graph.blobs))
        if first == last:
            continue
        try:
            again = _infer_all(graph, {**given, name: last})
            fits = again[name] == last and again.params == shapes.params
            fits &= count(first) == count(last)
        except LayerError:
            fits = False
        node = graph.nodes[graph.values[graph.blobs[name]].producer]
        with blame(node.place, node.who):
            require(
                fits,
                f'works in place and makes "{name}", which is fed as {text(first)}, {text(last)}, '
                "in which the net cannot take it again; give the top a name of its own",
            )


class _Inference:
    """What is known after some of a graph's nodes; ``add`` takes the next one."""

    def __init__(self, graph: Graph, given: Mapping[str, Shape], ask: Ask) -> None:
        _check_given(graph, given)
        self._graph, self._given, self._ask = graph, given, ask
        self._values: list[Shape | None] = []
        self._blobs: list[Mapping[str, Blob]] = []
        self._carried: list[Mapping[str, Shape]] = []
        self._known: list[bool] = []

    def add(self, n: int, node: Node) -> None:
        """Ask node ``n``; raises LayerError without its place."""
        bottoms = [self._values[i] for i in node.bottoms]
        ready = self._ask == "all" or (
            self._ask == "known" and node.layer.traits.known and None not in bottoms
        )
        given = cast(list[Shape], bottoms)
        tops = self._tops(node, given if ready else None)
        if self._ask != "fed":
            _check_tops(self._graph, node, tops)
        self._values.extend(tops)
        sharing = range(len(node.layer.spec.param))
        owners = {self._graph.shared.get((n, i), (n, i))[0] for i in sharing} - {n}
        known = ready and None not in tops and all(self._known[owner] for owner in owners)
        self._known.append(known)
        self._blobs.append(node.layer.blobs(*given) if known else {})
        if known:
            _check_params(self._graph, n, self._blobs)
        self._carried.append(node.layer.carried(*given) if known else {})

    def nodes(self) -> tuple[NodeShapes[Shape | None], ...]:
        """What was found, node by node."""
        wanted = wanted_gradients(self._graph, [len(blobs) for blobs in self._blobs])
        layers = self._layers()
        found: list[NodeShapes[Shape | None]] = []
        keys: list[dict[str, ParamKey]] = []
        for n, node in enumerate(self._graph.nodes):
            keys.append({})
            for i, name in enumerate(self._blobs[n]):
                owner, j = self._graph.shared.get((n, i), (n, i))
                own = owner == n and j == i
                key = ParamKey(layers[n], name) if own else [*keys[owner].values()][j]
                keys[n][name] = key
            bottoms = tuple([self._values[i] for i in node.bottoms])
            tops = tuple([self._values[i] for i in node.tops])
            mine = self._blobs[n], keys[n], self._carried[n], *wanted[n], self._known[n]
            found.append(NodeShapes(node, bottoms, tops, *mine, layers[n]))
        return tuple(found)

    def _layers(self) -> list[str]:
        """Per node, what its arrays are kept under."""
        names = {node.name for node in self._graph.nodes}
        layers, taken = [], set[str]()
        for node, *kept in zip(self._graph.nodes, self._blobs, self._carried, strict=True):
            layer, times = node.name, 1
            while any(kept) and (layer in taken or (times > 1 and layer in names)):
                times += 1
                layer = f"{node.name} ({times})"
            taken |= {layer} if any(kept) else set()
            layers.append(layer)
        return layers

    def _tops(self, node: Node, bottoms: list[Shape] | None) -> Sequence[Shape | None]:
        """The shapes of a node's tops. bottoms: None where the layer can't be asked."""
        if node.layer.traits.is_source:
            names = [self._graph.values[top].name for top in node.tops]
            given = all(name in self._given for name in names)
            if self._ask == "all" or node.layer.traits.states_shapes or given:
                return _source(node, names, self._given)
            return [self._given.get(name) for name in names]
        return [None] * len(node.tops) if bottoms is None else _tops(node, bottoms)


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


def _source(node: Node, names: Sequence[str], given: Mapping[str, Shape]) -> tuple[Shape, ...]:
    if all(name in given for name in names):
        return tuple(tuple(given[name]) for name in names)
    stated = dict(zip(names, _tops(node, []), strict=True))
    return tuple(tuple(given.get(name, stated[name])) for name in names)


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


def _check_params(graph: Graph, n: int, blobs: list[Mapping[str, Blob]]) -> None:
    """Raise LayerError where node ``n`` cannot learn its ``blobs``."""
    node = graph.nodes[n]
    for name, blob in blobs[n].items():
        _check_size(f"its {name}", blob.shape)
    require(
        len(node.layer.spec.param) <= len(blobs[n]),
        f"{len(node.layer.spec.param)} param given, but the layer learns "
        f"{counted(len(blobs[n]), 'blob')}",
    )
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
