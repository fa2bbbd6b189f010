"""CaffeNet on ImageNet: AlexNet that pools before it normalises, BVLC's reference model."""

from nets import classifiers
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return classifiers.alexnet(phase, pool_first=True, bias=1)
