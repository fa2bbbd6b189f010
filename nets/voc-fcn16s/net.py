"""FCN-16s on PASCAL VOC: the scores of VGG-16's pool4 added to those of FCN-32s."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    fcn.feed(n, fcn.VOC, phase)
    fcn.vgg(n)
    return fcn.finish(n, fcn.head(n, fcn.VOC.classes, "pool4"), normalize=False)
