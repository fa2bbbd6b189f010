"""GoogLeNet's body (Szegedy et al., CVPR 2015), which classifies and, without its end, segments."""

from __future__ import annotations

from collections.abc import Callable

from nets import classifiers as c
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L

# Channels of 1x1; 3x3_reduce, 3x3; 5x5_reduce, 5x5; pool_proj.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLS = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}


def body(
    n: NetSpec,
    pad: int = 3,
    width: float = 1,
    branch: Callable[[str, Top], None] = lambda block, top: None,
) -> Top:
    """``data`` (N, 3, H, W) -> ``inception_5b/output`` (N, 1024, ...), at 1/32 of the size.

    pad: around the image. width: what the channels are multiplied by. branch: is shown each block,
    "3a" to "5b", and its output, before what comes next.
    """
    top = conv(n, "conv1", "7x7_s2", n.data, round(64 * width), 7, "relu_7x7", stride=2, pad=pad)
    top = n["pool1/3x3_s2"] = c.max_pool(top)
    top = n["pool1/norm1"] = c.lrn(top)
    top = conv(n, "conv2", "3x3_reduce", top, round(64 * width), 1)
    top = conv(n, "conv2", "3x3", top, round(192 * width), 3)
    top = n["conv2/norm2"] = c.lrn(top)
    top = n["pool2/3x3_s2"] = c.max_pool(top)
    for block, channels in INCEPTIONS.items():
        top = _inception(n, f"inception_{block}", top, [round(size * width) for size in channels])
        branch(block, top)
        if block in POOLS:
            top = n[POOLS[block]] = c.max_pool(top)
    return top


def conv(
    n: NetSpec,
    block: str,
    name: str,
    bottom: Top,
    channels: int,
    kernel: int,
    relu: str | None = None,
    **settings: object,
) -> Top:
    """A convolution, ``block/name``, that keeps pixels in place unless padded more; its ReLU."""
    if kernel > 1:
        settings.setdefault("pad", kernel // 2)
    settings |= {"kernel_size": kernel, "weight_filler": c.XAVIER}
    top = c.learned("Convolution", bottom, channels, 0.2, **settings)
    return c.rectified(n, f"{block}/{name}", f"{block}/{relu or f'relu_{name}'}", top)


def _inception(n: NetSpec, block: str, bottom: Top, channels: list[int]) -> Top:
    """(N, C, H, W) -> ``output`` (N, C', H, W): windows of four sizes side by side."""
    one, reduce3, three, reduce5, five, projected = channels
    parts = [conv(n, block, "1x1", bottom, one, 1)]
    top = conv(n, block, "3x3_reduce", bottom, reduce3, 1)
    parts.append(conv(n, block, "3x3", top, three, 3))
    top = conv(n, block, "5x5_reduce", bottom, reduce5, 1)
    parts.append(conv(n, block, "5x5", top, five, 5))
    top = n[f"{block}/pool"] = c.max_pool(bottom, stride=1, pad=1)
    parts.append(conv(n, block, "pool_proj", top, projected, 1))
    n[f"{block}/output"] = L.Concat(*parts)
    return n[f"{block}/output"]
