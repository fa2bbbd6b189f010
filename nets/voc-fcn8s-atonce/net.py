"""FCN-8s on PASCAL VOC in one go: skips are scaled down, so that all learn at one rate."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n, classes = NetSpec(), fcn.VOC.classes
    fcn.feed(n, fcn.VOC, phase)
    fcn.vgg(n)
    n.score_fr = fcn.score(n.drop7, classes)
    n.upscore2 = fcn.upsample(n.score_fr, classes, stride=2)
    fcn.skip(n, "pool4", n.upscore2, classes, scale=0.01)
    n.upscore_pool4 = fcn.upsample(n.fuse_pool4, classes, stride=2)
    fcn.skip(n, "pool3", n.upscore_pool4, classes, scale=0.0001)
    n.upscore8 = fcn.upsample(n.fuse_pool3, classes, stride=8)
    return fcn.finish(n, n.upscore8, normalize=False)
