"""FCN-32s on PASCAL VOC of which only the scores learn: VGG-16 stays as ImageNet left it.

The paper scores this net but published no files of it. It is of no use without VGG-16's weights.
"""

from dataclasses import replace

from nets import fcn, sets, trunks
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    trunk = replace(trunks.VGG16.times(width), learned=False)
    return fcn.on_vgg(phase, sets.VOC, trunk=trunk)
