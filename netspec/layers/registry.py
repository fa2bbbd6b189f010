"""The registry of layer types, and how a layer is made from its message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from netspec.errors import counted, fail, nearest, require
from netspec.layers.base import Layer
from netspec.layers.fork_names import fork_of_type
from netspec.layers.records import Arity
from netspec.proto.layers_pb2 import LayerParameter

AnyLayer = TypeVar("AnyLayer", bound=type[Layer])
REGISTRY: dict[str, type[Layer]] = {}
# Stands for no limit in a range of bottoms or tops.
_NO_LIMIT = 1 << 30


def register(
    param: str | None = None,
    bottoms: int | tuple[int, int | None] = 1,
    tops: int | tuple[int, int | None] | str = 1,
    auto_top: bool = False,
) -> Callable[[AnyLayer], AnyLayer]:
    """Make a class the layer type of its own name; raises TypeError if there is one already.

    param: the field of LayerParameter that holds its settings. bottoms, tops: how many it takes
    and makes: a number, or (least, most) with None for no limit; ``tops="bottoms"`` for as many as
    bottoms. auto_top: tops that the prototxt does not name are made all the same.
    """

    def enter(cls: AnyLayer) -> AnyLayer:
        if cls.__name__ in REGISTRY:
            raise TypeError(f"two layers are called {cls.__name__}")
        cls.param_field = param
        cls.arity = Arity(
            bottoms=_range(bottoms),
            tops=_range(bottoms if isinstance(tops, str) else tops),
            tops_as_bottoms=tops == "bottoms",
            auto_top=auto_top,
        )
        cls.family = cls.__module__.rsplit(".", 1)[-1]
        REGISTRY[cls.__name__] = cls
        return cls

    return enter


def _range(count: int | tuple[int, int | None]) -> range:
    least, most = (count, count) if isinstance(count, int) else count
    return range(least, _NO_LIMIT if most is None else most + 1)


def create(spec: LayerParameter, phase: int) -> Layer:
    """The layer that a LayerParameter asks for, its arity checked; raises LayerError."""
    require(spec.type, "has no type")
    if spec.type not in REGISTRY:
        fail(unknown_type(spec.type))
    cls = REGISTRY[spec.type]
    layer = cls(spec, spec.phase if spec.HasField("phase") else phase)
    _check_count("bottom", len(spec.bottom), cls.arity.bottoms)
    _check_count("top", layer.num_tops, cls.arity.tops)
    if cls.arity.tops_as_bottoms:
        require(
            len(spec.bottom) == len(spec.top),
            f"makes one top a bottom, but has {counted(len(spec.bottom), 'bottom')} and "
            f"{counted(len(spec.top), 'top')}",
        )
    return layer


def unknown_type(name: str) -> str:
    """The message for a type that is not registered: whose it may be, or which is like it."""
    return f'unknown layer type "{name}"{fork_of_type(name) or nearest(name, REGISTRY)}'


def _check_count(noun: str, count: int, allowed: range) -> None:
    if count in allowed:
        return
    least, most = allowed.start, allowed.stop - 1
    if most == least:
        need = f"exactly {least}"
    elif allowed.stop == _NO_LIMIT:
        need = f"at least {least}"
    else:
        need = f"{least} to {most}"
    fail(f"has {counted(count, noun)} but needs {need}")
