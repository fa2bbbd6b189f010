"""Layers connected: which value each bottom reads, and which learned arrays are one.

A blob's name may be bound several times: an in-place layer reads ``conv1`` and binds ``conv1``
again. Here every binding is a value of its own with one producer, so nothing is overwritten and
a blob that several layers read needs no split layer.

Caffe: ``Net::Init``, ``AppendBottom``, ``AppendTop``, ``AppendParam`` in ``net.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from netspec.errors import GraphError, Place, blame, counted, fail, nearest, require
from netspec.frontend import ignored_fields
from netspec.frontend.phase import state_text
from netspec.frontend.prototxt import NetText, who
from netspec.frontend.split_weights import LossTerm, loss_terms, own_weights
from netspec.layers import Layer, create
from netspec.proto.layers_pb2 import TEST, LayerParameter, ParamSpec

AUTOMATIC = "(automatic)"

# What makes the layer of a LayerParameter in a phase.
Create = Callable[[LayerParameter, int], Layer]


@dataclass(frozen=True)
class Value:
    """One binding of a blob name: top number ``slot`` of node ``producer``."""

    name: str
    producer: int
    slot: int


@dataclass(frozen=True, eq=False)
class Node:
    """A layer in its net.

    bottoms, tops: indices into `Graph.values`. in_place: the slots of tops that bind the name of
    their own bottom again. place: where the layer is written. stops: per bottom, whether
    ``propagate_down: false`` keeps gradients from it, which ``force_backward`` overrides.
    """

    layer: Layer
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    in_place: tuple[int, ...]
    stops: tuple[bool, ...]
    place: Place

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.spec.name

    @property
    def type(self) -> str:
        """The layer's type, as its prototxt writes it."""
        return self.layer.spec.type

    @property
    def who(self) -> str:
        """How messages name the layer: ``layer "score" (Crop)``."""
        return who(self.layer.spec)

    def param_spec(self, index: int) -> ParamSpec:
        """The ``param`` of learned blob ``index``, or the default one."""
        specs = self.layer.spec.param
        return specs[index] if index < len(specs) else ParamSpec()


@dataclass(frozen=True, eq=False)
class Graph:
    """A connected net: ``nodes`` in the order of the file, and the ``values`` between them.

    shared: (node, blob index) -> the (node, blob index) that owns the array, for blobs that take
    an earlier one's ``param { name }``. phase: TRAIN or TEST.
    """

    name: str
    file: str
    phase: int
    force_backward: bool
    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    shared: Mapping[tuple[int, int], tuple[int, int]]

    @cached_property
    def blobs(self) -> dict[str, int]:
        """Blob name -> its last value, in the order in which the names first appear."""
        return {name: i for name, i in self.all_blobs.items() if name != AUTOMATIC}

    @cached_property
    def all_blobs(self) -> dict[str, int]:
        """As `blobs`, and the last of the automatic tops, as pycaffe shows it."""
        return {value.name: i for i, value in enumerate(self.values)}

    @cached_property
    def first_blobs(self) -> dict[str, int]:
        """Blob name -> its first value (what it is before in-place layers)."""
        first: dict[str, int] = {}
        for i, value in enumerate(self.values):
            first.setdefault(value.name, i)
        return first

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """Per value, the nodes that read it."""
        readers: list[list[int]] = [[] for _ in self.values]
        for i, node in enumerate(self.nodes):
            for bottom in node.bottoms:
                readers[bottom].append(i)
        return tuple(map(tuple, readers))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the blobs that no layer reads, sorted by name as Caffe lists them."""
        return tuple(sorted(name for name, i in self.blobs.items() if not self.readers[i]))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the blobs that Input layers make."""
        return self._tops_of(lambda node: node.layer.traits.is_input)

    @cached_property
    def sources(self) -> tuple[Node, ...]:
        """The nodes that the host feeds: Input layers and data layers."""
        return tuple(node for node in self.nodes if node.layer.traits.is_source)

    @cached_property
    def fed(self) -> tuple[str, ...]:
        """Names of all blobs that the host feeds."""
        return self._tops_of(lambda node: node.layer.traits.is_source)

    @cached_property
    def on_host(self) -> tuple[Node, ...]:
        """The nodes that run on the host, called from inside the program."""
        return tuple(node for node in self.nodes if node.layer.traits.on_host)

    @cached_property
    def data_dependent(self) -> tuple[Node, ...]:
        """The nodes whose tops' shapes depend on values: with any, the net runs op by op."""
        return tuple(node for node in self.nodes if node.layer.traits.data_dependent)

    @cached_property
    def under_loss(self) -> frozenset[int]:
        """The nodes that some loss depends on."""
        found, values = set(), {i for i, _ in self.losses}
        for n in reversed(range(len(self.nodes))):
            if values & set(self.nodes[n].tops):
                found.add(n)
                values |= set(self.nodes[n].bottoms)
        return frozenset(found)

    @cached_property
    def losses(self) -> tuple[tuple[int, float], ...]:
        """(value, weight) for each term of the loss that a run reports."""
        return tuple((term.value, term.weight) for term in self.loss_terms)

    @cached_property
    def seeds(self) -> tuple[tuple[int, float], ...]:
        """(value, weight) for each term of the loss that gradients start from."""
        return tuple((term.value, term.weight) for term in self.loss_terms if term.has_gradient)

    @cached_property
    def loss_terms(self) -> tuple[LossTerm, ...]:
        """The terms of the loss, in the order of the net."""
        forced: list[list[bool]] = [[] for _ in self.values]
        for node in self.nodes:
            for slot, bottom in enumerate(node.bottoms):
                forced[bottom].append(node.layer.bottom_use.is_forced(slot))
        layers = [(node.layer, node.tops) for node in self.nodes]
        return loss_terms(layers, forced, self.force_backward)

    def node(self, name: str) -> Node:
        """The layer of a name; raises GraphError with the nearest name."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = [node.name for node in self.nodes]
        return fail(f'{self.file}: no layer "{name}"{nearest(name, names)}', GraphError)

    def blob(self, name: str) -> int:
        """The last value of a blob name; raises GraphError with the nearest name."""
        if name not in self.blobs:
            fail(f'{self.file}: no blob "{name}"{nearest(name, self.blobs)}', GraphError)
        return self.blobs[name]

    def _tops_of(self, choose: Callable[[Node], bool]) -> tuple[str, ...]:
        return tuple(
            self.values[top].name for node in self.nodes if choose(node) for top in node.tops
        )


def connect(net: NetText, create: Create = create) -> Graph:
    """Connect the layers of an upgraded, phase-selected net; raises GraphError, LayerError.

    create: makes the layer of a LayerParameter in a phase.
    """
    phase = net.message.state.phase if net.message.HasField("state") else TEST
    values: list[Value] = []
    bound: dict[str, int] = {}
    nodes: list[Node] = []
    ignored_fields.warn(net.message, Place(net.file))
    for n, (spec, place) in enumerate(zip(net.message.layer, net.places, strict=True)):
        with blame(place, who(spec)):
            ignored_fields.warn(spec, place, who(spec))
            layer = create(spec, phase)
            layer.loss_weights()
            bottoms = tuple(_bottom(name, bound, net, n) for name in spec.bottom)
            tops, in_place = _bind_tops(layer, nodes, bound, values)
            stops = _stops(layer, net.message.force_backward)
            nodes.append(Node(layer, bottoms, tops, in_place, stops, place))
    graph = Graph(
        name=net.message.name,
        file=net.file,
        phase=phase,
        force_backward=net.message.force_backward,
        nodes=tuple(nodes),
        values=tuple(values),
        shared=_share(nodes),
    )
    _check_splits(graph)
    return graph


def _stops(layer: Layer, forced: bool) -> tuple[bool, ...]:
    """Per bottom, whether ``propagate_down`` keeps gradients from it."""
    given, bottoms = layer.spec.propagate_down, len(layer.spec.bottom)
    require(
        len(given) in (0, bottoms),
        f"{len(given)} propagate_down for {counted(bottoms, 'bottom')}; "
        "give none, or one for each bottom",
        GraphError,
    )
    downs = given or (True,) * bottoms
    forces = (forced and layer.bottom_use.is_forced(i) for i in range(bottoms))
    return tuple(not (down or force) for down, force in zip(downs, forces, strict=True))


def _check_splits(graph: Graph) -> None:
    """Raise GraphError or LayerError where Caffe's automatic splits leave a net that cannot be."""
    for n, node in enumerate(graph.nodes):
        with blame(node.place, node.who):
            own_weights(node.layer, [bool(graph.readers[top]) for top in node.tops])
            for slot in node.in_place:
                _check_in_place(graph, n, node.bottoms[slot])


def _check_in_place(graph: Graph, n: int, bottom: int) -> None:
    """Raise GraphError where a layer in place would overwrite what others read.

    Caffe: "produced by multiple sources" in ``net.cpp``, as a split gives the bottom another name.
    """
    name, producer, slot = (value := graph.values[bottom]).name, value.producer, value.slot
    others = [graph.nodes[reader] for reader in graph.readers[bottom] if reader != n]
    written = graph.nodes[producer].layer.spec.loss_weight
    if others:
        why = f'which layer "{others[0].name}" reads too ({others[0].place})'
    elif len(graph.readers[bottom]) > 1:
        why = "which it reads more than once"
    elif slot < len(written) and written[slot]:
        why = f'which has a loss_weight in layer "{graph.nodes[producer].name}"'
    else:
        return
    fail(f'works in place on "{name}", {why}; give the top a name of its own', GraphError)


def _bottom(name: str, bound: Mapping[str, int], net: NetText, reader: int) -> int:
    if name not in bound:
        if any(name in layer.top for layer in net.message.layer[reader + 1 :]):
            hint = "; a layer further down makes it: layers run in the order of the file"
        elif name in net.left_out:
            hint = f"; the layer that makes it is left out in {state_text(net.message.state)}"
        else:
            hint = nearest(name, bound)
        fail(f'unknown bottom "{name}"{hint}', GraphError)
    return bound[name]


def _bind_tops(
    layer: Layer, nodes: Sequence[Node], bound: dict[str, int], values: list[Value]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The values of the next node's tops, and the slots of those in place."""
    spec = layer.spec
    tops, in_place = [], []
    for slot in range(layer.num_tops):
        name = spec.top[slot] if slot < len(spec.top) else AUTOMATIC
        if name != AUTOMATIC and slot < len(spec.bottom) and name == spec.bottom[slot]:
            require(
                layer.traits.works_in_place,
                "cannot work in place; give the top a name of its own",
            )
            in_place.append(slot)
        elif name in bound:
            first = next(value.producer for value in values if value.name == name)
            maker = nodes[first] if first < len(nodes) else None
            fail(f'top "{name}" is {_taken(name, layer, maker)}', GraphError)
        tops.append(len(values))
        values.append(Value(name, len(nodes), slot))
        if name != AUTOMATIC:
            bound[name] = tops[-1]
    return tuple(tops), tuple(in_place)


def _taken(name: str, layer: Layer, maker: Node | None) -> str:
    """Why a top cannot have a name, and what to do; maker: the earlier layer whose top has it."""
    if maker is None:
        return "named twice"
    bottoms = layer.spec.bottom
    may = layer.traits.works_in_place and bottoms and name not in bottoms
    hint = f', or take "{name}" as a bottom to work in place' if may else ""
    made = f'made by layer "{maker.name}" already ({maker.place})'
    return f"{made}; give the top a name of its own{hint}"


def _share(nodes: list[Node]) -> dict[tuple[int, int], tuple[int, int]]:
    """Blobs that share an array by ``param { name }``: each one's owner is the first of its name.

    Their multipliers, where given, must agree; shapes are compared once they are known.
    """
    owners: dict[str, tuple[int, int]] = {}
    multipliers: dict[tuple[str, str], float] = {}
    shared: dict[tuple[int, int], tuple[int, int]] = {}
    for n, node in enumerate(nodes):
        for i, spec in enumerate(node.layer.spec.param):
            if not spec.name:
                continue
            if owners.setdefault(spec.name, (n, i)) != (n, i):
                shared[n, i] = owners[spec.name]
            for name in ("lr_mult", "decay_mult"):
                if spec.HasField(name):
                    given = getattr(spec, name)
                    first = multipliers.setdefault((spec.name, name), given)
                    with blame(node.place, node.who):
                        require(
                            given == first,
                            f'{name} {given:g} of shared param "{spec.name}" disagrees with '
                            f"{first:g} given before, which Caffe up to rc2 took; since rc3 it "
                            "refuses, too: give all the same",
                            GraphError,
                        )
    return shared
