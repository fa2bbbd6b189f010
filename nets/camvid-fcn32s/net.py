"""A narrow FCN-32s on CamVid's street scenes: the coarse one, from nothing."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return fcn.camvid(phase)
