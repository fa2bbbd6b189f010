"""FCN-8s on PASCAL VOC in one go: skips are scaled down, so that all learn at one rate."""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    trunk, scales = trunks.VGG16.times(width), {"pool4": 0.01, "pool3": 0.0001}
    return fcn.on_vgg(phase, sets.VOC, "pool4", "pool3", trunk=trunk, scales=scales)
