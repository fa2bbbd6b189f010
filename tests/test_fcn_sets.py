"""The sets of the published FCNs, each in a tiny folder of its true layout."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.proto.layers_pb2 import TEST, LayerParameter, PythonParameter
from netspec.sources import Source
from netspec.sources.base import open_source
from netspec.sources.sets.prepare import DATA_SETS, Report, prepare

SIZE = WIDTH, HEIGHT = 5, 3
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


def fed(name: str, settings: Mapping[str, object], tops: int = 2, seed: int | None = 7) -> Source:
    module, layer = name.split(".")
    param = PythonParameter(module=module, layer=layer, param_str=str(dict(settings)))
    names = [f"top{i}" for i in range(tops)]
    spec = LayerParameter(name="data", type="Python", top=names, python_param=param)
    return open_source(spec, TEST, seed, Place("net.prototxt", 1))


def write(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_mat(path: Path, name: str, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {name: value})


def write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def picture(number: int) -> NDArray[np.uint8]:
    """Not black anywhere, so that a depth image may be made of it."""
    return np.random.default_rng(number).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)


def grid(*values: int) -> NDArray[np.int64]:
    """A label image: the first values in the first row, the last everywhere else."""
    labels = np.full(WIDTH * HEIGHT, values[-1])
    labels[: len(values)] = values
    return labels.reshape(HEIGHT, WIDTH)


def bgr(image: NDArray[np.uint8], mean: tuple[float, float, float]) -> NDArray[np.float32]:
    """What the published layers make of a photograph, in single precision."""
    blob = image[:, :, ::-1].astype(np.float32)
    blob -= np.array(mean, np.float32)
    return blob.transpose(2, 0, 1)


def refused(name: str, settings: Mapping[str, object], tops: int = 2) -> str:
    with pytest.raises(SourceError) as caught:
        fed(name, settings, tops)
    start = 'net.prototxt:1: layer "data" (Python): '
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


# NYUDv2


NYUD = "nyud_layers.NYUDSegDataLayer"
NYUD_NAMES = ["5003", "5001", "5002"]


def depth_of(number: int) -> NDArray[np.uint16]:
    return (picture(number)[:, :, 0].astype(np.uint16) * 40).astype(np.uint16)


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    for name in NYUD_NAMES:
        number = int(name)
        write(tmp_path / f"data/images/img_{name}.png", picture(number))
        write(tmp_path / f"data/hha/img_{name}.png", picture(number + 1000))
        write(tmp_path / f"data/depth/img_{name}.png", depth_of(number))
        path = tmp_path / f"segmentation/img_{name}.mat"
        write_mat(path, "segmentation", grid(0, 1, 40, number % 10).astype(np.uint16))
    write_list(tmp_path / "train.txt", NYUD_NAMES[:2])
    write_list(tmp_path / "val.txt", NYUD_NAMES[2:])
    write_list(tmp_path / "test.txt", NYUD_NAMES)
    return tmp_path


def test_nyud_sample(nyud: Path) -> None:
    """Each top as the published layer makes it; void is 255 and classes begin at 0."""
    settings = {
        "nyud_dir": str(nyud),
        "split": "test",
        "tops": ["color", "depth", "hha", "label"],
        "seed": 1337,
    }
    source = fed(NYUD, settings, 4)
    assert source.batches == 3
    color, depth, hha, label = source.next().values()
    np.testing.assert_array_equal(color[0], bgr(picture(5003), (116.190, 97.203, 92.318)))
    log = np.log(depth_of(5003).astype(np.float32)) - np.float32(7.844)
    np.testing.assert_array_equal(depth[0, 0], log)
    stored = picture(6003).astype(np.float32)
    stored -= np.array((132.431, 94.076, 118.477), np.float32)
    np.testing.assert_array_equal(hha[0], stored.transpose(2, 0, 1))
    np.testing.assert_array_equal(label[0, 0], grid(255, 0, 39, 2))
    for blob, channels in zip((color, depth, hha, label), (3, 1, 3, 1), strict=True):
        assert blob.shape == (1, channels, HEIGHT, WIDTH)
        assert blob.dtype == np.float32
        assert blob.flags.c_contiguous
    assert source.current == str(nyud / "segmentation/img_5003.mat")
    # Tests come in turn, and begin again after the last.
    seen = [source.next()["top3"][0, 0, 0, 3] for _ in range(4)]
    assert seen == [0, 1, 2, 0]


@pytest.mark.parametrize("tops", [["hha"], ["label", "color"], ("depth",)])
def test_nyud_tops_are_chosen(nyud: Path, tops: list[str]) -> None:
    settings = {"nyud_dir": str(nyud), "split": "test", "tops": tops}
    channels = {"hha": 3, "color": 3, "depth": 1, "label": 1}
    batch = fed(NYUD, settings, len(tops)).next()
    assert [array.shape[1] for array in batch.values()] == [channels[top] for top in tops]


def test_nyud_order_of_the_published_layer(nyud: Path) -> None:
    """Only splits with "train" in their name are drawn at random, each sample anew."""
    settings = {"nyud_dir": str(nyud), "split": "trainval", "tops": ["label"], "seed": 1337}
    write_list(nyud / "trainval.txt", NYUD_NAMES)
    generator = random.Random(1337)
    drawn = [generator.randint(0, 2) for _ in range(12)]
    source = fed(NYUD, settings, 1)
    classes = [int(name) % 10 - 1 for name in NYUD_NAMES]
    seen = [source.next()["top0"][0, 0, 0, 3] for _ in range(12)]
    assert seen == [classes[i] for i in drawn]


def damage_nyud(nyud: Path, kind: str) -> None:
    color, depth, labels = (
        nyud / f"{path}/img_5003{suffix}"
        for path, suffix in (
            ("data/images", ".png"),
            ("data/depth", ".png"),
            ("segmentation", ".mat"),
        )
    )
    match kind:
        case "depth 0":
            hollow = depth_of(5003)
            hollow[1, 2] = 0
            write(depth, hollow)
        case "depth in color":
            write(depth, picture(1))
        case "depth of another size":
            write(depth, depth_of(1)[:2])
        case "label out of range":
            write_mat(labels, "segmentation", grid(1, 300))
        case "label of no class":
            write_mat(labels, "segmentation", grid(1, 2) + 0.5)
        case "label of nothing":
            write_mat(labels, "segmentation", np.full((HEIGHT, WIDTH), np.nan))
        case "labels elsewhere":
            write_mat(labels, "labels", grid(1))
        case "no labels":
            labels.unlink()
        case "half a photograph":
            color.write_bytes(color.read_bytes()[:-30])


NYUD_DAMAGE = {
    "depth 0": "data/depth/img_5003.png: depth 0 at (x 2, y 1) has no logarithm; fill the holes",
    "depth in color": "data/depth/img_5003.png: RGB image; one number a pixel expected (a grey",
    "depth of another size": "data/depth/img_5003.png: 5x2, but its color is 5x3",
    "label out of range": (
        "segmentation/img_5003.mat: label 299 at (x 1, y 0); class indices are 0..255"
    ),
    "label of no class": (
        "segmentation/img_5003.mat: segmentation is float64 with 2 axes; integers with 2 expected"
    ),
    "label of nothing": "segmentation/img_5003.mat: segmentation is float64 with 2 axes; integers",
    "labels elsewhere": "segmentation/img_5003.mat: no segmentation can be read from it (",
    "half a photograph": "data/images/img_5003.png: damaged, or not an image (",
}


@pytest.mark.parametrize("kind", NYUD_DAMAGE)
def test_nyud_damage(nyud: Path, kind: str) -> None:
    damage_nyud(nyud, kind)
    settings = {"nyud_dir": str(nyud), "split": "test", "tops": ["color", "depth", "label"]}
    assert refused(NYUD, settings, 3).startswith(f"{nyud}/{NYUD_DAMAGE[kind]}")


def test_nyud_is_not_there(nyud: Path) -> None:
    settings = {"nyud_dir": str(nyud), "split": "test", "tops": ["color", "label"]}
    damage_nyud(nyud, "no labels")
    assert refused(NYUD, settings) == (
        f'split "test" lacks 1 of its 6 files: {nyud}/segmentation/img_5003.mat'
    )
    (nyud / "test.txt").write_text("\n")
    assert refused(NYUD, settings) == f"{nyud}/test.txt: lists no samples"
    settings["nyud_dir"] = str(nyud / "nil")
    assert refused(NYUD, settings).startswith(
        f'nyud_dir "{nyud}/nil": no such folder, from here or from the prototxt; get nyud.tar.gz'
    )


NYUD_SETTINGS: list[tuple[dict[str, object], int, str]] = [
    (
        {"nyud_dir": "a", "split": "a"},
        1,
        'param_str lacks "tops"',
    ),
    (
        {"nyud_dir": "a", "split": "a", "tops": ["colour"]},
        1,
        "param_str: \"tops\" is ['colour']; needs a list of some of color, depth, hha, label",
    ),
    ({"nyud_dir": "a", "split": "a", "tops": []}, 1, 'param_str: "tops" is []; needs a list of'),
    (
        {"nyud_dir": "a", "split": "a", "tops": ["hha", "label"]},
        1,
        "makes 2 tops, hha and label, but 1 are named",
    ),
    (
        {"nyud_dir": "a", "split": "a", "tops": ["hha", "depth", "label"]},
        2,
        "makes 3 tops, hha, depth and label, but 2 are named",
    ),
]


@pytest.mark.parametrize(("settings", "tops", "message"), NYUD_SETTINGS)
def test_nyud_settings_that_cannot_work(
    settings: dict[str, object], tops: int, message: str
) -> None:
    assert refused(NYUD, settings, tops).startswith(message)


# SIFT Flow


SIFTFLOW = "siftflow_layers.SIFTFlowSegDataLayer"
SIFTFLOW_NAMES = ["coast_a1", "street_b2", "forest_c3"]


@pytest.fixture
def siftflow(tmp_path: Path) -> Path:
    for i, name in enumerate([*SIFTFLOW_NAMES, "street_urb506"]):
        path = tmp_path / "Images" / SCENES / f"{name}.jpg"
        write(path, np.full((HEIGHT, WIDTH, 3), 90 + i, np.uint8))
    for i, name in enumerate(SIFTFLOW_NAMES):
        semantic, geometric = (
            tmp_path / folder / SCENES / f"{name}.mat" for folder in ("SemanticLabels", "GeoLabels")
        )
        write_mat(semantic, "S", grid(0, 1, 33, 10 + i).astype(np.uint8))
        # MATLAB keeps what it may as doubles.
        write_mat(geometric, "S", grid(-1, 0, 1, 3, 2).astype(float))
    write_list(tmp_path / "test.txt", SIFTFLOW_NAMES[1:])
    return tmp_path


def test_siftflow_sample(siftflow: Path) -> None:
    source = fed(SIFTFLOW, {"siftflow_dir": str(siftflow), "split": "test", "seed": 1337}, 3)
    image, semantic, geometric = source.next().values()
    expected = np.full((3, HEIGHT, WIDTH), 91, np.float32)
    expected -= np.array((114.578, 115.294, 108.353), np.float32)[:, None, None]
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(semantic[0, 0], grid(255, 0, 32, 10))
    np.testing.assert_array_equal(geometric[0, 0], grid(255, 255, 0, 2, 1))
    assert source.current == ", ".join(
        str(siftflow / folder / SCENES / "street_b2.mat")
        for folder in ("SemanticLabels", "GeoLabels")
    )
    assert source.batches == 2


def test_siftflow_refusals(siftflow: Path) -> None:
    settings = {"siftflow_dir": str(siftflow), "split": "test"}
    assert refused(SIFTFLOW, settings) == (
        "makes 3 tops, an image, its semantic labels and its geometric labels, but 2 are named"
    )
    path = siftflow / "GeoLabels" / SCENES / "street_b2.mat"
    write_mat(path, "S", grid(-2))
    message = f"{path}: label -3 at (x 0, y 0); class indices are 0..255"
    assert refused(SIFTFLOW, settings, 3) == message
    path.write_bytes(b"nothing at all")
    assert refused(SIFTFLOW, settings, 3).startswith(f"{path}: no S can be read from it (")
    settings["split"] = "trainval"
    assert refused(SIFTFLOW, settings, 3) == f'no split "trainval": {siftflow} has test'
    (siftflow / "test.txt").unlink()
    assert refused(SIFTFLOW, settings, 3).startswith(
        f'siftflow_dir "{siftflow}" lacks trainval.txt; get SiftFlowDataset.zip'
    )


# PASCAL-Context


CONTEXT = "pascalcontext_layers.PASCALContextSegDataLayer"
LABELS = "1: accordion\n2: table\n3: air conditioner\n4: cloth\n5: bedclothes\n300: tv monitor\n"
CHOSEN = "1: diningtable\n2: tvmonitor\n3: bedcloth\n4: clothes\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root, voc = tmp_path / "pascal-context", tmp_path / "pascal/VOC2010"
    for name in ("2008_000002", "2008_000003"):
        write(voc / "JPEGImages" / f"{name}.jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        path = root / "trainval" / f"{name}.mat"
        write_mat(path, "LabelMap", grid(0, 1, 2, 3, 4, 5, 300).astype(np.uint16))
        write_list(voc / "ImageSets/Main/val.txt", [name])
    write_list(voc / "ImageSets/Main/train.txt", ["2008_000002", "2008_000003"])
    (root / "labels.txt").write_text(LABELS)
    (root / "59_labels.txt").write_text(CHOSEN)
    return tmp_path


def context_settings(context: Path, split: str = "val") -> dict[str, object]:
    return {
        "voc_dir": str(context / "pascal"),
        "context_dir": str(context / "pascal-context"),
        "split": split,
        "seed": 1337,
    }


@pytest.mark.parametrize("background", ["", "0: background\n"])
def test_context_sample(context: Path, background: str) -> None:
    """The classes of 59_labels.txt by name, some of which labels.txt spells otherwise."""
    (context / "pascal-context/59_labels.txt").write_text(background + CHOSEN)
    source = fed(CONTEXT, context_settings(context))
    image, labels = source.next().values()
    expected = np.full((3, HEIGHT, WIDTH), 90, np.float32)
    expected -= np.array((104.007, 116.669, 122.679), np.float32)[:, None, None]
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(labels[0, 0], grid(0, 0, 1, 0, 4, 3, 2))
    assert source.current == str(context / "pascal-context/trainval/2008_000003.mat")
    assert fed(CONTEXT, context_settings(context, "train")).batches == 2


CONTEXT_LABELS = {
    ("labels.txt", None): "labels.txt: no such file",
    ("labels.txt", ""): "labels.txt: lists no labels",
    ("labels.txt", "accordion"): (
        'labels.txt:1: "accordion" is no number and name, such as 3: air conditioner'
    ),
    ("labels.txt", LABELS.replace("300: tv monitor", "6: tv monitors")): (
        '59_labels.txt: labels.txt beside it has no "tvmonitor"; did you mean "tvmonitors"?'
    ),
    ("labels.txt", LABELS.replace("300", "200")): (
        "trainval/2008_000003.mat: label 300 at (x 1, y 1); labels.txt has 1..200"
    ),
    ("59_labels.txt", "256: tvmonitor"): (
        "59_labels.txt: class 256 (tvmonitor); classes are 1..254"
    ),
}


@pytest.mark.parametrize(("name", "contents"), CONTEXT_LABELS)
def test_context_labels_that_cannot_work(context: Path, name: str, contents: str | None) -> None:
    path = context / "pascal-context" / name
    path.unlink() if contents is None else path.write_text(contents)
    expected = f"{context}/pascal-context/{CONTEXT_LABELS[name, contents]}"
    assert refused(CONTEXT, context_settings(context)) == expected


def test_context_is_not_there(context: Path) -> None:
    settings = {**context_settings(context), "context_dir": "nil"}
    assert refused(CONTEXT, settings).startswith('context_dir "nil": no such folder')
    settings = {**context_settings(context), "voc_dir": str(context)}
    assert refused(CONTEXT, settings).startswith(
        f'voc_dir "{context}" lacks VOC2010/ImageSets/Main/val.txt; get VOCtrainval_03-May-2010.tar'
    )
    damaged = context / "pascal/VOC2010/JPEGImages/2008_000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:400])
    message = refused(CONTEXT, context_settings(context))
    assert message.startswith(f"{damaged}: damaged, or not an image (")


# What is said of them


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC with samples a, b, c in val and d in train, and SBD with b and d in train."""
    for name in "abcd":
        write(tmp_path / "voc/JPEGImages" / f"{name}.jpg", picture(1))
        write(tmp_path / "voc/SegmentationClass" / f"{name}.png", grid(0, 255, 20).astype("u1"))
    lists = tmp_path / "voc/ImageSets/Segmentation"
    write_list(lists / "val.txt", ["c", "b", "a"])
    write_list(lists / "train.txt", ["d"])
    for name in "bd":
        write(tmp_path / "sbd/img" / f"{name}.jpg", picture(2))
        mat = {"Segmentation": grid(0, 7).astype(np.uint8)}
        write_mat(tmp_path / "sbd/cls" / f"{name}.mat", "GTcls", mat)
    write_list(tmp_path / "sbd/train.txt", ["b", "d"])
    return tmp_path


def test_prepare_voc(voc: Path) -> None:
    lists, labels = voc / "voc/ImageSets/Segmentation", voc / "voc/SegmentationClass"
    shown = "5x3, classes 0 20 void of 0..20"
    expected = [
        f"PASCAL VOC in {voc / 'voc'}",
        f"  wrote {lists / 'seg11valid.txt'}: 2 samples, val without SBD's train",
        f"  train: 1 sample (1112 or 1464 when whole); {labels / 'd.png'}: {shown}",
        f"  val: 3 samples (1111 or 1449 when whole); {labels / 'c.png'}: {shown}",
        f"  seg11valid: 2 samples (736 when whole); {labels / 'a.png'}: {shown}",
    ]
    assert prepare("voc", voc / "voc", sbd=voc / "sbd") == Report(expected, True)
    assert (lists / "seg11valid.txt").read_text() == "a\nc\n"
    # What is there is left as it is.
    del expected[1]
    assert prepare("voc", voc / "voc", sbd=voc / "sbd") == Report(expected, True)


def test_prepare_voc_without_what_a_list_follows_from(voc: Path) -> None:
    missing = voc / "voc/ImageSets/Segmentation/seg11valid.txt"
    lines, ready = prepare("voc", voc / "voc", sbd=voc / "nil")
    why = f"  seg11valid.txt is val.txt without SBD's train.txt, which is not in {voc / 'nil'}"
    assert (lines[1], lines[-1], ready) == (why, f"  seg11valid: no {missing}", True)
    write_list(missing.with_name("val.txt"), [str(i) for i in range(1449)])
    lines, ready = prepare("voc", voc / "voc", sbd=voc / "sbd")
    assert lines[1].endswith("the val.txt of VOC 2011, 1111 names; this one has 1449")
    assert lines[3].startswith('  val: split "val" lacks 2898 of its 2898 files: ')
    assert lines[-1].startswith("  how to come by it: get VOCtrainval")
    assert not ready


def test_prepare_finds_labels_that_are_none(voc: Path) -> None:
    path = voc / "voc/SegmentationClass/c.png"
    write(path, grid(0, 21).astype("u1"))
    lines, ready = prepare("voc", voc / "voc", sbd=voc / "sbd")
    found = f"label 21 at (x 1, y 0) of {path}; the net has 21 classes (0..20) and ignores 255"
    assert f"  val: {found}" in lines
    assert not ready


def test_prepare_sbd(voc: Path) -> None:
    sbd = voc / "sbd"
    lines, ready = prepare("sbd", sbd)
    assert lines[1:] == [
        f"  train: 2 samples (8498 when whole); {sbd / 'cls/b.mat'}: 5x3, classes 0 7 of 0..20",
        f"  val: no {sbd / 'val.txt'}",
    ]
    assert ready
    assert not list(sbd.glob("cls/*.png"))
    lines, ready = prepare("sbd", sbd, convert=True)
    assert lines[-1] == f"  wrote 2 label images: {sbd / 'cls' / '*.png'}"
    image = Image.open(sbd / "cls/b.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), grid(0, 7))


def test_prepare_nyud(nyud: Path) -> None:
    lines, ready = prepare("nyud", nyud)
    assert lines[1] == f"  wrote {nyud / 'trainval.txt'}: 3 samples, train and val"
    assert (nyud / "trainval.txt").read_text().split() == NYUD_NAMES
    assert lines[2] == (
        f"  trainval: 3 samples (795 when whole); {nyud / 'segmentation/img_5003.mat'}: "
        "5x3, 5x3, 5x3, classes 0 2 39 void of 0..39"
    )
    assert [line.split(":")[0].strip() for line in lines[2:]] == [
        "trainval",
        "train",
        "val",
        "test",
    ]
    assert ready


def test_prepare_siftflow(siftflow: Path) -> None:
    lines, ready = prepare("siftflow", siftflow)
    written = siftflow / "trainval.txt"
    assert lines[1] == f"  wrote {written}: 1 sample, images that test.txt does not list"
    # street_urb506 is known to have no labels.
    assert written.read_text() == "coast_a1\n"
    assert lines[2].endswith("5x3, classes 0 9 32 void of 0..32, classes 0 1 2 void of 0..2")
    assert ready


def test_prepare_context(context: Path) -> None:
    root = context / "pascal-context"
    lines, ready = prepare("context", root)
    sample = f"{root / 'trainval/2008_000002.mat'}: 5x3, classes 0 1 2 3 4 of 0..59"
    assert lines[1] == f"  train: 2 samples (4998 when whole); {sample}"
    assert ready
    (context / "pascal").rename(root / "VOCdevkit")
    assert prepare("context", root) == Report(lines, True)


@pytest.mark.parametrize("name", DATA_SETS)
def test_prepare_says_where_a_set_comes_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines, ready = prepare(name)
    assert lines[0].endswith(f" in {DATA_SETS[name].default}")
    assert lines[1].startswith("  not there: get ")
    assert not ready
    # A folder with nothing in it.
    lines, ready = prepare(name, ".")
    assert lines[-1].startswith("  how to come by it: get ")
    assert not ready
    assert list(tmp_path.iterdir()) == []


def test_prepare_refusals(nyud: Path) -> None:
    with pytest.raises(SourceError, match=r'^unknown data set "nyu" \(voc, sbd, nyud, .*"nyud"\?'):
        prepare("nyu")
    with pytest.raises(SourceError, match=r"^convert: nyud needs no conversion$"):
        prepare("nyud", nyud, convert=True)
