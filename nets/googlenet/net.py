"""GoogLeNet on ImageNet (Szegedy et al., CVPR 2015), as BVLC trained it.

Two auxiliary heads halfway up, ``loss1`` and ``loss2``, push gradients into the lower half; the
deployed net is without them.
"""

from nets import classifiers as c
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

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
HEADS = {"4a": "loss1", "4d": "loss2"}


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    c.feed(n, c.ilsvrc12(224, train=32, val=50, mean=c.MEAN_PIXEL), phase)
    top = _conv(n, "conv1", "7x7_s2", n.data, 64, 7, stride=2, relu="relu_7x7")
    top = n["pool1/3x3_s2"] = c.max_pool(top)
    top = n["pool1/norm1"] = c.lrn(top)
    top = _conv(n, "conv2", "3x3_reduce", top, 64, 1)
    top = _conv(n, "conv2", "3x3", top, 192, 3)
    top = n["conv2/norm2"] = c.lrn(top)
    top = n["pool2/3x3_s2"] = c.max_pool(top)
    for block, channels in INCEPTIONS.items():
        top = _inception(n, f"inception_{block}", top, channels)
        if block in HEADS and phase != "deploy":
            _auxiliary(n, HEADS[block], top, phase)
        if block in POOLS:
            top = n[POOLS[block]] = c.max_pool(top)
    n["pool5/7x7_s1"] = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=7, stride=1)
    n["pool5/drop_7x7_s1"] = L.Dropout(n["pool5/7x7_s1"], dropout_ratio=0.4, in_place=True)
    scores = n["loss3/classifier"] = _fc(n["pool5/drop_7x7_s1"], c.CLASSES)
    if phase == "deploy":
        n.prob = L.Softmax(scores)
        return n
    _judge(n, "loss3", "loss3", scores, phase, weight=1)
    return n


def _inception(n: NetSpec, block: str, bottom: Top, channels: tuple[int, ...]) -> Top:
    """(N, C, H, W) -> ``output`` (N, C', H, W): windows of four sizes side by side."""
    one, reduce3, three, reduce5, five, projected = channels
    parts = [_conv(n, block, "1x1", bottom, one, 1)]
    top = _conv(n, block, "3x3_reduce", bottom, reduce3, 1)
    parts.append(_conv(n, block, "3x3", top, three, 3))
    top = _conv(n, block, "5x5_reduce", bottom, reduce5, 1)
    parts.append(_conv(n, block, "5x5", top, five, 5))
    top = n[f"{block}/pool"] = c.max_pool(bottom, stride=1, pad=1)
    parts.append(_conv(n, block, "pool_proj", top, projected, 1))
    n[f"{block}/output"] = L.Concat(*parts)
    return n[f"{block}/output"]


def _auxiliary(n: NetSpec, head: str, bottom: Top, phase: str) -> None:
    """Scores from a coarse average of ``bottom``, and what they cost."""
    top = n[f"{head}/ave_pool"] = L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=5, stride=3)
    top = _conv(n, head, "conv", top, 128, 1)
    top = c.rectified(n, f"{head}/fc", f"{head}/relu_fc", _fc(top, 1024, bias=0.2))
    top = n[f"{head}/drop_fc"] = L.Dropout(top, dropout_ratio=0.7, in_place=True)
    n[f"{head}/classifier"] = _fc(top, c.CLASSES)
    _judge(n, head, "loss", n[f"{head}/classifier"], phase, weight=0.3)


def _judge(n: NetSpec, head: str, name: str, scores: Top, phase: str, weight: float) -> None:
    """A head's loss, and in "val" its accuracies. name: of the layer; its top is like its head."""
    n[f"{head}/{head}"] = L.SoftmaxWithLoss(
        scores, n.label, name=f"{head}/{name}", loss_weight=weight
    )
    if phase == "val":
        n[f"{head}/top-1"] = L.Accuracy(scores, n.label)
        n[f"{head}/top-5"] = L.Accuracy(scores, n.label, top_k=5)


def _conv(
    n: NetSpec,
    block: str,
    name: str,
    bottom: Top,
    channels: int,
    kernel: int,
    relu: str | None = None,
    **settings: object,
) -> Top:
    """A convolution that keeps pixels in place, ``block/name``, and its ReLU."""
    if kernel > 1:
        settings["pad"] = kernel // 2
    conv = c.learned(
        "Convolution",
        bottom,
        channels,
        0.2,
        kernel_size=kernel,
        weight_filler=c.XAVIER,
        **settings,
    )
    return c.rectified(n, f"{block}/{name}", f"{block}/{relu or f'relu_{name}'}", conv)


def _fc(bottom: Top, channels: int, bias: float = 0) -> Top:
    return c.learned("InnerProduct", bottom, channels, bias, weight_filler=c.XAVIER)
