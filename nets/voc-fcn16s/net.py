"""FCN-16s on PASCAL VOC: the scores of VGG-16's pool4 added to those of FCN-32s."""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return fcn.on_vgg(phase, sets.VOC, "pool4", trunk=trunks.VGG16.times(width))
