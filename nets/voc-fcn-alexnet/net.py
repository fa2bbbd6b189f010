"""FCN-AlexNet on PASCAL VOC: CaffeNet, whose scores are upsampled 32 times in one step."""

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    n = NetSpec()
    sets.feed(n, sets.VOC, phase)
    return fcn.finish(n, sets.VOC, trunks.alexnet(n, width), kernel=63, normalize=True)
