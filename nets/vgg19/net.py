"""VGG-19 on ImageNet: configuration E of Simonyan and Zisserman, ICLR 2015.

As VGG-16, with a convolution more in each of the last three blocks.
"""

from nets import classifiers
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return classifiers.vgg(phase, (2, 2, 4, 4, 4))
