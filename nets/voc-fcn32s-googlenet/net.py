"""FCN-GoogLeNet on PASCAL VOC: GoogLeNet, whose scores are upsampled 32 times in one step.

Made from the words of the paper, which published no files of it: the auxiliary heads, the final
average pooling and the classifier are dropped, a 1x1 convolution scores what is left. What the
paper leaves open is as in its other nets: the image is padded by 100, dropout (of 0.4) stands where
the classifier has it, and as in FCN-AlexNet, whose pooling windows are odd too, the upsampling
kernel is 63, since pixels of one of 64 would not fall on those of the image.
"""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    n = NetSpec()
    sets.feed(n, sets.VOC, phase)
    return fcn.finish(n, sets.VOC, trunks.googlenet(n, width), kernel=63)
