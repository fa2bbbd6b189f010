"""VGG-16 on ImageNet: configuration D of Simonyan and Zisserman, ICLR 2015.

The published net is the deployed one. To learn from nothing it begins as Glorot and Bengio's
weights, which the paper found to do without pretraining a shallower net; batches of 64 make the
paper's 256 in four.
"""

from nets import classifiers
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    return classifiers.vgg(phase, (2, 2, 3, 3, 3))
