"""FCN-32s on PASCAL-Context: VGG-16, whose scores are upsampled 32 times in one step."""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return fcn.on_vgg(phase, sets.CONTEXT, trunk=trunks.VGG16.times(width))
