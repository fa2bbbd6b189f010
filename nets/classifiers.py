"""What the nets that name the object in an image share: their data, common layers, their end.

LeNet reads digits, cifar10_quick tells ten kinds of things apart on tiny images, the others
ImageNet's 1000 classes (ILSVRC 2012). A folder has a generator ``net.py`` and what it writes:
``train.prototxt``, ``val.prototxt``, and ``deploy.prototxt``, which ends in ``prob`` instead of a
loss. ``tools/nets.py`` writes them all again. Names of layers and blobs, settings and fillers are
the published ones, so weights interchange.

Expected below the folder they are run from::

    data/mnist_train_lmdb, data/mnist_test_lmdb          digits, 28x28, as Caffe's tools write them
    data/cifar10_train_lmdb, data/cifar10_test_lmdb      CIFAR-10's images, 32x32, likewise
    data/cifar10_mean.binaryproto                        the mean of the first, by
                    netspec data mean data/cifar10_train_lmdb -o data/cifar10_mean.binaryproto
    data/ilsvrc12_train_lmdb, data/ilsvrc12_val_lmdb     ImageNet's images, resized to 256x256
    data/ilsvrc12_mean.binaryproto                       the mean of the first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

CLASSES = 1000
MEAN_IMAGE = {"mean_file": "./data/ilsvrc12_mean.binaryproto"}
MEAN_PIXEL = {"mean_value": [104, 117, 123]}  # blue, green and red
VGG_MEAN = {"mean_value": [103.939, 116.779, 123.68]}
VGG_CHANNELS = (64, 128, 256, 512, 512)
WEIGHT_AND_BIAS = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]
XAVIER = {"type": "xavier"}
MSRA = {"type": "msra"}


@dataclass(frozen=True)
class Dataset:
    """Databases of images and labels, and how a net takes them.

    train, val: folders of LMDB. shape: (C, H, W) of what the net sees. batch: images at once by
    phase. transform: of images in every phase; ``train_transform`` are those of "train" besides.
    name: of the layer that reads them.
    """

    train: str
    val: str
    shape: tuple[int, int, int]
    batch: Mapping[str, int]
    transform: Mapping[str, object]
    train_transform: Mapping[str, object] = field(default_factory=dict)
    name: str = "data"


def ilsvrc12(
    size: int,
    train: int,
    val: int,
    deploy: int = 10,
    mean: Mapping[str, object] = MEAN_IMAGE,
    mirror: bool = True,
) -> Dataset:
    """ImageNet, ``size`` pixels square cut out of 256.

    train, val, deploy: images at once; ten are the corners and the centre, and all these mirrored.
    mirror: whether half of the images are, in "train".
    """
    return Dataset(
        train="./data/ilsvrc12_train_lmdb",
        val="./data/ilsvrc12_val_lmdb",
        shape=(3, size, size),
        batch={"train": train, "val": val, "deploy": deploy},
        transform={"crop_size": size, **mean},
        train_transform={"mirror": True} if mirror else {},
    )


def feed(n: NetSpec, dataset: Dataset, phase: str) -> None:
    """``data`` (N, C, H, W), and ``label`` (N) unless ``phase`` is "deploy"."""
    batch = dataset.batch[phase]
    if phase == "deploy":
        n.data = L.Input(shape={"dim": [batch, *dataset.shape]})
        return
    extra = dataset.train_transform if phase == "train" else {}
    n.data, n.label = L.Data(
        name=dataset.name,
        transform_param={**dataset.transform, **extra},
        source=getattr(dataset, phase),
        batch_size=batch,
        backend=P.Data.LMDB,
        ntop=2,
    )


def finish(n: NetSpec, scores: Top, phase: str, top5: bool = False) -> NetSpec:
    """``prob`` in "deploy"; otherwise ``loss``, and ``accuracy`` in "val".

    top5: whether to count the right class among the five best too.
    """
    if phase == "deploy":
        n.prob = L.Softmax(scores)
        return n
    if phase == "val":
        n.accuracy = L.Accuracy(scores, n.label)
        if top5:
            n.accuracy_top5 = L.Accuracy(scores, n.label, top_k=5)
    n.loss = L.SoftmaxWithLoss(scores, n.label)
    return n


def learned(type_name: str, bottom: Top, channels: int, bias: float = 0, **settings: object) -> Top:
    """A Convolution or InnerProduct, whose biases learn twice as fast as weights, without decay.

    bias: where they begin. settings: may have another ``param``.
    """
    if bias:
        settings["bias_filler"] = {"type": "constant", "value": bias}
    settings.setdefault("param", WEIGHT_AND_BIAS)
    top: Top = getattr(L, type_name)(bottom, num_output=channels, **settings)
    return top


def rectified(n: NetSpec, name: str, relu: str, top: Top) -> Top:
    """``top`` called ``name``, and below zero set to zero in place by the layer ``relu``."""
    n[name] = top
    n[relu] = L.ReLU(top, in_place=True)
    return n[relu]


def max_pool(bottom: Top, kernel: int = 3, stride: int = 2, **settings: object) -> Top:
    """The largest of each window."""
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=kernel, stride=stride, **settings)


def hidden(n: NetSpec, number: int, bottom: Top, bias: float = 0, **settings: object) -> Top:
    """``fc6`` or ``fc7``: 4096 units, of which half are dropped at random in "train"."""
    fc = learned("InnerProduct", bottom, 4096, bias, **settings)
    top = rectified(n, f"fc{number}", f"relu{number}", fc)
    n[f"drop{number}"] = L.Dropout(top, dropout_ratio=0.5, in_place=True)
    return n[f"drop{number}"]


def lrn(bottom: Top) -> Top:
    """Each pixel's channels divided by the energy of those around them."""
    return L.LRN(bottom, local_size=5, alpha=1e-4, beta=0.75)


def alexnet(phase: str, pool_first: bool, bias: float) -> NetSpec:
    """AlexNet, or CaffeNet where it pools first and normalises what is left.

    bias: where the biases begin that do not begin at zero: of conv2, conv4, conv5, fc6 and fc7.
    """
    n = NetSpec()
    feed(n, ilsvrc12(227, train=256, val=50), phase)
    steps = [("pool", max_pool), ("norm", lrn)]
    top = _narrow(n, 1, n.data, 96, kernel_size=11, stride=4)
    for name, step in steps if pool_first else reversed(steps):
        top = n[f"{name}1"] = step(top)
    top = _narrow(n, 2, top, 256, bias, kernel_size=5, pad=2, group=2)
    for name, step in steps if pool_first else reversed(steps):
        top = n[f"{name}2"] = step(top)
    top = _narrow(n, 3, top, 384, kernel_size=3, pad=1)
    top = _narrow(n, 4, top, 384, bias, kernel_size=3, pad=1, group=2)
    top = _narrow(n, 5, top, 256, bias, kernel_size=3, pad=1, group=2)
    n.pool5 = max_pool(top)
    top = hidden(n, 6, n.pool5, bias, weight_filler=_gaussian(0.005))
    top = hidden(n, 7, top, bias, weight_filler=_gaussian(0.005))
    n.fc8 = learned("InnerProduct", top, CLASSES, weight_filler=_gaussian(0.01))
    return finish(n, n.fc8, phase)


def vgg(phase: str, depths: Sequence[int]) -> NetSpec:
    """A net of Simonyan and Zisserman's with so many convolutions in each of five blocks."""
    n = NetSpec()
    feed(n, ilsvrc12(224, train=64, val=50, mean=VGG_MEAN), phase)
    filler = {"weight_filler": XAVIER}
    top = n.data
    for b, (channels, depth) in enumerate(zip(VGG_CHANNELS, depths, strict=True), 1):
        for i in range(1, depth + 1):
            conv = learned("Convolution", top, channels, kernel_size=3, pad=1, **filler)
            top = rectified(n, f"conv{b}_{i}", f"relu{b}_{i}", conv)
        top = n[f"pool{b}"] = max_pool(top, 2)
    top = hidden(n, 7, hidden(n, 6, top, **filler), **filler)
    n.fc8 = learned("InnerProduct", top, CLASSES, **filler)
    return finish(n, n.fc8, phase, top5=True)


def _narrow(
    n: NetSpec, number: int, bottom: Top, channels: int, bias: float = 0, **settings: object
) -> Top:
    """A convolution and its ReLU, from weights near zero."""
    filler = _gaussian(0.01)
    conv = learned("Convolution", bottom, channels, bias, weight_filler=filler, **settings)
    return rectified(n, f"conv{number}", f"relu{number}", conv)


def _gaussian(std: float) -> dict[str, object]:
    return {"type": "gaussian", "std": std}
