"""The sets that FCNs learn to label: what their images and labels are called, who reads them.

A net expects, as published, below the folder it is run from::

    data/sbdd/dataset     SBD (img/, cls/, train.txt): the training images of the ``voc-`` nets
    data/pascal/VOC2011   PASCAL VOC 2011 with ImageSets/Segmentation/seg11valid.txt, those images
                          of its val that are not in SBD's train
    data/pascal           PASCAL VOC 2010, in VOC2010, and
    data/pascal-context   PASCAL-Context (trainval/, labels.txt, 59_labels.txt)
    data/nyud             NYUDv2 (data/images/, data/depth/, data/hha/, segmentation/, lists)
    data/sift-flow        SIFT Flow (Images/, SemanticLabels/, GeoLabels/, lists)
    data/camvid           CamVid in VOC's folders, as docs/camvid.md makes it

``netspec data prepare`` says how one comes by each. To train and score on VOC alone, let ``VOC``
below have ``train=voc("train"), val=voc("val")`` and run ``tools/nets.py``, or write in the
``train.prototxt`` (and ``'split': 'val'`` in the other)::

    layer: "VOCSegDataLayer"
    param_str: "{'voc_dir': './data/pascal/VOC2011', 'split': 'train', 'mean': ..., 'seed': 1337}"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netspec.spec import NetSpec
from netspec.spec import layers as L

MEAN = (104.00699, 116.66877, 122.67892)  # blue, green and red of ImageNet's images
VOID = 255


@dataclass(frozen=True)
class Source:
    """A Python layer, ``module.layer``, that reads a sample at a time, and its settings."""

    module: str
    layer: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Dataset:
    """Where a net's images come from, and what it says of them.

    size: (H, W) of the images that the deployed net is drawn up for; it takes others as well.
    labels: each label image -> how many classes it tells apart. images: each image -> its channels.
    """

    size: tuple[int, int]
    train: Source
    val: Source
    labels: Mapping[str, int]
    images: Mapping[str, int] = field(default_factory=lambda: {"data": 3})


def voc(split: str, folder: str = "./data/pascal/VOC2011") -> Source:
    """Images and labels in PASCAL VOC's folders."""
    settings = {"voc_dir": folder, "split": split, "mean": MEAN, "seed": 1337}
    return Source("voc_layers", "VOCSegDataLayer", settings)


def sbd(split: str) -> Source:
    """The Semantic Boundaries Dataset, which labels more of VOC's images."""
    settings = {"sbdd_dir": "./data/sbdd/dataset", "split": split, "mean": MEAN, "seed": 1337}
    return Source("voc_layers", "SBDDSegDataLayer", settings)


def context(split: str) -> Source:
    """PASCAL-Context: VOC's images of 2010, every pixel labelled."""
    folders = {"voc_dir": "./data/pascal", "context_dir": "./data/pascal-context"}
    settings = {**folders, "split": split, "seed": 1337}
    return Source("pascalcontext_layers", "PASCALContextSegDataLayer", settings)


def siftflow(split: str) -> Source:
    """SIFT Flow: outdoor scenes, labelled twice."""
    settings = {"siftflow_dir": "./data/sift-flow", "split": split, "seed": 1337}
    return Source("siftflow_layers", "SIFTFlowSegDataLayer", settings)


def nyud(**images: str) -> Dataset:
    """NYUDv2: rooms, of which a net sees some of color, depth and hha.

    images: what the net calls an image -> what it is. hha: the disparity, the height and the angle
    with gravity that Gupta et al. (2014) make of depth.
    """

    def source(split: str) -> Source:
        tops = [*images.values(), "label"]
        settings = {"nyud_dir": "./data/nyud", "split": split, "tops": tops, "seed": 1337}
        return Source("nyud_layers", "NYUDSegDataLayer", settings)

    return Dataset(
        size=(425, 560),
        train=source("trainval"),
        val=source("test"),
        labels={"label": 40},
        images={name: 1 if kind == "depth" else 3 for name, kind in images.items()},
    )


VOC = Dataset(size=(500, 500), train=sbd("train"), val=voc("seg11valid"), labels={"label": 21})
CONTEXT = Dataset(size=(500, 500), train=context("train"), val=context("val"), labels={"label": 60})
SIFTFLOW = Dataset(
    size=(256, 256),
    train=siftflow("trainval"),
    val=siftflow("test"),
    labels={"sem": 33, "geo": 3},
)
CAMVID = Dataset(
    size=(360, 480),
    train=voc("train", "./data/camvid"),
    val=voc("val", "./data/camvid"),
    labels={"label": 11},
)
SHAPES = Dataset(
    size=(96, 128),
    train=voc("train", "./data/shapes"),
    val=voc("val", "./data/shapes"),
    labels={"label": 6},
)


def feed(n: NetSpec, dataset: Dataset, phase: str) -> None:
    """Each image (N, C, H, W), and its labels (N, 1, H, W) unless ``phase`` is "deploy"."""
    if phase == "deploy":
        for name, channels in dataset.images.items():
            n[name] = L.Input(shape={"dim": [1, channels, *dataset.size]})
        return
    source: Source = getattr(dataset, phase)
    names = [*dataset.images, *dataset.labels]
    tops = L.Python(
        module=source.module,
        layer=source.layer,
        param_str=str(dict(source.settings)),
        ntop=len(names),
    )
    for name, top in zip(names, tops, strict=True):
        n[name] = top
