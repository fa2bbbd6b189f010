"""Fully convolutional networks: what makes a trunk's features the scores of an image's pixels.

Long, Shelhamer and Darrell, CVPR 2015; Shelhamer, Long and Darrell, PAMI 2017. A folder has a
generator ``net.py`` and what it writes: ``train.prototxt``, ``val.prototxt``, and
``deploy.prototxt`` without labels or loss. ``tools/nets.py`` writes them all again. Layer names,
learned blobs and offsets are the published ones, so weights interchange. `nets.sets` says where
images come from, `nets.trunks` what becomes of them first.

FCN-32s learns from a trunk that knows ImageNet, FCN-16s then from FCN-32s, and FCN-8s from FCN-16s.
Upsampling is bilinear and frozen; score layers begin at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from nets import classifiers as c
from nets import sets, trunks
from netspec.errors import GraphError
from netspec.spec import NetSpec, Top, crop
from netspec.spec import layers as L
from netspec.spec import params as P

NARROW = ((16, 1), (32, 1), (48, 2), (64, 2), (64, 2))


def on_vgg(
    phase: str,
    dataset: sets.Dataset,
    *pools: str,
    trunk: trunks.VGG = trunks.VGG16,
    scales: Mapping[str, float] | None = None,
    normalize: bool = False,
) -> NetSpec:
    """The FCN on ``data`` that a VGG net becomes.

    phase: "train", "val" or "deploy". pools, scales, normalize: see `finish`.
    """
    n = NetSpec()
    sets.feed(n, dataset, phase)
    top = trunks.vgg(n, n.data, trunk)
    return finish(n, dataset, top, *pools, scales=scales, normalize=normalize)


def finish(
    n: NetSpec,
    dataset: sets.Dataset,
    features: Top,
    *pools: str,
    scales: Mapping[str, float] | None = None,
    kernel: int | None = None,
    normalize: bool = False,
) -> NetSpec:
    """A trunk's features -> scores and, if there are labels, their loss, for each kind of label.

    pools, scales, kernel: see `head`; normalize: see `judge`. Of several kinds each has a head,
    whose names end in what the labels are called, and only the first one's loss is just ``loss``.
    """
    for label, classes in dataset.labels.items():
        suffix = f"_{label}" if len(dataset.labels) > 1 else ""
        upscore = head(n, features, classes, *pools, scales=scales, kernel=kernel, suffix=suffix)
        loss = "loss" if label == next(iter(dataset.labels)) else f"loss{suffix}"
        judge(n, upscore, n.data, label, normalize, suffix, loss)
    return n


def head(
    n: NetSpec,
    features: Top,
    classes: int,
    *pools: str,
    scales: Mapping[str, float] | None = None,
    kernel: int | None = None,
    suffix: str = "",
) -> Top:
    """A trunk's features -> scores at the image's scale.

    pools: what the skips come from, the coarsest first: none for FCN-32s, ``pool4`` for FCN-16s,
    ``pool4`` and ``pool3`` for FCN-8s. scales: what their output is multiplied by first, if it is.
    kernel: of the last upsampling, if not twice the stride. suffix: of the names.
    """

    def fine(pool: str) -> Top:
        bottom = n[pool]
        if scales is not None:
            filler = {"type": "constant", "value": scales[pool]}
            bottom = n[f"scale_{pool}"] = L.Scale(bottom, filler=filler, param=[{"lr_mult": 0}])
        n[f"score_{pool}{suffix}"] = score(bottom, classes)
        return n[f"score_{pool}{suffix}"]

    n[f"score_fr{suffix}"] = score(features, classes)
    return climb(n, n[f"score_fr{suffix}"], classes, pools, fine, kernel, suffix)


def climb(
    n: NetSpec,
    coarse: Top,
    classes: int,
    pools: Sequence[str],
    fine: Callable[[str], Top],
    kernel: int | None = None,
    suffix: str = "",
) -> Top:
    """Scores at 1/32 of the image's scale -> at its own: at once, or doubled before each skip.

    fine: makes the scores of a pooling layer, which are added. kernel, suffix: as of `head`.
    """
    top, doubled = coarse, f"upscore2{suffix}"
    for pool in pools:
        n[doubled] = upsample(top, classes, stride=2)
        added = n[f"score_{pool}{suffix}c"] = crop(fine(pool), n[doubled])
        top = n[f"fuse_{pool}{suffix}"] = L.Eltwise(n[doubled], added, operation=P.Eltwise.SUM)
        doubled = f"upscore_{pool}{suffix}"
    stride = 32 >> len(pools)
    name = f"upscore{stride if pools else ''}{suffix}"
    n[name] = upsample(top, classes, stride, kernel)
    return n[name]


def score(bottom: Top, classes: int) -> Top:
    """(N, C, H, W) -> (N, classes, H, W), zero until it learns."""
    return c.learned("Convolution", bottom, classes, kernel_size=1)


def upsample(bottom: Top, classes: int, stride: int, kernel: int | None = None) -> Top:
    """Scores ``stride`` times as large by fixed bilinear interpolation, each class for itself.

    The weight is dense (classes, classes, kernel, kernel), as published, though only its diagonal
    is not zero. kernel: twice the stride unless given.
    """
    return L.Deconvolution(
        bottom,
        num_output=classes,
        kernel_size=kernel or 2 * stride,
        stride=stride,
        bias_term=False,
        weight_filler={"type": "bilinear_diagonal"},
        param=[{"lr_mult": 0}],
    )


def judge(
    n: NetSpec,
    upscore: Top,
    image: Top,
    label: str,
    normalize: bool = False,
    suffix: str = "",
    loss: str = "loss",
) -> None:
    """Scores cut to the image, and their loss if there are labels.

    label: what these are called. normalize: whether the loss is the mean over labelled pixels, or
    their sum. suffix: of the scores' name. loss: its name.
    """
    scores = n[f"score{suffix}"] = crop(upscore, image)
    if label in n.tops:
        settings = {"ignore_label": sets.VOID, "normalize": normalize}
        n[loss] = L.SoftmaxWithLoss(scores, n[label], loss_param=settings)


def least_pad(build: Callable[[int], object], most: int = 100) -> int:
    """The least pad with which ``build(pad)`` finds all blobs it crops to reach over their places.

    Raises the last crop's GraphError if ``most`` is too little.
    """
    for pad in range(most):
        with suppress(GraphError):
            build(pad)
            return pad
    build(most)
    return most


def shapes(phase: str, *pools: str) -> NetSpec:
    """A narrow FCN on the synthetic shapes, with skips from ``pools`` as in `head`.

    A pad of 100 would be most of what it computes on so small an image. With fc6 of 4x4 the skips
    reach over the scores they join whatever the size of the image; 3x3 would not. A coarser net
    needs more pad: what it learned fits the finer one all the same, which sees it moved.
    """

    def build(pad: int) -> NetSpec:
        trunk = trunks.VGG(NARROW, pad, hidden=128, kernel=4)
        return on_vgg(phase, sets.SHAPES, *pools, trunk=trunk, normalize=True)

    return build(least_pad(build))


def camvid(phase: str, *pools: str) -> NetSpec:
    """A narrow FCN on street scenes of 480x360, with skips from ``pools`` as in `head`.

    Padding, windows and offsets are those of the published nets.
    """
    return on_vgg(phase, sets.CAMVID, *pools, trunk=trunks.VGG(NARROW, hidden=128))
