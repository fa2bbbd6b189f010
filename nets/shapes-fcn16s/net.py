"""A narrow FCN-16s on the synthetic shapes: between FCN-32s and FCN-8s."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return fcn.shapes(phase, "pool4")
