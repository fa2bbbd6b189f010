"""FCN-16s on SIFT Flow: the scores of VGG-16's pool4 added to those of FCN-32s.

One head says which of 33 semantic classes a pixel is, the other which of 3 geometric ones.
"""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return fcn.on_vgg(phase, sets.SIFTFLOW, "pool4", trunk=trunks.VGG16.times(width))
