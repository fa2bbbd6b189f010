"""ResNet-50 on ImageNet (He, Zhang, Ren and Sun, CVPR 2016).

The published net is the deployed one, whose normalisation always goes by the statistics it kept.
To learn, it normalises by the batch's, and begins as the paper does, by ``msra``.
"""

from nets import classifiers as c
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

STAGES = {2: (64, 3), 3: (128, 4), 4: (256, 6), 5: (512, 3)}  # inner channels, number of blocks


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    c.feed(n, c.ilsvrc12(224, train=32, val=50, deploy=1), phase)
    kept = phase == "deploy"
    n.conv1 = L.Convolution(
        n.data, num_output=64, kernel_size=7, pad=3, stride=2, weight_filler=c.MSRA
    )
    n.conv1_relu = L.ReLU(_normalised(n, "_conv1", n.conv1, kept), in_place=True)
    top = n.pool1 = c.max_pool(n.conv1_relu)
    for stage, (channels, depth) in STAGES.items():
        for letter in "abcdef"[:depth]:
            stride = 2 if letter == "a" and stage > 2 else 1
            top = _block(n, f"{stage}{letter}", top, channels, stride, kept)
    n.pool5 = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=7, stride=1)
    n.fc1000 = L.InnerProduct(n.pool5, num_output=c.CLASSES, weight_filler=c.MSRA)
    return c.finish(n, n.fc1000, phase, top5=True)


def _block(n: NetSpec, block: str, bottom: Top, channels: int, stride: int, kept: bool) -> Top:
    """``bottom``, brought to as many channels by the first block of a stage, plus a correction.

    (N, C, H, W) -> ``res`` (N, 4 channels, H / stride, W / stride).
    """
    short = bottom
    if block.endswith("a"):
        short = _conv(n, f"{block}_branch1", bottom, 4 * channels, 1, stride, kept)
    top = _conv(n, f"{block}_branch2a", bottom, channels, 1, stride, kept)
    top = n[f"res{block}_branch2a_relu"] = L.ReLU(top, in_place=True)
    top = _conv(n, f"{block}_branch2b", top, channels, 3, 1, kept)
    top = n[f"res{block}_branch2b_relu"] = L.ReLU(top, in_place=True)
    top = _conv(n, f"{block}_branch2c", top, 4 * channels, 1, 1, kept)
    n[f"res{block}"] = L.Eltwise(short, top)
    n[f"res{block}_relu"] = L.ReLU(n[f"res{block}"], in_place=True)
    return n[f"res{block}_relu"]


def _conv(
    n: NetSpec, name: str, bottom: Top, channels: int, kernel: int, stride: int, kept: bool
) -> Top:
    """A convolution, normalised."""
    n[f"res{name}"] = L.Convolution(
        bottom,
        num_output=channels,
        kernel_size=kernel,
        pad=kernel // 2,
        stride=stride,
        bias_term=False,
        weight_filler=c.MSRA,
    )
    return _normalised(n, name, n[f"res{name}"], kept)


def _normalised(n: NetSpec, name: str, top: Top, kept: bool) -> Top:
    """In place: to mean 0 and deviation 1, then by what each channel learns.

    kept: whether by the statistics kept, whatever the phase.
    """
    settings = {"use_global_stats": True} if kept else {}
    n[f"bn{name}"] = L.BatchNorm(top, in_place=True, **settings)
    n[f"scale{name}"] = L.Scale(n[f"bn{name}"], bias_term=True, in_place=True)
    return n[f"scale{name}"]
