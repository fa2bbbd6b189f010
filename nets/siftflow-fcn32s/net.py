"""FCN-32s on SIFT Flow: VGG-16, whose scores are upsampled 32 times in one step.

One head says which of 33 semantic classes a pixel is, the other which of 3 geometric ones.
"""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return fcn.on_vgg(phase, sets.SIFTFLOW, trunk=trunks.VGG16.times(width))
