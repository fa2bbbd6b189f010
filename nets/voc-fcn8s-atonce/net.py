"""FCN-8s on PASCAL VOC in one go: skips are scaled down, so that all learn at one rate."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    fcn.feed(n, fcn.VOC, phase)
    fcn.vgg(n)
    scales = {"pool4": 0.01, "pool3": 0.0001}
    upscore = fcn.head(n, fcn.VOC.classes, "pool4", "pool3", scales=scales)
    return fcn.finish(n, upscore, normalize=False)
