"""A net from a seed: layers are added one at a time, each as netspec's shape rules accept it."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from netspec.errors import NetSpecError
from netspec.layers import REGISTRY
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter

from . import face, fields, legacy
from .drafts import Draft, Feed
from .hints import HINTS
from .making import Making

_SPELLINGS = (
    ("layer",) * 8 + ("separate",) * 3 + ("input_shape",) * 3 + ("input_dim", "v1", "v1", "v0")
)
_TRIES = 12


@dataclass
class Grown:
    """A draft, and what became of the layers that were tried.

    refused: messages of netspec, without their place. broken: nets at which it raised something
    else than a NetSpecError.
    """

    draft: Draft
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[Draft, Exception]] = field(default_factory=list)


def types() -> list[str]:
    """The layer types that nets are made of, beside Input.

    What reads files, or calls the user's Python, has tests of its own.
    """
    return sorted(REGISTRY.keys() - face.host_types() | {"DummyData"})


def draft(seed: int) -> Grown:
    """The net of a seed."""
    rng = random.Random(seed)
    spelling = rng.choice(_SPELLINGS)
    fits: Callable[[str], bool] = {
        "v1": lambda name: legacy.v1_type(name) is not None,
        "v0": lambda name: name in legacy.V0_TYPES,
    }.get(spelling, lambda name: True)
    fitting = [name for name in types() if fits(name)]
    count = rng.choice([1, 2, 2, 3, 3, 4, 5])
    wanted = [rng.choice(fitting) for _ in range(count)]
    wanted[rng.randrange(count)] = fitting[seed % len(fitting)]
    phase = rng.choice(["train", "test", "test"])
    grown = Grown(Draft(seed, phase, spelling, _header(rng)))
    making = Making(rng)
    for name in wanted:
        _grow(grown, making, name)
    return grown


def _header(rng: random.Random) -> NetParameter:
    header = NetParameter()
    if rng.random() < 0.3:
        header.name = "net"
    if rng.random() < 0.4:
        header.force_backward = rng.random() < 0.9
    if rng.random() < 0.15:
        header.state.level = rng.randint(0, 2)
        header.state.stage.append("s")
    return header


def _grow(grown: Grown, making: Making, name: str) -> None:
    """Add a layer of a type to the draft, if netspec accepts one of some tries."""
    for _ in range(_TRIES):
        before = (
            dict(making.shapes),
            list(making.feeds),
            list(making.layers),
            set(making.positive),
        )
        shared = making.rng.random() < 0.2 and _again(making, name)
        layer = shared or _layer(making, name)
        tried = _with(grown.draft, making, layer)
        try:
            found = face.shapes_of(tried) if _sayable(tried) else None
        except NetSpecError as error:
            grown.refused[f"{name}: {error.message}"] += 1
        except Exception as error:
            grown.broken.append((tried, error))
        else:
            if found is not None:
                grown.draft = tried
                making.made(layer, {top: found[top] for top in layer.top if top in found})
                return
        making.shapes, making.feeds, making.layers, making.positive = before


def _sayable(draft: Draft) -> bool:
    """Whether a net can be written in its spelling."""
    says = {"v1": legacy.fits_v1, "v0": legacy.fits_v0}.get(draft.spelling)
    return says is None or all(map(says, draft.layers))


def _with(draft: Draft, making: Making, layer: LayerParameter) -> Draft:
    read = {name for each in (*making.layers, layer) for name in (*each.bottom, *each.top)}
    feeds = tuple(feed for feed in making.feeds if feed.name in read)
    return replace(draft, feeds=feeds, layers=(*making.layers, layer))


def _layer(making: Making, name: str) -> LayerParameter:
    """A layer of a type, its bottoms there already or new fed blobs."""
    rng, kind = making.rng, REGISTRY[name]
    number = len(making.layers)
    layer = LayerParameter(name=f"l{number}", type=name)
    if kind.param_field and rng.random() < 0.85:
        settings = getattr(layer, kind.param_field)
        fields.fill_in(settings, rng, making.rank, rng.choice([0.15, 0.4, 0.7]))
    making.tops = None
    layer.bottom.extend(HINTS[name](making, layer) if name in HINTS else _any_bottoms(making, name))
    if name == "DummyData":
        return _dummy(making, layer)
    for i in range(_tops(making, layer)):
        layer.top.append(f"b{number}" if i == 0 else f"b{number}_{i}")
    if layer.bottom and layer.top and rng.random() < 0.25 and _may_be_in_place(making, layer):
        layer.top[0] = layer.bottom[0]
    _decorate(rng, layer)
    return layer


def _any_bottoms(making: Making, name: str) -> list[str]:
    allowed = REGISTRY[name].arity.bottoms
    count = making.rng.randint(allowed.start, min(allowed.stop - 1, allowed.start + 1))
    return making.alike(count) if count else []


def _tops(making: Making, layer: LayerParameter) -> int:
    """How many tops a layer is to name."""
    arity, rng = REGISTRY[layer.type].arity, making.rng
    if making.tops is not None:
        return making.tops
    if arity.tops_as_bottoms:
        return len(layer.bottom)
    least, most = arity.tops.start, min(arity.tops.stop - 1, arity.tops.start + 2)
    if arity.auto_top and rng.random() < 0.3:
        return 0
    return rng.choice([least, rng.randint(least, most)])


def _may_be_in_place(making: Making, layer: LayerParameter) -> bool:
    """Seldom where another layer reads the blob (Caffe refuses that), or where it is fed."""
    name = layer.bottom[0]
    others = any(name in other.bottom and name not in other.top for other in making.layers)
    twice = list(layer.bottom).count(name) > 1
    fed = any(name == feed.name for feed in making.feeds)
    return making.rng.random() < (0.05 if others or twice else 0.25 if fed else 1)


def _decorate(rng: random.Random, layer: LayerParameter) -> None:
    """What any layer may say: how it is learned, whether it is a loss, when it is kept."""
    if rng.random() < 0.15:
        tops = max(len(layer.top), int(REGISTRY[layer.type].arity.auto_top))
        layer.loss_weight.extend(rng.choice([0, 0.5, 2, -1]) for _ in range(tops))
    if rng.random() < (0.35 if face.learns(layer.type) else 0.01):
        for _ in range(rng.choice([1, 1, 2])):
            fields.fill_in(layer.param.add(), rng, 1, 0.5).ClearField("name")
    if rng.random() < 0.08:
        layer.propagate_down.extend(rng.random() < 0.5 for _ in layer.bottom)
    if rng.random() < 0.03:
        layer.phase = rng.choice([0, 1])
    if rng.random() < 0.08:
        rule = (layer.include if rng.random() < 0.5 else layer.exclude).add()
        fields.fill_in(rule, rng, 1, 0.3)
        if rng.random() < 0.3:
            (rule.stage if rng.random() < 0.5 else rule.not_stage).append("s")


def _again(making: Making, name: str) -> LayerParameter | None:
    """A layer like an earlier one of its type, whose learned blobs it shares, if there is one."""
    rng = making.rng
    alike = [i for i, layer in enumerate(making.layers) if layer.type == name]
    if not alike or any(making.layers[i].bottom == making.layers[i].top for i in alike):
        return None
    at = rng.choice(alike)
    first, again = LayerParameter(), LayerParameter()
    first.CopyFrom(making.layers[at])
    for k in range(rng.choice([1, 2])):
        spec = first.param[k] if k < len(first.param) else first.param.add()
        spec.name = spec.name or f"shared{at}_{k}"
        if rng.random() < 0.2:
            spec.share_mode = rng.choice([0, 1])
    again.CopyFrom(first)
    again.name = f"l{len(making.layers)}"
    for i in range(len(again.top)):
        again.top[i] = f"b{len(making.layers)}_{i}"
    if rng.random() < 0.5:
        for i, blob in enumerate(again.bottom):
            if blob in making.shapes and rng.random() < 0.5:
                again.bottom[i] = making.feed(making.shapes[blob])
    making.layers[at] = first
    return again


def _dummy(making: Making, layer: LayerParameter) -> LayerParameter:
    """A layer that makes blobs of one number, so that it is known what it makes."""
    rng, p = making.rng, layer.dummy_data_param
    p.Clear()
    value = rng.choice([0, 0.5, 2])
    if value or rng.random() < 0.5:
        p.data_filler.add(value=value)
    shape = making.some_shape()
    layer.top.append(f"dummy{len(making.layers)}")
    if len(shape) == 4 and rng.random() < 0.5:
        for name, n in zip(("num", "channels", "height", "width"), shape, strict=True):
            getattr(p, name).append(n)
    else:
        p.shape.add(dim=shape)
    making.feeds.append(Feed(layer.top[0], shape, "constant", value))
    return layer
