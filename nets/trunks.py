"""What FCNs learn from: classifiers without their last layer, fully connected ones convolutions.

A trunk turns an image of any size into features at 1/32 of it. The published ones know ImageNet;
here they are filled at random, so that they would learn from nothing too. Names of layers are
those of the classifiers, so weights interchange. Dropout stands where the classifier has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nets import classifiers as c
from nets import inception
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L

FROZEN = [{"lr_mult": 0}, {"lr_mult": 0}]


@dataclass(frozen=True)
class VGG:
    """A net of Simonyan and Zisserman's (ICLR 2015).

    blocks: for each, its channels and number of convolutions. pad: of the first, around the image.
    hidden: channels of ``fc6`` and ``fc7``. kernel: of ``fc6``. first: what the first convolution
    is called. learned: whether any of it learns.
    """

    blocks: tuple[tuple[int, int], ...]
    pad: int = 100
    hidden: int = 4096
    kernel: int = 7
    first: str = "conv1_1"
    learned: bool = True

    def times(self, width: float) -> VGG:
        """This net, its channels multiplied by ``width``."""
        blocks = tuple((round(channels * width), depth) for channels, depth in self.blocks)
        return replace(self, blocks=blocks, hidden=round(self.hidden * width))


VGG16 = VGG(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)))
VGG19 = VGG(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)))


def vgg(n: NetSpec, image: Top, net: VGG = VGG16, suffix: str = "") -> Top:
    """(N, C, H, W) -> ``pool1`` to ``pool5``, at 1/2 to 1/32 of its size -> ``drop7``.

    suffix: of every name. Returns ``drop7`` (N, hidden, ...).
    """
    top, pad = image, net.pad
    param = c.WEIGHT_AND_BIAS if net.learned else FROZEN
    settings = {"weight_filler": c.MSRA, "param": param}
    for b, (channels, depth) in enumerate(net.blocks, 1):
        for i in range(1, depth + 1):
            conv = c.learned("Convolution", top, channels, kernel_size=3, pad=pad, **settings)
            name = net.first if b == i == 1 else f"conv{b}_{i}"
            top = c.rectified(n, f"{name}{suffix}", f"relu{b}_{i}{suffix}", conv)
            pad = 1
        top = n[f"pool{b}{suffix}"] = c.max_pool(top, 2)
    for number, kernel in (("6", net.kernel), ("7", 1)):
        conv = c.learned("Convolution", top, net.hidden, kernel_size=kernel, **settings)
        top = _hidden(n, f"{number}{suffix}", conv)
    return top


def alexnet(n: NetSpec, width: float = 1) -> Top:
    """``data`` -> ``drop7`` (N, 4096, ...) by CaffeNet's layers.

    As published, biases learn and decay like weights here. width: what channels are multiplied by.
    """

    def conv(bottom: Top, channels: int, kernel: int, **settings: object) -> Top:
        settings |= {"kernel_size": kernel, "weight_filler": c.MSRA}
        return L.Convolution(bottom, num_output=round(channels * width), **settings)

    def narrow(number: int, bottom: Top) -> Top:
        return c.rectified(n, f"conv{number}", f"relu{number}", bottom)

    n.pool1 = c.max_pool(narrow(1, conv(n.data, 96, 11, stride=4, pad=100)))
    n.norm1 = c.lrn(n.pool1)
    n.pool2 = c.max_pool(narrow(2, conv(n.norm1, 256, 5, pad=2, group=2)))
    n.norm2 = c.lrn(n.pool2)
    top = narrow(3, conv(n.norm2, 384, 3, pad=1))
    top = narrow(4, conv(top, 384, 3, pad=1, group=2))
    n.pool5 = c.max_pool(narrow(5, conv(top, 256, 3, pad=1, group=2)))
    return _hidden(n, "7", conv(_hidden(n, "6", conv(n.pool5, 4096, 6)), 4096, 1))


def googlenet(n: NetSpec, width: float = 1) -> Top:
    """``data`` -> ``inception_5b/output`` (N, 1024, ...), which dropout thins.

    width: what channels are multiplied by.
    """
    top = inception.body(n, pad=100, width=width)
    n["drop5b"] = L.Dropout(top, dropout_ratio=0.4, in_place=True)
    return n["drop5b"]


def _hidden(n: NetSpec, number: str, conv: Top) -> Top:
    top = c.rectified(n, f"fc{number}", f"relu{number}", conv)
    n[f"drop{number}"] = L.Dropout(top, dropout_ratio=0.5, in_place=True)
    return n[f"drop{number}"]
