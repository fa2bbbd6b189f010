"""AlexNet on ImageNet (Krizhevsky, Sutskever and Hinton, NIPS 2012), as BVLC trained it."""

from nets import classifiers
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return classifiers.alexnet(phase, pool_first=False, bias=0.1)
