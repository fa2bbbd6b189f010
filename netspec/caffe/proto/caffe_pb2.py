"""Every message, enum and enum value of ``netspec.proto`` in one module, as pycaffe has them."""

# ruff: noqa: F403 - whatever a .proto file gains belongs here, without a list to keep in step.
from netspec.proto.layers_pb2 import *
from netspec.proto.legacy_pb2 import *
from netspec.proto.net_pb2 import *
from netspec.proto.solver_pb2 import *
