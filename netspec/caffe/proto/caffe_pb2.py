"""Every message, enum and enum value of ``netspec.proto`` in one module, as pycaffe has them.

So are their descriptors, by the private names that some scripts use: ``_PHASE``,
``_LAYERPARAMETER``, ``_V1LAYERPARAMETER_LAYERTYPE``.
"""

# ruff: noqa: F403 - whatever a .proto file gains belongs here, without a list to keep in step.
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from netspec.errors import nearest
from netspec.proto import layers_pb2, legacy_pb2, net_pb2, solver_pb2
from netspec.proto.layers_pb2 import *
from netspec.proto.legacy_pb2 import *
from netspec.proto.net_pb2 import *
from netspec.proto.solver_pb2 import *

_FILES = [module.DESCRIPTOR for module in (layers_pb2, legacy_pb2, net_pb2, solver_pb2)]
# Caffe's is one file.
DESCRIPTOR = SimpleNamespace(  # type: ignore[assignment]
    name="caffe.proto",
    package="caffe",
    message_types_by_name={
        name: message for file in _FILES for name, message in file.message_types_by_name.items()
    },
    enum_types_by_name={
        name: enum for file in _FILES for name, enum in file.enum_types_by_name.items()
    },
)


def _descriptors(scope: Any, outer: str = "") -> Iterator[tuple[str, Any]]:
    """The private names of all messages and enums of a file or message, and their descriptors."""
    messages = scope.nested_types_by_name if outer else scope.message_types_by_name
    for name, message in messages.items():
        yield f"{outer}_{name.upper()}", message
        yield from _descriptors(message, f"{outer}_{name.upper()}")
    for name, enum in scope.enum_types_by_name.items():
        yield f"{outer}_{name.upper()}", enum


globals().update(_descriptors(DESCRIPTOR))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f'caffe_pb2 has no "{name}"{nearest(name, globals())}')
