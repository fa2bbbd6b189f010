"""FCN-AlexNet on PASCAL VOC: CaffeNet, whose scores are upsampled 32 times in one step."""

from nets import fcn
from netspec.spec import NetSpec


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n, classes = NetSpec(), fcn.VOC.classes
    fcn.feed(n, fcn.VOC, phase)
    fcn.alexnet(n)
    n.score_fr = fcn.score(n.drop7, classes)
    n.upscore = fcn.upsample(n.score_fr, classes, stride=32, kernel=63)
    return fcn.finish(n, n.upscore, normalize=True)
