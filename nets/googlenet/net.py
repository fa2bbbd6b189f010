"""GoogLeNet on ImageNet (Szegedy et al., CVPR 2015), as BVLC trained it.

Two auxiliary heads halfway up, ``loss1`` and ``loss2``, push gradients into the lower half; the
deployed net is without them.
"""

from nets import classifiers as c
from nets import inception
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

HEADS = {"4a": "loss1", "4d": "loss2"}


def net(phase: str) -> NetSpec:
    """The net for "train", "val" or "deploy"."""
    n = NetSpec()
    c.feed(n, c.ilsvrc12(224, train=32, val=50, mean=c.MEAN_PIXEL), phase)

    def branch(block: str, top: Top) -> None:
        if block in HEADS and phase != "deploy":
            _auxiliary(n, HEADS[block], top, phase)

    top = inception.body(n, branch=branch)
    n["pool5/7x7_s1"] = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=7, stride=1)
    n["pool5/drop_7x7_s1"] = L.Dropout(n["pool5/7x7_s1"], dropout_ratio=0.4, in_place=True)
    scores = n["loss3/classifier"] = _fc(n["pool5/drop_7x7_s1"], c.CLASSES)
    if phase == "deploy":
        n.prob = L.Softmax(scores)
        return n
    _judge(n, "loss3", "loss3", scores, phase, weight=1)
    return n


def _auxiliary(n: NetSpec, head: str, bottom: Top, phase: str) -> None:
    """Scores from a coarse average of ``bottom``, and what they cost."""
    top = n[f"{head}/ave_pool"] = L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=5, stride=3)
    top = inception.conv(n, head, "conv", top, 128, 1)
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


def _fc(bottom: Top, channels: int, bias: float = 0) -> Top:
    return c.learned("InnerProduct", bottom, channels, bias, weight_filler=c.XAVIER)
