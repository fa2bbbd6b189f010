"""A narrow FCN-8s on CamVid's street scenes: from FCN-16s."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return fcn.camvid(phase, "pool4", "pool3")
