"""A narrow FCN-8s on the synthetic shapes: small enough to train on a laptop in minutes."""

from nets import fcn
from netspec.spec import NetSpec

BLOCKS = ((16, 1), (32, 1), (48, 2), (64, 2), (64, 2))
FOLDER = "./data/shapes"
SHAPES = fcn.Dataset(
    classes=6, size=(96, 128), train=fcn.voc("train", FOLDER), val=fcn.voc("val", FOLDER)
)


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy".

    A pad of 100 would be most of what it computes on so small an image. With fc6 of 4x4 the skips
    reach over the scores they join whatever the size of the image; 3x3 would not.
    """
    return _padded(phase, fcn.least_pad(lambda pad: _padded(phase, pad)))


def _padded(phase: str, pad: int) -> NetSpec:
    n, classes = NetSpec(), SHAPES.classes
    fcn.feed(n, SHAPES, phase)
    fcn.vgg(n, BLOCKS, pad, hidden=128, kernel=4)
    n.score_fr = fcn.score(n.drop7, classes)
    n.upscore2 = fcn.upsample(n.score_fr, classes, stride=2)
    fcn.skip(n, "pool4", n.upscore2, classes)
    n.upscore_pool4 = fcn.upsample(n.fuse_pool4, classes, stride=2)
    fcn.skip(n, "pool3", n.upscore_pool4, classes)
    n.upscore8 = fcn.upsample(n.fuse_pool3, classes, stride=8)
    return fcn.finish(n, n.upscore8, normalize=True)
