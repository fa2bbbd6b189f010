"""The fields of Caffe's schema that nothing here reads, each with the reason.

``tests/test_ignored_fields.py`` holds that every other field is read somewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netspec.errors import NetSpecError, require

Reasons = Mapping[tuple[str, str], str]

_PRINTED = "statistics of blobs are not printed here; leave it out"
_ONE_ENGINE = "XLA chooses how to compute"

# (message, field) -> why a net or solver that sets it to anything but its default cannot run.
REFUSED: Reasons = {
    ("NetParameter", "debug_info"): _PRINTED,
    ("RecurrentParameter", "debug_info"): _PRINTED,
}

# (message, field) -> why it may be set and changes nothing.
MEANINGLESS: Reasons = {
    ("BlobProto", "diff"): "gradients of a snapshot; Caffe too computes them anew",
    ("BlobProto", "double_diff"): "gradients of a snapshot; Caffe too computes them anew",
    ("BlobProtoVector", "blobs"): "a container that no file of Caffe's own holds",
    ("ConvolutionParameter", "engine"): _ONE_ENGINE,
    ("ConvolutionParameter", "force_nd_im2col"): _ONE_ENGINE,
    ("DataParameter", "rand_skip"): "Caffe too ignores it",
    ("LRNParameter", "engine"): _ONE_ENGINE,
    ("PoolingParameter", "engine"): _ONE_ENGINE,
    ("PythonParameter", "share_in_parallel"): "one process feeds all devices",
    ("ReLUParameter", "engine"): _ONE_ENGINE,
    ("SPPParameter", "engine"): _ONE_ENGINE,
    ("SigmoidParameter", "engine"): _ONE_ENGINE,
    ("SoftmaxParameter", "engine"): _ONE_ENGINE,
    ("SolverParameter", "device_id"): "JAX chooses the device",
    ("SolverParameter", "layer_wise_reduce"): "how Caffe's devices exchange gradients",
    ("SolverParameter", "solver_mode"): "JAX chooses the device",
    ("TanHParameter", "engine"): _ONE_ENGINE,
    ("V0LayerParameter", "new_channels"): "Caffe too drops it",
    ("V0LayerParameter", "new_num"): "Caffe too drops it",
}

# What is checked by itself, where its place is known.
_PLACED = ("NetParameter", "LayerParameter", "V1LayerParameter")


def check(message: Any, error: type[NetSpecError]) -> None:
    """Raise ``error`` for the first refused field that a message, or one inside it, sets."""
    for field, value in message.ListFields():
        reason = REFUSED.get((message.DESCRIPTOR.name, field.name))
        require(not reason or value == field.default_value, f"{field.name}: {reason}", error)
        if field.message_type and field.message_type.name not in _PLACED:
            for inner in [value] if hasattr(value, "ListFields") else value:
                check(inner, error)
