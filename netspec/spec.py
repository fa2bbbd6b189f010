"""Write nets in Python, as pycaffe's ``NetSpec`` does.

::

    from netspec.spec import NetSpec, crop, layers as L, params as P

    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 500, 500]))
    n.conv1 = L.Convolution(n.data, num_output=64, kernel_size=3, pad=100)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    print(prototxt.write(n.to_proto()))

A keyword is a field of the layer type's own message (``num_output`` of Convolution goes to
``convolution_param``) or of LayerParameter (``param``, ``include``, ``loss_weight``). Dicts become
messages, lists repeated fields; a repeated field takes a single value too, an enum its name.

Caffe: ``python/caffe/net_spec.py``. Differs: a mistake in a keyword is found where it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from netspec.errors import GraphError, LayerError, Place, blame, fail, nearest, require
from netspec.frontend.any_fields import Fields, with_fields
from netspec.frontend.graph import Graph, connect
from netspec.frontend.prototxt import NetText
from netspec.geometry import coords
from netspec.layers.fork_names import fork_of_type
from netspec.layers.registry import REGISTRY
from netspec.proto import layers_pb2
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter


class UnknownTop(GraphError, AttributeError):
    """A name that a NetSpec has not; an AttributeError too, for ``hasattr`` and ``copy``."""


class Function:
    """A layer: its type, its bottoms (tops of other layers, or names of blobs), its settings.

    tops: the ``ntop`` tops it makes. params: its settings, as they were given. extra: fields that
    our schema lacks, written as they are.
    """

    def __init__(
        self,
        type_name: str,
        inputs: tuple[Top | str, ...],
        settings: Mapping[str, Any],
        ntop: int = 1,
        in_place: bool = False,
    ) -> None:
        with blame(None, f"L.{type_name}"):
            self.type_name = type_name
            self.inputs = _bottoms(inputs)
            self.in_place = in_place
            self.spec = LayerParameter()
            for name, value in settings.items():
                assign(_owner(self.spec, type_name, name), name, value)
        self.params, self.ntop = dict(settings), ntop
        self.tops = tuple(Top(self, n) for n in range(ntop))
        self.extra: Fields = {}


class Top:
    """One blob that a layer makes: its top number ``n``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> NetParameter:
        """The net of all layers that this top needs, their names made up."""
        return to_proto(self)


class NetSpec:
    """A net in the making: a top assigned to an attribute or item takes its name.

    A layer is named after its first top; what is never assigned is named after its type:
    ``Convolution1``. ``n.tops`` has all by name.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, top: Top | Function) -> None:
        self[name] = top

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "tops":
            raise AttributeError(name)
        return self[name]

    def __setitem__(self, name: str, top: Top | Function) -> None:
        require(
            isinstance(top, Top | Function),
            f'"{name}" is assigned a {type(top).__name__}, not a top; '
            "a layer with ntop=2 gives two: n.data, n.label = L.Data(..., ntop=2)",
            GraphError,
        )
        require(not hasattr(NetSpec, name), f'"{name}" is a method of NetSpec', GraphError)
        self.tops[name] = top

    def __getitem__(self, name: str) -> Any:
        if name not in self.tops:
            raise UnknownTop(f'no top "{name}"{nearest(name, self.tops)}')
        return self.tops[name]

    def to_proto(self) -> NetParameter:
        """The net of all layers that the assigned tops need, in the order of assignment."""
        names = {top: name for name, top in self.tops.items()}
        return _with_extra(_ordered(map(_function, self.tops.values())), names)


class _Layers:
    """``L.Convolution(bottom, num_output=64)`` is the top of a new Convolution layer.

    Several tops with ``ntop=2``, its `Function` with ``ntop=0``.
    """

    def __getattr__(self, type_name: str) -> Callable[..., Any]:
        if type_name.startswith("__"):
            raise AttributeError(type_name)
        known = {*REGISTRY, *OWN_MESSAGES}
        if type_name not in known:
            hint = fork_of_type(type_name) or nearest(type_name, known)
            fail(f'unknown layer type "{type_name}"{hint}')
        return partial(layer_of, type_name)


class NoSuchName(LayerError, AttributeError):
    """An attribute of `params` that is none: ``hasattr`` says so."""


class _Params:
    """``P.Pooling.MAX`` is the value MAX of an enum in PoolingParameter."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        message = f"{name}Parameter"
        if not hasattr(layers_pb2, message):
            known = [
                key.removesuffix("Parameter") for key in layers_pb2.DESCRIPTOR.message_types_by_name
            ]
            fail(f'P.{name}: no message "{message}"{nearest(name, known)}', NoSuchName)
        return _Enums(name, getattr(layers_pb2, message))


class _Enums:
    def __init__(self, name: str, message: Any) -> None:
        self._name = name
        self._message = message

    def __getattr__(self, value: str) -> int:
        if value.startswith("__"):
            raise AttributeError(value)
        known = self._message.DESCRIPTOR.enum_values_by_name
        if value not in known:
            fail(
                f'P.{self._name}: no value "{value}"{nearest(value, known)} ({", ".join(known)})',
                NoSuchName,
            )
        return int(known[value].number)


layers = L = _Layers()
params = P = _Params()


def to_proto(*tops: Top | Function) -> NetParameter:
    """The net of all layers that ``tops`` need, their names made up."""
    return _with_extra(_ordered(map(_function, tops)), {})


def crop(top: Top, reference: Top, rank: int = 2) -> Top:
    """A Crop of ``top`` to ``reference`` whose offsets put pixels on their own place.

    rank: how many axes the two have from axis 2 on. Raises GraphError where no such crop exists
    (`netspec.geometry.coords.crop_start`).
    """
    graph, (blob, like) = connected(top, reference)
    axis, offset = coords.crop_start(graph, blob, like, rank)
    same = len(set(offset)) == 1
    cut: Top = layers.Crop(top, reference, axis=axis, offset=offset[:1] if same else offset)
    return cut


def connected(*tops: Top) -> tuple[Graph, list[int]]:
    """The graph of all layers that some tops need, and which of its values they are."""
    order = _ordered(top.fn for top in tops)
    net = _serialise(order, {})
    graph = connect(NetText(net, "", (Place(""),) * len(order)))
    return graph, [graph.nodes[order.index(top.fn)].tops[top.n] for top in tops]


def layer_of(
    type_name: str, *inputs: Top | str, ntop: int = 1, in_place: bool = False, **settings: Any
) -> Top | tuple[Top, ...] | Function:
    """A new layer's top, its tops, or itself where it has none; raises LayerError."""
    named = settings.pop("bottom", ())
    bottoms = (*inputs, *([named] if isinstance(named, str) else named))
    fn = Function(type_name, bottoms, settings, ntop, in_place)
    if ntop == 0:
        return fn
    return fn.tops[0] if ntop == 1 else fn.tops


def _bottoms(inputs: tuple[Top | str, ...]) -> tuple[Top | str, ...]:
    for i, bottom in enumerate(inputs):
        require(
            isinstance(bottom, Top | str),
            f"bottom {i} is a {type(bottom).__name__}, not a top or the name of a blob"
            + ("; give several tops one by one: L.Silence(*tops)" if _is_list(bottom) else ""),
        )
    return inputs


def _function(top: Top | Function) -> Function:
    return top.fn if isinstance(top, Top) else top


def _ordered(roots: Iterable[Function]) -> list[Function]:
    """Some layers and all that they need, each after those that it needs."""
    done: dict[Function, None] = {}
    for root in roots:
        stack = [root]
        while stack:
            fn = stack[-1]
            missing = [
                bottom.fn
                for bottom in fn.inputs
                if isinstance(bottom, Top) and bottom.fn not in done
            ]
            if missing and fn not in done:
                stack.extend(reversed(missing))
            else:
                done[stack.pop()] = None
    return list(done)


def _with_extra(order: list[Function], names: Mapping[Top | Function, str]) -> NetParameter:
    net = _serialise(order, names)
    extra = [fn.extra for fn in order]
    return with_fields(net, extra) if any(extra) else net


def _serialise(order: list[Function], names: Mapping[Top | Function, str]) -> NetParameter:
    """Layers as a net; ``names`` of tops, and of layers without any, where they were given."""
    names = dict(names)
    made_up: Counter[str] = Counter()

    def name_of(thing: Top | Function) -> str:
        if thing not in names:
            kind = _function(thing).type_name
            made_up[kind] += 1
            names[thing] = f"{kind}{made_up[kind]}"
        return names[thing]

    net = NetParameter()
    tops: dict[Function, list[str]] = {}
    for fn in order:
        bottoms = [b if isinstance(b, str) else tops[b.fn][b.n] for b in fn.inputs]
        tops[fn] = bottoms if fn.in_place else [name_of(top) for top in fn.tops]
        layer = net.layer.add(type=fn.type_name, bottom=bottoms, top=tops[fn])
        layer.name = name_of(fn.tops[0] if fn.tops else fn)
        layer.MergeFrom(fn.spec)
    return net


# Layer type -> its message, for types whose message is called like them.
OWN_MESSAGES = {
    field.message_type.name.removesuffix("Parameter"): field.name
    for field in LayerParameter.DESCRIPTOR.fields
    if field.message_type and field.name.endswith("_param")
}


def _owner(spec: LayerParameter, type_name: str, name: str) -> Any:
    """The message that has a keyword's field: LayerParameter or the layer type's own."""
    layer = REGISTRY.get(type_name)
    field = layer.param_field if layer else OWN_MESSAGES.get(type_name)
    own = getattr(spec, field).DESCRIPTOR.fields_by_name if field else {}
    if field and name in own:
        return getattr(spec, field)
    general = spec.DESCRIPTOR.fields_by_name
    if name not in general:
        fail(f'unknown field "{name}"{nearest(name, [*own, *general])}')
    return spec


def assign(message: Any, name: str, value: Any) -> None:
    """Set a field of a message from a plain Python value: see above; raises LayerError."""
    fields = message.DESCRIPTOR.fields_by_name
    if name not in fields:
        fail(f'unknown field "{name}" in {message.DESCRIPTOR.name}{nearest(name, fields)}')
    field = fields[name]
    target = getattr(message, name)
    try:
        if hasattr(target, "extend"):
            for item in value if _is_list(value) else [value]:
                if field.message_type:
                    _fill(target.add(), item)
                else:
                    target.append(_scalar(field, item))
        elif field.message_type:
            _fill(target, value)
        else:
            setattr(message, name, _scalar(field, value))
    except (TypeError, ValueError) as error:
        raise LayerError(f"{name}: {value!r} does not fit: {error}") from None


def _fill(message: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        message.SetInParent()
        for name, item in value.items():
            assign(message, name, item)
    else:
        message.CopyFrom(value)


def _scalar(field: Any, value: Any) -> Any:
    """A value as protobuf takes it: an enum's name becomes its number."""
    if not (field.enum_type and isinstance(value, str)):
        return value
    known = field.enum_type.values_by_name
    if value not in known:
        fail(f'{field.name}: no value "{value}"{nearest(value, known)} ({", ".join(known)})')
    return known[value].number


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
