"""FCN-32s on PASCAL VOC with VGG-19 for a trunk: three convolutions more.

The paper found it to be no better than VGG-16, and published no files of it.
"""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return fcn.on_vgg(phase, sets.VOC, trunk=trunks.VGG19.times(width))
