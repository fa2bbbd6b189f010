"""A narrow FCN-8s on the synthetic shapes: small enough to train on a laptop in minutes."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return fcn.shapes(phase, "pool4", "pool3")
