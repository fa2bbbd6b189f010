"""The published layers for VOC and SBDD: samples, order, and damage."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from list_sources import opened
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.frontend.prototxt import parse_net
from netspec.layers.records import Labels
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Prefetch, Source, check_labels, open_source

CAMVID = Path(__file__).resolve().parents[2] / "shared" / "camvid"
MEAN = (104.00699, 116.66877, 122.67892)


def voc(settings: Mapping[str, object] | str, seed: int | None = 7, layer: str = "VOC") -> Source:
    param_str = settings if isinstance(settings, str) else str(dict(settings))
    return opened(
        'layer { name: "data" type: "Python" top: "data" top: "label" '
        f'python_param {{ module: "voc_layers" layer: "{layer}SegDataLayer" '
        f"param_str: {json.dumps(param_str)} }} }}",
        seed,
    )


def picture(number: int, size: tuple[int, int] = (5, 3)) -> NDArray[np.uint8]:
    width, height = size
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def indices(number: int, size: tuple[int, int] = (5, 3)) -> NDArray[np.uint8]:
    width, height = size
    labels = np.full((height, width), number, np.uint8)
    labels[0, 0] = 255
    return labels


@pytest.fixture
def voc_dir(tmp_path: Path) -> Path:
    """Splits train (samples 0..6) and val (samples 0 and 1) in VOC's layout, images as PNGs."""
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(7):
        Image.fromarray(picture(i)).save(tmp_path / "JPEGImages" / f"s{i}.png")
        labels = Image.fromarray(indices(i))
        labels.putpalette(bytes(range(256)) * 3)
        labels.save(tmp_path / "SegmentationClass" / f"s{i}.png")
    names = [f"s{i}\n" for i in range(7)]
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("".join(names))
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("".join(names[:2]))
    return tmp_path


def settings(folder: Path, **more: object) -> dict[str, object]:
    return {"voc_dir": str(folder), "split": "train", "mean": MEAN, **more}


def seen(source: Source, batches: int) -> list[int]:
    return [int(source.next()["label"][0, 0, -1, -1]) for _ in range(batches)]


def test_voc_sample(voc_dir: Path) -> None:
    source = voc(settings(voc_dir, split="val"))
    assert source.describe() == f'VOCSegDataLayer: 2 images of split "val" in {voc_dir}, in turn'
    assert source.tops == {"data": (1, 3, 3, 5), "label": (1, 1, 3, 5)}
    assert source.batches == 2
    source.next()
    assert source.current == str(voc_dir / "SegmentationClass" / "s0.png")
    batch = source.next()
    expected = picture(1)[:, :, ::-1].astype(np.float32)
    expected -= np.array(MEAN)
    np.testing.assert_array_equal(batch["data"][0], expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(batch["label"][0, 0], indices(1))
    for array in batch.values():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous


def test_voc_order_of_the_published_layers(voc_dir: Path) -> None:
    generator = random.Random(1337)
    drawn = [generator.randint(0, 6) for _ in range(20)]
    assert seen(voc(settings(voc_dir, seed=1337)), 20) == drawn
    # The solver's seed where the layer has none.
    assert seen(voc(settings(voc_dir), seed=1337), 20) == drawn
    assert seen(voc(settings(voc_dir, seed=None), seed=1337), 20) == drawn
    assert seen(voc(settings(voc_dir, randomize=False)), 9) == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert seen(voc(settings(voc_dir, split="val", seed=1)), 5) == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("randomize", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 9])
def test_voc_goes_on_where_its_state_was_taken(voc_dir: Path, randomize: bool, taken: int) -> None:
    source = voc(settings(voc_dir, randomize=randomize), seed=None)
    seen(source, taken)
    state = json.loads(json.dumps(source.state()))
    expected = seen(source, 12)
    other = voc(settings(voc_dir, randomize=randomize), seed=None)
    other.restore(state)
    assert seen(other, 12) == expected


def test_voc_refuses_the_state_of_other_samples(voc_dir: Path) -> None:
    state = voc(settings(voc_dir)).state()
    with pytest.raises(SourceError, match=r"the state is of 7 samples, but there are 2"):
        voc(settings(voc_dir, split="val")).restore(state)
    with pytest.raises(SourceError, match=r"samples at random, but they come in turn"):
        voc(settings(voc_dir, randomize=False)).restore(state)
    with pytest.raises(SourceError, match=r"another source's: it has nothing; needed are position"):
        voc(settings(voc_dir)).restore({})


def test_voc_image_formats(voc_dir: Path) -> None:
    """A JPEG goes before a PNG; grey images count as colour ones."""
    grey = np.full((3, 5), 90, np.uint8)
    Image.fromarray(grey).save(voc_dir / "JPEGImages" / "s0.jpg")
    data = voc(settings(voc_dir, split="val", mean=10)).next()["data"]
    np.testing.assert_array_equal(data, np.full((1, 3, 3, 5), 80, np.float32))


def test_voc_sizes_differ(voc_dir: Path) -> None:
    Image.fromarray(picture(1, (4, 7))).save(voc_dir / "JPEGImages" / "s1.png")
    Image.fromarray(indices(1, (4, 7))).save(voc_dir / "SegmentationClass" / "s1.png")
    source = voc(settings(voc_dir, split="val"))
    source.next()
    assert source.tops == {"data": (1, 3, 7, 4), "label": (1, 1, 7, 4)}


def test_sbdd(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "cls").mkdir()
    (tmp_path / "train.txt").write_text("s3\n")
    Image.fromarray(picture(3)).save(tmp_path / "img" / "s3.jpg")
    labels = tmp_path / "cls" / "s3.mat"
    scipy.io.savemat(labels, {"GTcls": {"Segmentation": indices(3), "CategoriesPresent": 3}})
    param = {"sbdd_dir": str(tmp_path), "split": "train", "mean": MEAN}
    source = voc(param, layer="SBDD")
    assert source.tops == {"data": (1, 3, 3, 5), "label": (1, 1, 3, 5)}
    np.testing.assert_array_equal(source.next()["label"][0, 0], indices(3))
    scipy.io.savemat(labels, {"GTcls": {"Segmentation": 0.5}})
    with pytest.raises(
        SourceError, match=r"s3.mat: GTcls.Segmentation is float64 with 2 axes; int"
    ):
        voc(param, layer="SBDD")
    scipy.io.savemat(labels, {"other": 1})
    with pytest.raises(SourceError, match=r"s3.mat: no GTcls.Segmentation can be read from it \("):
        voc(param, layer="SBDD")
    labels.write_bytes(b"nothing at all")
    with pytest.raises(SourceError, match=r"s3.mat: no GTcls.Segmentation can be read from it \("):
        voc(param, layer="SBDD")
    param["sbdd_dir"] = str(tmp_path / "nil")
    with pytest.raises(
        SourceError, match=r"nil\": no such folder.*get benchmark.tgz of the Semantic"
    ):
        voc(param, layer="SBDD")


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the street scenes")
def test_street_scenes() -> None:
    source = voc({"voc_dir": str(CAMVID), "split": "val", "mean": MEAN})
    assert source.tops == {"data": (1, 3, 360, 480), "label": (1, 1, 360, 480)}
    labels = Labels(bottom=1, scores=0, classes=11, ignore=255)
    for _ in range(3):
        check_labels(source.next()["label"], labels, source.current)


@pytest.mark.parametrize(
    ("param_str", "message"),
    [
        ("", "param_str must be a Python dict of plain values, e.g. {'voc_dir': 'data', "),
        ("dict(split='a')", "param_str must be a Python dict of plain values"),
        ("{'split': 'a'", "param_str must be a Python dict of plain values"),
        ("['split']", "param_str must be a Python dict of plain values"),
        ("{}", 'param_str lacks "voc_dir", "split", "mean"'),
        ("{'voc_dri': 'a'}", 'param_str: unknown key "voc_dri"; did you mean "voc_dir"?'),
        ("{'voc_dir': 1, 'split': 'a', 'mean': 1}", '"voc_dir" is 1; needs the path of a folder'),
        (
            "{'voc_dir': 'a', 'split': 'a', 'mean': (1, 2)}",
            '"mean" is (1, 2); needs one number or three (blue, green, red)',
        ),
        (
            "{'voc_dir': 'a', 'split': 'a', 'mean': 1, 'randomize': 'no'}",
            "\"randomize\" is 'no'; needs True or False",
        ),
        (
            "{'voc_dir': 'a', 'split': 'a', 'mean': 1, 'seed': 'x'}",
            "\"seed\" is 'x'; needs an integer or None",
        ),
    ],
)
def test_settings_that_cannot_work(param_str: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        voc(param_str)
    assert str(caught.value).startswith('net.prototxt:1: layer "data" (Python): param_str')
    assert message in str(caught.value)


def test_one_top_too_few() -> None:
    with pytest.raises(
        SourceError, match=r"makes 2 tops, an image and its labels, but 1 are named"
    ):
        opened(
            'layer { type: "Python" top: "data" python_param '
            '{ module: "voc_layers" layer: "SBDDSegDataLayer" } }'
        )


def test_voc_is_not_there(voc_dir: Path) -> None:
    with pytest.raises(SourceError) as caught:
        voc(settings(voc_dir / "nil"))
    assert str(caught.value) == (
        f'net.prototxt:1: layer "data" (Python): voc_dir "{voc_dir / "nil"}": no such folder, '
        "from here or from the prototxt; get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 "
        "site (http://host.robots.ox.ac.uk/pascal/VOC/voc2012), unpack it and set voc_dir to the "
        "folder VOCdevkit/VOC2012 in it (seg11valid.txt comes with the published FCNs, "
        "fcn.berkeleyvision.org); `netspec data shapes FOLDER` makes a small set of this layout"
    )
    with pytest.raises(
        SourceError, match=r"lacks ImageSets/Segmentation/train.txt; get VOCtrainval"
    ):
        voc(settings(voc_dir / "JPEGImages"))
    with pytest.raises(
        SourceError, match=r'no split "trian": .* has train, val; did you mean "train"'
    ):
        voc(settings(voc_dir, split="trian"))


def damage(voc_dir: Path, kind: str) -> None:
    image, labels = voc_dir / "JPEGImages" / "s0.png", voc_dir / "SegmentationClass" / "s0.png"
    match kind:
        case "no image":
            image.unlink()
        case "no labels":
            labels.unlink()
            (voc_dir / "SegmentationClass" / "s1.png").unlink()
        case "no samples":
            (voc_dir / "ImageSets/Segmentation/val.txt").write_text("\n")
        case "binary list":
            (voc_dir / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xff")
        case "no picture":
            image.write_text("nothing")
        case "half a picture":
            image.write_bytes(image.read_bytes()[:-30])
        case "other size":
            Image.fromarray(indices(0, (3, 5))).save(labels)
        case "colours":
            Image.fromarray(picture(0)).save(labels)
        case "deep":
            Image.fromarray(indices(0).astype(np.uint16)).save(labels)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no image", 'split "val" lacks 1 of its 4 files: {}/JPEGImages/s0.jpg'),
        (
            "no labels",
            'split "val" lacks 2 of its 4 files: {0}/SegmentationClass/s0.png, '
            "{0}/SegmentationClass/s1.png",
        ),
        ("no samples", "{}/ImageSets/Segmentation/val.txt: lists no samples"),
        ("binary list", "{}/ImageSets/Segmentation/val.txt: not a text file; it lists samples"),
        (
            "no picture",
            "{}/JPEGImages/s0.png: damaged, or not an image (cannot identify image file)",
        ),
        ("half a picture", "{}/JPEGImages/s0.png: damaged, or not an image ("),
        ("other size", "{}/SegmentationClass/s0.png: 3x5, but its image is 5x3"),
        (
            "colours",
            "{}/SegmentationClass/s0.png: RGB label image; class indices expected (an 8-bit",
        ),
        ("deep", "{}/SegmentationClass/s0.png: I;16 label image; class indices expected"),
    ],
)
def test_damage(voc_dir: Path, kind: str, message: str) -> None:
    damage(voc_dir, kind)
    with pytest.raises(SourceError) as caught:
        voc(settings(voc_dir, split="val"))
    prefix = 'net.prototxt:1: layer "data" (Python): '
    assert str(caught.value).startswith(prefix + message.format(voc_dir))


def test_damage_further_on(voc_dir: Path) -> None:
    damaged = voc_dir / "JPEGImages" / "s1.png"
    damaged.write_text("nothing")
    source = voc(settings(voc_dir, split="val"))
    source.next()
    with pytest.raises(SourceError, match=r"s1.png: damaged, or not an image"):
        source.next()


def test_folders_are_found_from_the_prototxt(
    voc_dir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    nets = voc_dir / "nets"
    nets.mkdir()
    (voc_dir / "set").symlink_to(voc_dir)
    net = parse_net(
        'layer { type: "Python" top: "data" top: "label" python_param { module: "voc_layers" '
        'layer: "VOCSegDataLayer" '
        "param_str: \"{'voc_dir': '../set', 'split': 'val', 'mean': 0}\" } }"
    )
    place = Place(str(nets / "net.prototxt"), 1)
    source = open_source(net.message.layer[0], TEST, None, place)
    assert source.tops["data"] == (1, 3, 3, 5)


def test_prefetch_of_a_real_source(voc_dir: Path) -> None:
    expected = seen(voc(settings(voc_dir)), 30)
    with Prefetch(voc(settings(voc_dir)), depth=4) as source:
        assert seen(source, 10) == expected[:10]
        state = source.state()
    with Prefetch(voc(settings(voc_dir), seed=None), depth=4) as source:
        source.restore(state)
        assert seen(source, 20) == expected[10:]
