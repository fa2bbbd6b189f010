"""Late fusion on NYUDv2: what color says of a pixel and what depth says of it, in the mean."""

from __future__ import annotations

from nets import fcn, sets, trunks
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

KINDS = ("color", "hha")


def late(phase: str, *pools: str, width: float = 1) -> NetSpec:
    """Two VGG-16, the one on ``color``, the other on ``hha``, whose scores are averaged.

    What follows the scores is linear: a net that scores as the mean of two does. Names within a
    trunk end in what it sees. pools: what the skips come from, as in `fcn.head`. width: what
    channels are multiplied by.
    """
    n = NetSpec()
    dataset = sets.nyud(**{kind: kind for kind in KINDS})
    sets.feed(n, dataset, phase)
    classes = dataset.labels["label"]
    for kind in KINDS:
        top = trunks.vgg(n, n[kind], trunks.VGG16.times(width), suffix=kind)
        n[f"score_fr{kind}"] = fcn.score(top, classes)
    n.score_fused = _mean(n, "score_fr")

    def fine(pool: str) -> Top:
        for kind in KINDS:
            n[f"score_{pool}{kind}"] = fcn.score(n[f"{pool}{kind}"], classes)
        n[f"score_{pool}"] = _mean(n, f"score_{pool}")
        return n[f"score_{pool}"]

    fcn.judge(n, fcn.climb(n, n.score_fused, classes, pools, fine), n.color, "label")
    return n


def _mean(n: NetSpec, scores: str) -> Top:
    parts = [n[f"{scores}{kind}"] for kind in KINDS]
    return L.Eltwise(*parts, operation=P.Eltwise.SUM, coeff=[1 / len(KINDS)] * len(KINDS))
