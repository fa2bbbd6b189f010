"""The fields of Caffe's schema that nothing here reads, each with the reason.

``tests/test_ignored_fields.py`` holds that every other field is read somewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from netspec.errors import Place

_LOG = logging.getLogger(__name__)

Reasons = Mapping[tuple[str, str], str]

_PRINTED = (
    "prints nothing here; debug_info in the solver prints the statistics of blobs, and results are "
    "the same without"
)
_ONE_ENGINE = "XLA chooses how to compute"

# (message, field) -> what is warned of where it is set to anything but its default.
WARNED: Reasons = {
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


def warn(message: Any, place: Place, who: str = "") -> None:
    """Log a warning, once a process, for each field of a message that does nothing here.

    place, who: where the message is written, and the layer it belongs to.
    """
    for warning in _warnings(message):
        warn_once(": ".join(part for part in (str(place), who, warning) if part))


def _warnings(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        reason = WARNED.get((message.DESCRIPTOR.name, field.name))
        if reason and value != field.default_value:
            yield f"{field.name}: {reason}"
        if field.message_type and field.message_type.name not in _PLACED:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _warnings(inner)


# The same net is read for several phases, and again at every look.
@lru_cache(maxsize=256)
def warn_once(warning: str) -> None:
    """Log a warning, unless this process has logged it already."""
    _LOG.warning("%s", warning)
