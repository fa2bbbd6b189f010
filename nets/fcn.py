"""What the nets in these folders share: where data comes from, the trunks, the upsampling head.

Fully convolutional networks (Long, Shelhamer and Darrell, CVPR 2015; Shelhamer, Long and Darrell,
PAMI 2017). A folder has a generator ``net.py`` and what it writes: ``train.prototxt``,
``val.prototxt``, and ``deploy.prototxt`` without labels or loss. ``tools/nets.py`` writes them all
again. Layer names, learned blobs and offsets are the published ones, so weights interchange.

The ``voc-`` nets expect, as published, below the folder they are run from::

    data/sbdd/dataset     SBD (img/, cls/, train.txt): the training images
    data/pascal/VOC2011   PASCAL VOC 2011 with ImageSets/Segmentation/seg11valid.txt, those images
                          of its val that are not in SBD's train

To train and score on VOC alone, let ``VOC`` below be ``Dataset(..., voc("train"), voc("val"))`` and
run ``tools/nets.py``, or write in the ``train.prototxt`` (and ``'split': 'val'`` in the other)::

    layer: "VOCSegDataLayer"
    param_str: "{'voc_dir': './data/pascal/VOC2011', 'split': 'train', 'mean': ..., 'seed': 1337}"

They learn from a trunk that knows ImageNet, FCN-16s then from FCN-32s, and FCN-8s from FCN-16s.
Here a trunk is filled by ``msra``, so that it would learn from nothing too; upsampling is bilinear
and frozen; score layers begin at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from netspec.errors import GraphError
from netspec.spec import NetSpec, Top, crop
from netspec.spec import layers as L
from netspec.spec import params as P

MEAN = (104.00699, 116.66877, 122.67892)  # blue, green and red of ImageNet's images
VOID = 255
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
NARROW = ((16, 1), (32, 1), (48, 2), (64, 2), (64, 2))


@dataclass(frozen=True)
class Source:
    """A Python layer of ``voc_layers`` that reads pairs of image and label, and its settings."""

    layer: str
    settings: dict[str, object]


@dataclass(frozen=True)
class Dataset:
    """Where a net's images come from, and what it says of them.

    size: (H, W) of the images that the deployed net is drawn up for; it takes others as well.
    """

    classes: int
    size: tuple[int, int]
    train: Source
    val: Source


def voc(split: str, folder: str = "./data/pascal/VOC2011") -> Source:
    """Images and labels in PASCAL VOC's folders."""
    settings = {"voc_dir": folder, "split": split, "mean": MEAN, "seed": 1337}
    return Source("VOCSegDataLayer", settings)


def sbd(split: str) -> Source:
    """The Semantic Boundaries Dataset, which labels more of VOC's images."""
    settings = {"sbdd_dir": "./data/sbdd/dataset", "split": split, "mean": MEAN, "seed": 1337}
    return Source("SBDDSegDataLayer", settings)


VOC = Dataset(classes=21, size=(500, 500), train=sbd("train"), val=voc("seg11valid"))
SHAPES = Dataset(
    classes=6,
    size=(96, 128),
    train=voc("train", "./data/shapes"),
    val=voc("val", "./data/shapes"),
)


def feed(n: NetSpec, dataset: Dataset, phase: str) -> None:
    """``data`` (N, 3, H, W), and ``label`` (N, 1, H, W) unless ``phase`` is "deploy"."""
    if phase == "deploy":
        n.data = L.Input(shape={"dim": [1, 3, *dataset.size]})
        return
    source: Source = getattr(dataset, phase)
    n.data, n.label = L.Python(
        module="voc_layers", layer=source.layer, param_str=str(source.settings), ntop=2
    )


def vgg(
    n: NetSpec,
    blocks: Sequence[tuple[int, int]] = VGG16,
    pad: int = 100,
    hidden: int = 4096,
    kernel: int = 7,
) -> None:
    """``data`` -> ``pool1`` to ``pool5``, at 1/2 to 1/32 of its size -> ``drop7`` (N, hidden, ...).

    blocks: for each, its channels and number of convolutions. pad: of ``conv1_1``, around the
    image. hidden, kernel: of ``fc6``.
    """
    top = n.data
    for b, (channels, depth) in enumerate(blocks, 1):
        for i in range(1, depth + 1):
            first = b == i == 1
            conv = _learned(top, channels, 3, pad=pad if first else 1, weight_filler=_MSRA)
            top = _rectified(n, f"{b}_{i}", conv)
        top = n[f"pool{b}"] = _max_pool(top, 2)
    _hidden(n, _learned(top, hidden, kernel, weight_filler=_MSRA), "6")
    _hidden(n, _learned(n.drop6, hidden, 1, weight_filler=_MSRA), "7")


def alexnet(n: NetSpec) -> None:
    """``data`` -> ``drop7`` (N, 4096, ...) by CaffeNet's layers, at 1/32 of the size.

    As published, biases learn and decay like weights here.
    """
    conv1 = _plain(n.data, 96, 11, stride=4, pad=100)
    n.pool1 = _max_pool(_rectified(n, "1", conv1), 3)
    n.norm1 = L.LRN(n.pool1, local_size=5, alpha=1e-4, beta=0.75)
    conv2 = _plain(n.norm1, 256, 5, pad=2, group=2)
    n.pool2 = _max_pool(_rectified(n, "2", conv2), 3)
    n.norm2 = L.LRN(n.pool2, local_size=5, alpha=1e-4, beta=0.75)
    top = _rectified(n, "3", _plain(n.norm2, 384, 3, pad=1))
    top = _rectified(n, "4", _plain(top, 384, 3, pad=1, group=2))
    top = _rectified(n, "5", _plain(top, 256, 3, pad=1, group=2))
    n.pool5 = _max_pool(top, 3)
    _hidden(n, _plain(n.pool5, 4096, 6), "6")
    _hidden(n, _plain(n.drop6, 4096, 1), "7")


def score(bottom: Top, classes: int) -> Top:
    """(N, C, H, W) -> (N, classes, H, W), zero until it learns."""
    return _learned(bottom, classes, 1)


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


def skip(n: NetSpec, pool: str, coarse: Top, classes: int, scale: float | None = None) -> Top:
    """Scores of a pooling layer added to the ``coarse`` ones, which have been brought to its scale.

    scale: what the pooling layer's output is multiplied by first.
    """
    bottom = n[pool]
    if scale is not None:
        filler = {"type": "constant", "value": scale}
        bottom = n[f"scale_{pool}"] = L.Scale(bottom, filler=filler, param=[{"lr_mult": 0}])
    n[f"score_{pool}"] = score(bottom, classes)
    n[f"score_{pool}c"] = crop(n[f"score_{pool}"], coarse)
    n[f"fuse_{pool}"] = L.Eltwise(coarse, n[f"score_{pool}c"], operation=P.Eltwise.SUM)
    return n[f"fuse_{pool}"]


def head(n: NetSpec, classes: int, *pools: str, scales: Mapping[str, float] | None = None) -> Top:
    """``drop7`` -> scores at the image's scale: in one step, or in doublings with skips between.

    pools: what the skips come from, the coarsest first: none for FCN-32s, ``pool4`` for FCN-16s,
    ``pool4`` and ``pool3`` for FCN-8s. scales: what their output is multiplied by first, if it is.
    """
    top = n.score_fr = score(n.drop7, classes)
    doubled = "upscore2"
    for pool in pools:
        n[doubled] = upsample(top, classes, stride=2)
        top = skip(n, pool, n[doubled], classes, (scales or {}).get(pool))
        doubled = f"upscore_{pool}"
    stride = 32 >> len(pools)
    name = f"upscore{stride}" if pools else "upscore"
    n[name] = upsample(top, classes, stride)
    return n[name]


def finish(n: NetSpec, upscore: Top, normalize: bool) -> NetSpec:
    """Scores cut to the image, and the loss if there are labels.

    normalize: whether the loss is the mean over labelled pixels, or their sum.
    """
    n.score = crop(upscore, n.data)
    if "label" in n.tops:
        loss = {"ignore_label": VOID, "normalize": normalize}
        n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_param=loss)
    return n


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
    return _shapes(phase, pools, least_pad(lambda pad: _shapes(phase, pools, pad)))


def _shapes(phase: str, pools: Sequence[str], pad: int) -> NetSpec:
    n = NetSpec()
    feed(n, SHAPES, phase)
    vgg(n, NARROW, pad, hidden=128, kernel=4)
    return finish(n, head(n, SHAPES.classes, *pools), normalize=True)


_MSRA = {"type": "msra"}
_WEIGHT_AND_BIAS = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]


def _plain(bottom: Top, channels: int, kernel: int, **settings: object) -> Top:
    return L.Convolution(
        bottom, num_output=channels, kernel_size=kernel, weight_filler=_MSRA, **settings
    )


def _learned(bottom: Top, channels: int, kernel: int, **settings: object) -> Top:
    return L.Convolution(
        bottom, num_output=channels, kernel_size=kernel, param=_WEIGHT_AND_BIAS, **settings
    )


def _max_pool(bottom: Top, kernel: int) -> Top:
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=kernel, stride=2)


def _rectified(n: NetSpec, number: str, conv: Top) -> Top:
    n[f"conv{number}"] = conv
    n[f"relu{number}"] = L.ReLU(conv, in_place=True)
    return n[f"relu{number}"]


def _hidden(n: NetSpec, conv: Top, number: str) -> None:
    n[f"fc{number}"] = conv
    n[f"relu{number}"] = L.ReLU(conv, in_place=True)
    n[f"drop{number}"] = L.Dropout(n[f"relu{number}"], dropout_ratio=0.5, in_place=True)
