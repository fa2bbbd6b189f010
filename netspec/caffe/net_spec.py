"""pycaffe's ``caffe.net_spec``: nets written in Python, over `netspec.spec`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from netspec import spec
from netspec.frontend.any_fields import EnumName, Fields
from netspec.layers.fork_names import fork_of_field
from netspec.layers.registry import REGISTRY
from netspec.proto.layers_pb2 import LayerParameter
from netspec.spec import Function as Function
from netspec.spec import NetSpec as NetSpec
from netspec.spec import Top as Top
from netspec.spec import to_proto as to_proto

# As pycaffe calls it.
assign_proto = spec.assign


def param_name_dict() -> dict[str, str]:
    """Layer type -> what its message's field is called before ``_param``: ``inner_product``."""
    return {name: field.removesuffix("_param") for name, field in spec.OWN_MESSAGES.items()}


class Layers:
    """``L.Convolution(bottom, num_output=64)``, as `netspec.spec.layers` gives it.

    A layer type of a fork is written as it is, unchecked: it may have any keyword. One of its own
    message, ``L.Permute(bottom, order=[0, 2, 3, 1])``, is written into ``permute_param``. Raises
    TypeError where a bottom is no top, as pycaffe does.
    """

    def __getattr__(self, type_name: str) -> Callable[..., Any]:
        if type_name.startswith("__"):
            raise AttributeError(type_name)

        def layer(*inputs: Any, **settings: Any) -> Any:
            for i, bottom in enumerate(inputs):
                if not isinstance(bottom, Top | str):
                    raise TypeError(f"{type_name} input {i} is not a Top (type is {type(bottom)})")
            known, extra = _split(type_name, settings)
            made = spec.layer_of(type_name, *inputs, **known)
            first = made[0] if isinstance(made, tuple) else made
            function = first.fn if isinstance(first, Top) else first
            function.extra = extra
            function.params = {k: value for k, value in settings.items() if k not in _CALL}
            return made

        return layer


class Params:
    """``P.Pooling.MAX``, as `netspec.spec.params` gives it; of a fork's message, the name alone."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(spec.params, name) if f"{name}Parameter" in _MESSAGES else _AnyEnum()


class _AnyEnum:
    def __getattr__(self, value: str) -> EnumName:
        if value.startswith("__"):
            raise AttributeError(value)
        return EnumName(value)


_MESSAGES = LayerParameter.DESCRIPTOR.file.message_types_by_name
# Keywords that are no fields.
_CALL = ("ntop", "in_place", "bottom")


def _split(type_name: str, settings: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """A layer's settings: those that our schema has, or that nobody has; and those of forks."""
    layer = REGISTRY.get(type_name)
    own = layer.param_field if layer else spec.OWN_MESSAGES.get(type_name)
    unknown = layer is None and own is None
    own = own or f"{_snake(type_name)}_param"
    general = LayerParameter.DESCRIPTOR.fields_by_name
    message: Any = general[own].message_type if own in general else None
    fields = message.fields_by_name if message else {}
    whole: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _CALL or name in fields:
            plain[name] = value
        elif name in general or name.endswith("_param"):
            whole[name] = value
        elif unknown or fork_of_field(message.name, name):
            whole[own] = {**whole.get(own, {}), name: value}
        else:
            whole[name] = value
    known, extra = _split_message(LayerParameter.DESCRIPTOR, whole, unknown)
    return {**plain, **known}, extra


def _split_message(
    message: Any, values: Fields, unknown: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of a message's fields. unknown: whether all that it lacks is a fork's."""
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in values.items():
        field = message.fields_by_name.get(name)
        if field is None and (unknown or fork_of_field(message.name, name)):
            extra[name] = value
        elif field is not None and field.message_type and isinstance(value, Mapping):
            known[name], more = _split_message(field.message_type, value, unknown)
            extra |= {name: more} if more else {}
        else:
            known[name] = value
    return known, extra


def _snake(name: str) -> str:
    """A type's name as fields are called: ``ROIPooling`` is ``roi_pooling``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


layers = Layers()
params = Params()
