"""FCN-16s on PASCAL VOC: the scores of VGG-16's pool4 added to those of FCN-32s."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n, classes = NetSpec(), fcn.VOC.classes
    fcn.feed(n, fcn.VOC, phase)
    fcn.vgg(n)
    n.score_fr = fcn.score(n.drop7, classes)
    n.upscore2 = fcn.upsample(n.score_fr, classes, stride=2)
    fcn.skip(n, "pool4", n.upscore2, classes)
    n.upscore16 = fcn.upsample(n.fuse_pool4, classes, stride=16)
    return fcn.finish(n, n.upscore16, normalize=False)
