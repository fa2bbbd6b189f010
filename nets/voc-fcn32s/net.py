"""FCN-32s on PASCAL VOC: VGG-16, whose scores are upsampled 32 times in one step."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    fcn.feed(n, fcn.VOC, phase)
    fcn.vgg(n)
    return fcn.finish(n, fcn.head(n, fcn.VOC.classes), normalize=False)
