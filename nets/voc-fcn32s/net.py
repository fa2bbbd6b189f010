"""FCN-32s on PASCAL VOC: VGG-16, whose scores are upsampled 32 times in one step."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n, classes = NetSpec(), fcn.VOC.classes
    fcn.feed(n, fcn.VOC, phase)
    fcn.vgg(n)
    n.score_fr = fcn.score(n.drop7, classes)
    n.upscore = fcn.upsample(n.score_fr, classes, stride=32)
    return fcn.finish(n, n.upscore, normalize=False)
