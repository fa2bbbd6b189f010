"""Write fields that no schema of ours has into a net's message, as forks of Caffe have them.

What a fork's field is, its value tells: a number, a name, a message of fields. The net is given a
schema of its own, good for its text; the numbers of these fields in the binary form mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from netspec.errors import fail, require
from netspec.proto import layers_pb2, legacy_pb2, net_pb2
from netspec.proto.net_pb2 import NetParameter

# Field -> its value: a scalar, a list, or a mapping again.
Fields = Mapping[str, Any]


class EnumName(str):
    """The name of an enum's value, which text has without quotes."""

    __slots__ = ()


_SCALARS: tuple[tuple[type, FieldDescriptorProto.Type.ValueType], ...] = (
    (bool, FieldDescriptorProto.TYPE_BOOL),
    (int, FieldDescriptorProto.TYPE_INT64),
    (float, FieldDescriptorProto.TYPE_FLOAT),
    (str, FieldDescriptorProto.TYPE_STRING),
)
_ENUM, _MESSAGE = FieldDescriptorProto.TYPE_ENUM, FieldDescriptorProto.TYPE_MESSAGE


def with_fields(net: NetParameter, extra: Sequence[Fields]) -> NetParameter:
    """A net with more fields in its layers, one mapping a layer; raises LayerError.

    It is a message like NetParameter, of a class of its own.
    """
    fields = [_plain(each) for each in extra]
    pool = DescriptorPool()
    for module in (layers_pb2, legacy_pb2, net_pb2):
        proto = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(proto)
        if module is layers_pb2:
            messages = {f".netspec.{message.name}": message for message in proto.message_type}
            _declare(messages.__getitem__, ".netspec.LayerParameter", fields)
        pool.Add(proto)
    made: Any = GetMessageClass(pool.FindMessageTypeByName("netspec.NetParameter"))()
    made.ParseFromString(net.SerializeToString())
    for layer, each in zip(made.layer, fields, strict=True):
        _fill(layer, each)
    whole: NetParameter = made
    return whole


def _plain(value: Any) -> Any:
    """A value in Python's own types; a tuple or an array is a list."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _declare(find: Callable[[str], DescriptorProto], path: str, samples: Sequence[Fields]) -> None:
    """Add the fields that samples of a message have to its description, where it lacks them."""
    message = find(path)
    known = {field.name: field for field in message.field}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        values = [sample[name] for sample in samples if name in sample]
        if name in known:
            _declare(find, known[name].type_name, values)
            continue
        require(re.fullmatch(r"[A-Za-z_]\w*", name), f"{name!r} is no name of a field")
        _add(message, path, name, values)


def _add(message: DescriptorProto, path: str, name: str, values: Sequence[Any]) -> None:
    """Add one field of the type of its values, in all layers."""
    repeated = any(isinstance(value, list) for value in values)
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    number = max((field.number for field in message.field), default=0) + 1
    field = message.field.add(name=name, number=number, type=_type_of(name, items))
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if field.type not in (_ENUM, _MESSAGE):
        return
    # A message of its own, for an enum, too: the names of values must differ within one.
    inner = message.nested_type.add(name=f"{name}_type")
    field.type_name = f"{path}.{inner.name}"
    if field.type == _MESSAGE:
        _declare({field.type_name: inner}.__getitem__, field.type_name, items)
        return
    enum = inner.enum_type.add(name="Name")
    field.type_name += ".Name"
    for i, value in enumerate(dict.fromkeys(items)):
        enum.value.add(name=value, number=i)


def _type_of(name: str, items: Sequence[Any]) -> FieldDescriptorProto.Type.ValueType:
    if items and all(isinstance(item, Mapping) for item in items):
        return _MESSAGE
    if items and all(isinstance(item, EnumName) for item in items):
        return _ENUM
    for kind, number in _SCALARS:
        kinds = (int, float) if kind is float else (kind,)
        if all(isinstance(item, kinds) for item in items):
            return number
    return fail(f"{name}: {', '.join(map(repr, items))} do not fit one field")


def _fill(message: Any, fields: Fields) -> None:
    """Set fields that the message's description has by now."""
    for name, value in fields.items():
        field: FieldDescriptor = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is None:
            numbers = field.enum_type.values_by_name if field.enum_type else None
            items = value if isinstance(value, list) else [value]
            given = [numbers[item].number if numbers else item for item in items]
            if hasattr(getattr(message, name), "extend"):
                getattr(message, name).extend(given)
            else:
                setattr(message, name, given[0])
        elif hasattr(getattr(message, name), "add"):
            for item in value if isinstance(value, list) else [value]:
                _fill(getattr(message, name).add(), item)
        else:
            getattr(message, name).SetInParent()
            _fill(getattr(message, name), value)
