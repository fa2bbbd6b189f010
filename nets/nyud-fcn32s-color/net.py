"""FCN-32s on NYUDv2's photographs."""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return fcn.on_vgg(phase, sets.nyud(data="color"), trunk=trunks.VGG16.times(width))
