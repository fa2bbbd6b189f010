"""FCN-32s on NYUDv2, early fusion: one VGG-16 on color and the logarithm of depth, four channels.

The first convolution is called otherwise than VGG-16's, whose weights do not fit it.
"""

from dataclasses import replace

from nets import fcn, sets, trunks
from netspec.spec import NetSpec
from netspec.spec import layers as L


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    n, dataset = NetSpec(), sets.nyud(color="color", depth="depth")
    sets.feed(n, dataset, phase)
    n.data = L.Concat(n.color, n.depth)
    trunk = replace(trunks.VGG16.times(width), first="conv1_1_bgrd")
    return fcn.finish(n, dataset, trunks.vgg(n, n.data, trunk))
