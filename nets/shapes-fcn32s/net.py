"""A narrow FCN-32s on the synthetic shapes: the coarse one that FCN-16s starts from."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return fcn.shapes(phase)
