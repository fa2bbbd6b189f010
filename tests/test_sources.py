import json
import random
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net, read_net
from netspec.layers.base import Labels
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Batch, Prefetch, Source, check_labels, open_source
from netspec.sources.feed import shapes_of_sources
from netspec.sources.images.decode import preprocess

GOLDEN = Path(__file__).parent / "golden" / "data"
CAMVID = Path(__file__).resolve().parents[2] / "shared" / "camvid"
MEAN = (104.00699, 116.66877, 122.67892)


def opened(layer: str, seed: int | None = 7) -> Source:
    """The source of a data layer written as prototxt."""
    net = parse_net(layer, "net.prototxt")
    return open_source(net.message.layer[0], TEST, seed, net.places[0])


# HDF5


def hdf5(seed: int | None = 7, tops: str = "data label", **param: object) -> Source:
    fields = " ".join(f"{key}: {json.dumps(value)}" for key, value in param.items())
    named = " ".join(f'top: "{top}"' for top in tops.split())
    return opened(
        f'layer {{ name: "d" type: "HDF5Data" {named} hdf5_data_param {{ {fields} }} }}', seed
    )


def write_rows(
    path: Path, first: int, count: int, shape: tuple[int, ...] = (2, 3), **more: object
) -> None:
    """A file whose row r holds the number first + r, in ``data`` and in ``label``."""
    numbers = np.arange(first, first + count)
    with h5py.File(path, "w") as file:
        file["data"] = np.broadcast_to(numbers.reshape(-1, *(1 for _ in shape)), (count, *shape))
        file["label"] = numbers.astype(np.float64)
        for name, value in more.items():
            if name in file:
                del file[name]
            file[name] = value


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows 0..4 in a.h5, 5..7 in b.h5 and a list of both."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.h5", 0, 5)
    write_rows(tmp_path / "b.h5", 5, 3)
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    return tmp_path


def labels_of(source: Source, batches: int) -> list[list[int]]:
    return [source.next()["label"].astype(int).tolist() for _ in range(batches)]


def test_hdf5_is_caffes(monkeypatch: pytest.MonkeyPatch) -> None:
    net = read_net(GOLDEN / "cases" / "hdf5.prototxt")
    golden = np.load(GOLDEN / "cases" / "hdf5.npz")
    monkeypatch.chdir(GOLDEN / "files")
    source = open_source(net.message.layer[0], TEST, None, net.places[0])
    assert source.tops == {"data": (3, 2, 3, 4), "label": (3,)}
    for i in range(4):
        batch = source.next()
        for name, array in batch.items():
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            np.testing.assert_array_equal(array, golden[f"{i}/{name}"])


def test_hdf5_batches_run_across_files_and_around(rows: Path) -> None:
    source = hdf5(source="list.txt", batch_size=3)
    assert source.describe() == "HDF5Data: 8 rows in 2 files that list.txt lists, in order"
    assert source.batches == 3
    assert labels_of(source, 2) == [[0, 1, 2], [3, 4, 5]]
    assert source.current == "a.h5, b.h5"
    assert labels_of(source, 2) == [[6, 7, 0], [1, 2, 3]]
    batch = hdf5(source="list.txt", batch_size=20).next()
    assert batch["label"].tolist() == [*range(8), *range(8), *range(4)]
    np.testing.assert_array_equal(batch["data"][:, 1, 2], batch["label"])


def test_hdf5_finds_files_beside_their_list(
    rows: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert labels_of(hdf5(source=str(rows / "list.txt"), batch_size=2), 1) == [[0, 1]]
    # What the current folder has goes first, as in Caffe.
    write_rows(elsewhere / "a.h5", 40, 2)
    assert labels_of(hdf5(source=str(rows / "list.txt"), batch_size=3), 1) == [[40, 41, 5]]


def test_hdf5_shuffle_takes_each_row_once_a_pass(rows: Path) -> None:
    source = hdf5(source="list.txt", batch_size=8, shuffle=True)
    passes = labels_of(source, 4)
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    # Rows stay in their file's turn.
    for one in passes:
        assert {*one[:5]} == {*range(5)} or {*one[:3]} == {5, 6, 7}
    assert labels_of(hdf5(source="list.txt", batch_size=8, shuffle=True), 4) == passes
    assert labels_of(hdf5(8, source="list.txt", batch_size=8, shuffle=True), 4) != passes


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("files", ["a.h5", "a.h5 b.h5"])
@pytest.mark.parametrize("taken", [0, 1, 4, 5])
def test_hdf5_goes_on_where_its_state_was_taken(
    rows: Path, shuffle: bool, files: str, taken: int
) -> None:
    (rows / "list.txt").write_text(files)
    source = hdf5(None, source="list.txt", batch_size=2, shuffle=shuffle)
    labels_of(source, taken)
    state = json.loads(json.dumps(source.state()))
    expected = labels_of(source, 9)
    other = hdf5(None, source="list.txt", batch_size=2, shuffle=shuffle)
    other.restore(state)
    assert labels_of(other, 9) == expected


def test_hdf5_refuses_the_state_of_other_files(rows: Path) -> None:
    state = hdf5(source="list.txt", batch_size=2).state()
    (rows / "list.txt").write_text("a.h5")
    with pytest.raises(SourceError, match=r"the state is of files with 5, 3 rows, but they have 5"):
        hdf5(source="list.txt", batch_size=2).restore(state)
    (rows / "list.txt").write_text("a.h5 b.h5")
    with pytest.raises(
        SourceError, match=r"the state is of samples in turn, but they come at rand"
    ):
        hdf5(source="list.txt", batch_size=2, shuffle=True).restore(state)


def fails(message: str, **settings: object) -> None:
    """Opening must fail with this message, after the place and the layer."""
    with pytest.raises(SourceError) as caught:
        hdf5(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == f'net.prototxt:1: layer "d" (HDF5Data): {message}'


def test_hdf5_settings_that_cannot_work(rows: Path) -> None:
    fails("batch_size must be given and positive", source="list.txt")
    fails("source: nil.txt: no such file", source="nil.txt", batch_size=1)
    fails(
        'a.h5: no data set "lable" for this top; it has data, label; did you mean "label"?',
        tops="data lable",
        source="list.txt",
        batch_size=1,
    )
    (rows / "list.txt").write_text("\n")
    fails("list.txt: lists no files", source="list.txt", batch_size=1)
    (rows / "list.txt").write_text("a.h5 c.h5")
    fails("c.h5: no such file", source="list.txt", batch_size=1)
    fails(
        "a.h5: not a text file; source lists HDF5 files, one on a line",
        source="a.h5",
        batch_size=1,
    )
    with pytest.raises(SourceError, match=r"transform_param has no meaning here"):
        opened('layer { type: "HDF5Data" top: "a" transform_param { scale: 2 } }')
    with pytest.raises(SourceError, match=r"feeds the net: 1 bottoms, needs none"):
        opened('layer { type: "HDF5Data" bottom: "a" top: "a" }')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"label": np.zeros(2)}, '"label" has 2 rows, but "data" has 3'),
        ({"label": np.array([b"a"] * 3)}, '"label" holds |S1 values; numbers expected'),
        ({"label": np.float32(3)}, '"label" is one number; rows expected'),
        ({"data": np.zeros((0, 2, 3))}, '"data" has no rows'),
        ({"data": np.zeros((3, 2, 4))}, 'a row of "data" is 2x4, but in a.h5 it is 2x3'),
    ],
)
def test_hdf5_contents_that_cannot_work(rows: Path, damage: dict[str, Any], message: str) -> None:
    write_rows(rows / "b.h5", 5, 3, **damage)
    fails(f"b.h5: {message}", source="list.txt", batch_size=1)


def test_hdf5_damaged_file(rows: Path) -> None:
    (rows / "b.h5").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"\(HDF5Data\): b.h5: damaged, or not an HDF5 file \("):
        hdf5(source="list.txt", batch_size=1)


# Segmentation sets


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
            (voc_dir / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe")
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


# The registry


def test_sources_that_are_not_known() -> None:
    with pytest.raises(SourceError) as caught:
        opened(
            'layer { name: "d" type: "Python" top: "a" '
            'python_param { module: "voc_layers" layer: "VOCSegLayer" } }'
        )
    assert str(caught.value) == (
        'net.prototxt:1: layer "d" (Python): no module "voc_layers" in the current folder or on '
        "PYTHONPATH; it should define the class VOCSegLayer; built in are "
        "voc_layers.VOCSegDataLayer, voc_layers.SBDDSegDataLayer, "
        "pascalcontext_layers.PASCALContextSegDataLayer, nyud_layers.NYUDSegDataLayer, "
        "siftflow_layers.SIFTFlowSegDataLayer; "
        'did you mean "voc_layers.VOCSegDataLayer"?'
    )
    with pytest.raises(
        SourceError, match=r"no source feeds this type \(those that are fed: DummyData, HDF5Dat"
    ):
        opened('layer { name: "d" type: "Input" top: "a" }')


def test_shapes_of_sources(rows: Path) -> None:
    net = parse_net(
        """
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 4 } } }
        layer { name: "d" type: "HDF5Data" top: "data" top: "label"
                hdf5_data_param { source: "list.txt" batch_size: 4 } }
        """
    )
    graph = connect(net)
    assert shapes_of_sources(graph, {}) == {"data": (4, 2, 3), "label": (4,)}
    given: dict[str, tuple[int, ...]] = {"data": (1, 2, 3)}
    assert shapes_of_sources(graph, given) == {"data": (1, 2, 3), "label": (4,)}
    # What is given whole is not opened.
    (rows / "list.txt").unlink()
    given["label"] = (1,)
    assert shapes_of_sources(graph, given) == given


# Prefetch


class Counter(Source):
    """Batches 0, 1, 2, ...; batch ``bad`` cannot be read."""

    def __init__(self, bad: int = -1) -> None:
        self.count = 0
        self.bad = bad
        self.closed = False
        self.read = threading.Condition()

    @property
    def tops(self) -> dict[str, tuple[int, ...]]:
        return {"n": (self.count + 1,)}

    def next(self) -> Batch:
        if self.count == self.bad:
            raise SourceError(f"{self.count}.png: damaged")
        with self.read:
            batch = {"n": np.full(self.count + 1, self.count, np.float32)}
            self.current = f"{self.count}.png"
            self.count += 1
            self.read.notify_all()
        return batch

    def wait_for(self, count: int) -> None:
        with self.read:
            assert self.read.wait_for(lambda: self.count >= count, timeout=10)

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    @property
    def batches(self) -> int:
        return 9

    def describe(self) -> str:
        return "numbers"

    def close(self) -> None:
        self.closed = True


def number(source: Source) -> int:
    return int(source.next()["n"][0])


def test_prefetch_hands_out_what_the_source_would() -> None:
    with Prefetch(Counter(), depth=3) as source:
        assert source.describe() == "numbers"
        assert source.batches == 9
        assert source.current == ""
        assert source.state() == {"count": 0}
        for i in range(20):
            assert source.tops == {"n": (i + 1,)}
            assert source.state() == {"count": i}
            assert number(source) == i
            assert source.current == f"{i}.png"
            assert source.state() == {"count": i + 1}


def test_prefetch_reads_ahead_but_not_more_than_asked() -> None:
    counter = Counter()
    with Prefetch(counter, depth=3) as source:
        counter.wait_for(3)
        assert number(source) == 0
        counter.wait_for(4)
        assert counter.count == 4
        assert source.state() == {"count": 1}


def test_prefetch_goes_on_where_its_state_was_taken() -> None:
    with Prefetch(Counter()) as source:
        for _ in range(5):
            source.next()
        state = source.state()
        assert [number(source) for _ in range(4)] == [5, 6, 7, 8]
        source.restore(state)
        assert source.state() == state
        assert [number(source) for _ in range(4)] == [5, 6, 7, 8]


def test_prefetch_raises_where_the_batch_would_be() -> None:
    counter = Counter(bad=2)
    with Prefetch(counter, depth=3) as source:
        assert [number(source), number(source)] == [0, 1]
        for _ in range(2):
            with pytest.raises(SourceError, match=r"^2.png: damaged$"):
                source.next()
        counter.bad = -1
        source.restore({"count": 7})
        assert number(source) == 7


def test_prefetch_ends_its_thread() -> None:
    counter = Counter()
    before = threading.active_count()
    source = Prefetch(counter)
    assert threading.active_count() == before + 1
    source.close()
    source.close()
    assert threading.active_count() == before
    assert counter.closed
    with pytest.raises(SourceError, match=r"reading 0 batches ahead; needs at least 1"):
        Prefetch(counter, 0)


def test_prefetch_of_a_real_source(voc_dir: Path) -> None:
    expected = seen(voc(settings(voc_dir)), 30)
    with Prefetch(voc(settings(voc_dir)), depth=4) as source:
        assert seen(source, 10) == expected[:10]
        state = source.state()
    with Prefetch(voc(settings(voc_dir), seed=None), depth=4) as source:
        source.restore(state)
        assert seen(source, 20) == expected[10:]


# Labels


def test_labels() -> None:
    labels = Labels(bottom=1, scores=0, classes=21, ignore=255)
    array = np.zeros((1, 1, 40, 20), np.float32)
    array[0, 0, :2] = 255
    array[0, 0, 3] = 20
    check_labels(array, labels, "a.png")
    check_labels(array.astype(np.uint8), labels, "a.png")
    array[0, 0, 30, 12] = 77
    array[0, 0, 31, 2] = 78
    message = (
        r"^label 77 at \(x 12, y 30\) of a.png; the net has 21 classes \(0..20\) and ignores 255$"
    )
    for kind in (np.float32, np.uint8):
        with pytest.raises(SourceError, match=message):
            check_labels(array.astype(kind), labels, "a.png")


@pytest.mark.parametrize("value", [-1, 21, 0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("ignore", [None, 255])
def test_labels_that_are_no_class(value: float, ignore: int | None) -> None:
    labels = Labels(bottom=1, scores=0, classes=21, ignore=ignore)
    array = np.zeros(5, np.float32)
    array[3] = value
    with pytest.raises(SourceError, match=rf"^label {value:g} in sample 3 of blob; the net has 21"):
        check_labels(array, labels, "blob")


def test_labels_that_nothing_ignores() -> None:
    labels = Labels(bottom=1, scores=0, classes=3, ignore=None)
    array = np.zeros((2, 1, 2, 2), np.uint8)
    array[1, 0, 0, 1] = 255
    with pytest.raises(SourceError) as caught:
        check_labels(array, labels, "label")
    assert str(caught.value) == (
        "label 255 at (x 1, y 0) in sample 1 of label; the net has 3 classes (0..2); "
        "loss_param { ignore_label: 255 } skips such pixels"
    )
    with pytest.raises(SourceError, match=r"^label 255 at \(x 1, y 0\) of b.png; "):
        check_labels(array, labels, "label", ("a.png", "b.png"))
    with pytest.raises(SourceError, match=r"^label 3 of line 2; "):
        check_labels(np.array([0, 3]), labels, "label", ("line 1", "line 2"))
    check_labels(
        np.full((1, 2), -1), Labels(bottom=1, scores=0, classes=3, ignore=-1), "negative ignored"
    )


def test_preprocess() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    blob = preprocess(image, (100, 200, 300))
    assert blob.shape == (1, 3, 2, 2)
    np.testing.assert_array_equal(blob[0, :, 1, 0], [8 - 100, 7 - 200, 6 - 300])
