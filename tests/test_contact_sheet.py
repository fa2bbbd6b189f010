"""Contact sheets: what a net gets becomes the picture that it was made of."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import NetSpecError
from netspec.formats.palette import colour_map
from netspec.inspect.contact_sheet import (
    Card,
    Thumbnail,
    card,
    sheet,
    thumbnail,
    visible,
    words,
    write,
)
from netspec.inspect.look import look_at
from netspec.sources.show import ShownSample, samples

FILES = Path(__file__).parent / "golden" / "data" / "files"
HEIGHT, WIDTH = 20, 26
COLOURS = colour_map()


# The sheet


def numbers(*values: float) -> NDArray[np.float32]:
    """A grey image of one row, and another like it."""
    return np.array([[values, values]], np.float32)


@pytest.mark.parametrize(
    ("values", "shown", "note"),
    [
        ((0, 7, 255), (0, 7, 255), ""),
        ((-0.4, 7.4, 255.4), (0, 7, 255), ""),
        ((0, 1, 1), (0, 1, 1), ""),
        ((0, 0.2, 1), (0, 51, 255), "0 to 1, shown 255 times"),
        ((-1, 0, 1), (0, 128, 255), "-1 to 1, stretched"),
        ((0, 510, 1020), (0, 128, 255), "0 to 1020, stretched"),
        ((-3, -3, -3), (0, 0, 0), "-3 to -3, stretched"),
        ((9, np.nan, np.inf), (9, 0, 0), "4 numbers are not finite"),
        ((-1, np.nan, 1), (0, 128, 255), "2 numbers are not finite, -1 to 1, stretched"),
    ],
)
def test_numbers_become_grey_levels(
    values: tuple[float, ...], shown: tuple[int, ...], note: str
) -> None:
    found, said = visible(numbers(*values))
    assert found.dtype == np.uint8
    assert found[0, 1].tolist() == list(shown)
    assert said == note


def test_images_are_shown_in_their_colours() -> None:
    """Blue, green, red; the mean is not seen."""
    image = np.arange(4 * 2 * 3, dtype=np.float32).reshape(4, 2, 3)
    for channels, order in ((1, [0, 0, 0]), (3, [2, 1, 0]), (4, [2, 1, 0])):
        made = thumbnail("data", image[:channels])
        assert made is not None
        np.testing.assert_array_equal(made.pixels, image[order].transpose(1, 2, 0))
        assert made.lines == ("data 3x2, grey" if channels == 1 else "data 3x2",)
        assert made.classes == ()
    made = thumbnail("data", image[:3] - 100, pixels=image[:3])
    assert made is not None
    np.testing.assert_array_equal(made.pixels, image[[2, 1, 0]].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("values", "ignore", "shown", "said", "classes"),
    [
        ((0, 3, 15), None, (0, 3, 15), "classes 0 3 15", [(0, False), (3, False), (15, False)]),
        ((3, 3, 255), 255, (3, 3, 255), "class 3, 255 ignored", [(3, False), (255, True)]),
        ((3, 3, 255), None, (3, 3, 255), "classes 3 255", [(3, False), (255, False)]),
        ((-1, -1, 2), -1, (255, 255, 2), "class 2, -1 ignored", [(2, False), (-1, True)]),
        ((0, 0, 0), 0, (255, 255, 255), "0 ignored", [(0, True)]),
        (range(20), 30, range(20), "20 classes in 0..19", [(i, False) for i in range(20)]),
    ],
)
def test_labels_are_shown_in_the_palette(
    values: Any, ignore: int | None, shown: Any, said: str, classes: list[tuple[int, bool]]
) -> None:
    for image in (numbers(*values), numbers(*values)[0]):
        made = thumbnail("label", image, classes=True, ignore=ignore)
        assert made is not None
        np.testing.assert_array_equal(made.pixels, COLOURS[[list(shown)] * 2])
        assert made.lines == (f"label {len(values)}x2", said)
        assert list(made.classes) == classes


@pytest.mark.parametrize("values", [(0, 0.5), (0, 256), (-1, 3), (0, np.nan)])
def test_labels_that_are_none(values: tuple[float, ...]) -> None:
    made = thumbnail("label", numbers(*values), classes=True, ignore=255)
    assert made is not None
    assert made.lines[-1] == "not all are class indices in 0..255"
    assert made.classes == ()


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 5, 7), (3, 1, 7), (3, 7, 1), (1, 3, 5, 7)])
def test_what_is_no_image(shape: tuple[int, ...]) -> None:
    assert thumbnail("feature", np.zeros(shape, np.float32)) is None


def test_words() -> None:
    assert words("label", np.array(3, np.float32)) == "label 3"
    assert words("box", np.array([[1, 2.5], [3, -4]], np.float32)) == "box 1 2.5 3 -4"
    many = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4)
    assert words("feature", many) == "feature 3x4: -1 to 2"


def test_a_card_has_pictures_and_words() -> None:
    image = numbers(1, 2)
    made = card(
        ["a.png", "", "a.png", "b.png"],
        [("data", image, None, False, None), ("label", np.array(3, np.float32), None, True, None)],
    )
    assert made.names == ("a.png", "b.png")
    assert [each.lines[0] for each in made.thumbnails] == ["data 2x2, grey"]
    assert made.lines == ("label 3",)


def plain(colour: tuple[int, int, int], height: int, width: int) -> Thumbnail:
    pixels = np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))
    return Thumbnail(np.ascontiguousarray(pixels), (f"{width}x{height}",))


def area(canvas: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    """Width and height of what has a colour, which fills its rectangle."""
    found = (np.asarray(canvas) == colour).all(2)
    ys, xs = found.any(1).sum(), found.any(0).sum()
    assert found.sum() == xs * ys
    return int(xs), int(ys)


def test_small_pictures_are_enlarged_by_whole_numbers_and_large_ones_reduced() -> None:
    sizes = {(90, 1, 2): (20, 28), (91, 1, 2): (300, 200), (92, 1, 2): (250, 1000)}
    cards = [Card(("a",), (plain(colour, *size),)) for colour, size in sizes.items()]
    canvas = sheet("heading", cards)
    assert [area(canvas, colour) for colour in sizes] == [(252, 180), (200, 300), (320, 80)]


def test_classes_are_not_mixed_when_reduced() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (1, 700, 900)).astype(np.float32) * 3
    made = thumbnail("label", labels, classes=True)
    assert made is not None
    canvas = np.asarray(sheet("", [Card((), (made,))]))
    green_only = (canvas[:, :, 1] == 128) & (canvas[:, :, 0] == 0) & (canvas[:, :, 2] == 0)
    olive = (canvas == COLOURS[3]).all(2)
    assert not green_only.any()
    assert olive.sum() > 0.4 * 320 * 249


def test_all_cards_and_colours_are_on_the_sheet() -> None:
    cards = [Card((f"{i}",), (plain((100 + i, 5, 6), 40, 30),)) for i in range(13)]
    label = thumbnail("label", numbers(1, 2, 255), classes=True, ignore=255)
    assert label is not None
    canvas = sheet("heading", [*cards, Card(("labels",), (label,), ("words",))])
    for i in range(13):
        assert area(canvas, (100 + i, 5, 6)) == (180, 240)
    assert canvas.width <= 1600
    # In the picture and in the key below it.
    below = np.asarray(canvas)[-30:].reshape(-1, 3)
    for value in (1, 2, 255):
        assert (below == COLOURS[value]).all(1).any()


def test_long_names_keep_their_ends() -> None:
    """A name is as wide as its card, whatever its length."""
    short, long = (
        sheet("", [Card((name,), (plain((1, 2, 3), 100, 100),))])
        for name in ("a.png", f"{'folder/' * 50}a.png")
    )
    assert short.size == long.size


def test_what_cannot_be_written(tmp_path: Path) -> None:
    cards = [Card((), (plain((1, 2, 3), 10, 10),))]
    (tmp_path / "file").touch()
    with pytest.raises(NetSpecError, match=r"^a.pdf: the name of a contact sheet ends in .png or"):
        write("a.pdf", "", cards)
    with pytest.raises(NetSpecError, match=r"file/a.png: not a directory$"):
        write(tmp_path / "file" / "a.png", "", cards)
    with pytest.raises(NetSpecError, match=r"^no samples to show$"):
        write(tmp_path / "a.png", "", [])
    with pytest.raises(
        NetSpecError, match=r"^9999 samples: a sheet of .* is too large; show fewer"
    ):
        write(tmp_path / "a.png", "", cards * 9999)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.jpeg", "JPEG")):
        write(tmp_path / name, "heading", cards)
        with Image.open(tmp_path / name) as image:
            assert image.format == kind


# What a net gets


def shown(
    folder: Path, text: str, count: int, phase: str = "train"
) -> list[tuple[ShownSample, ...]]:
    (folder / "net.prototxt").write_text(text)
    return list(samples(look_at(folder / "net.prototxt", phase), count, seed=5))


def pixels_of(sample: tuple[ShownSample, ...], top: str) -> NDArray[np.float32]:
    (piece,) = (piece for layer in sample for piece in layer.tops if piece.top == top)
    assert piece.pixels is not None
    return piece.pixels


def stored(path: Path) -> NDArray[np.uint8]:
    """An image file as (3, H, W) of blue, green, red."""
    return np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1].transpose(2, 0, 1)


MEANS = "mean_value: 104 mean_value: 117 mean_value: 123"
IMAGES = f"""image_data_param {{ source: "{FILES}/list.txt" root_folder: "{FILES}/imgs/"
  shuffle: true batch_size: 3 }}"""
DATABASE = f'data_param {{ source: "{FILES}/db_lmdb" backend: LMDB batch_size: 3 }}'


@pytest.mark.parametrize("kind", ["ImageData", "Data"])
@pytest.mark.parametrize(
    ("transform", "size"),
    [
        ("", (HEIGHT, WIDTH)),
        (f"{MEANS} scale: 0.5", (HEIGHT, WIDTH)),
        (f'mean_file: "{FILES}/mean.binaryproto" crop_size: 17 mirror: true scale: 0.01', (17, 17)),
    ],
)
def test_images_less_a_mean(
    kind: str, transform: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Each becomes what was cut out of its file, which is named; over the end of the batches."""
    net = f"""layer {{ name: "data" type: "{kind}" top: "data" top: "label"
      transform_param {{ {transform} }} {DATABASE if kind == "Data" else IMAGES} }}"""
    labels = dict(line.split() for line in (FILES / "list.txt").read_text().splitlines())
    found = shown(tmp_path, net, 8)
    assert len(found) == 8
    for sample in found:
        (layer,) = sample
        name = layer.name.removesuffix('"')[-7:]
        assert int(layer.tops[1].values) == int(labels[name])
        made, file = pixels_of(sample, "data"), stored(FILES / "imgs" / name)
        np.testing.assert_allclose(made, np.rint(made), atol=2e-3)
        cuts = [
            cut[:, y : y + size[0], x : x + size[1]]
            for cut in (file, file[:, :, ::-1])
            for y in range(HEIGHT - size[0] + 1)
            for x in range(WIDTH - size[1] + 1)
        ]
        assert any(np.array_equal(np.rint(made), cut) for cut in cuts)
    names = [layer.name for (layer,) in found]
    assert len(set(names[:7])) == 7


@pytest.mark.parametrize("mean", [MEANS, f'mean_file: "{FILES}/mean.binaryproto"'])
def test_windows(mean: str, tmp_path: Path) -> None:
    """Whole images, as windows; nobody says which file one is from."""
    (tmp_path / "windows.txt").write_text(
        "".join(
            f"# {i}\n{FILES}/imgs/im{i}.png\n3\n{HEIGHT}\n{WIDTH}\n1\n{i + 1} 0.9 0 0 14 14\n"
            for i in range(3)
        )
    )
    net = f"""layer {{ name: "data" type: "WindowData" top: "data" top: "label"
      transform_param {{ {mean} crop_size: 15 scale: 0.5 }}
      window_data_param {{ source: "{tmp_path}/windows.txt" batch_size: 2 fg_fraction: 1 }} }}"""
    for sample in shown(tmp_path, net, 4):
        label = int(sample[0].tops[1].values)
        file = stored(FILES / "imgs" / f"im{label - 1}.png")
        np.testing.assert_allclose(pixels_of(sample, "data"), file[:, :15, :15], atol=1e-3)


def picture(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(1, 256, (5, 7, 3), np.uint8)


def save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mat":
        name = "segmentation" if "nyud" in path.parts else "S"
        scipy.io.savemat(path, {name: array.astype(np.uint16)})
    else:
        Image.fromarray(array).save(path)


SIFT = "spatial_envelope_256x256_static_8outdoorcategories"
SETS: dict[str, tuple[str, list[str], list[str]]] = {
    # The module and layer and its settings; its tops; the files of the sample "a".
    "voc": (
        'module: "voc_layers" layer: "VOCSegDataLayer" param_str: "{\'voc_dir\': \'voc\', '
        "'split': 'val', 'mean': (104.5, 117, 123)}\"",
        ["data", "label"],
        ["JPEGImages/a.png", "SegmentationClass/a.png"],
    ),
    "nyud": (
        'module: "nyud_layers" layer: "NYUDSegDataLayer" param_str: "{\'nyud_dir\': \'nyud\', '
        "'split': 'val', 'tops': ['color', 'hha', 'label']}\"",
        ["data", "hha", "label"],
        ["data/images/img_a.png", "data/hha/img_a.png", "segmentation/img_a.mat"],
    ),
    "sift": (
        'module: "siftflow_layers" layer: "SIFTFlowSegDataLayer" '
        "param_str: \"{'siftflow_dir': 'sift', 'split': 'val'}\"",
        ["data", "sem", "geo"],
        [f"Images/{SIFT}/a.jpg", f"SemanticLabels/{SIFT}/a.mat", f"GeoLabels/{SIFT}/a.mat"],
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_sets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images as in their files; labels are known for what they are without a loss."""
    monkeypatch.chdir(tmp_path)
    param, tops, files = SETS[name]
    labels = np.arange(1, 36, dtype=np.uint8).reshape(5, 7) % 3 + 1
    for i, file in enumerate(files):
        is_image = file.endswith(".jpg") or any(f in file for f in ("Images", "images", "hha"))
        save(Path(name) / file, picture(i) if is_image else labels)
    for place in (f"{name}/ImageSets/Segmentation/val.txt", f"{name}/val.txt"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text("a\n")
    named = " ".join(f'top: "{top}"' for top in tops)
    net = f'layer {{ name: "data" type: "Python" {named} python_param {{ {param} }} }}'
    (sample,) = shown(tmp_path, net, 1)
    (layer,) = sample
    assert layer.name.startswith(f"{name}/")
    for piece, file in zip(layer.tops, files, strict=True):
        if piece.classes:
            assert piece.ignore == 255
            np.testing.assert_array_equal(piece.values[0] + (name != "voc"), labels)
        else:
            made = pixels_of(sample, piece.top)
            np.testing.assert_allclose(made, stored(Path(name) / file), atol=1e-4)
    assert [piece.classes for piece in layer.tops] == [
        top in ("label", "sem", "geo") for top in tops
    ]


def test_rows_of_hdf5(tmp_path: Path) -> None:
    """A file of any numbers: the loss says what labels are, and what is ignored there."""
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = random.normal(size=(3, 3, 5, 7))
        file["label"] = random.integers(0, 2, (3, 1, 5, 7))
        file["other"] = np.arange(3)
    (tmp_path / "list.txt").write_text("a.h5\n")
    net = f"""layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" top: "other"
      hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 2 }} }}
    layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "loss"
      loss_param {{ ignore_label: -7 }} }}"""
    found = shown(tmp_path, net, 4)
    assert [int(layer.tops[2].values) for (layer,) in found] == [0, 1, 2, 0]
    for (layer,) in found:
        data, label, other = layer.tops
        assert layer.name == f"{tmp_path}/a.h5"
        assert (data.pixels, label.pixels, other.pixels) == (None, None, None)
        assert (data.classes, label.classes, other.classes) == (False, True, False)
        assert label.ignore == -7
        assert (data.values.shape, other.values.shape) == ((3, 5, 7), ())


def test_pairs_of_files(tmp_path: Path) -> None:
    """Also where the layer has a message of its own for the mean, and no loss reads its labels."""
    labels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    save(tmp_path / "a.png", picture(1))
    save(tmp_path / "labels.png", labels)
    (tmp_path / "list.txt").write_text("a.png labels.png\n")
    net = f"""layer {{ name: "data" type: "SegmentationData" top: "data" top: "label"
      segmentation_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/"
        {MEANS} scale: 0.5 ignore_label: 34 }} }}"""
    (sample,) = shown(tmp_path, net, 1)
    (layer,) = sample
    np.testing.assert_allclose(pixels_of(sample, "data"), stored(tmp_path / "a.png"), atol=1e-4)
    assert layer.tops[1][3:] == (True, 34)
    assert layer.name.endswith("labels.png")


def test_layers_side_by_side(tmp_path: Path) -> None:
    """The samples of all data layers of a phase, whatever the batches of each are."""
    net = f"""layer {{ name: "images" type: "Data" top: "data" {DATABASE} }}
    layer {{ name: "labels" type: "Data" top: "label"
      data_param {{ source: "{FILES}/db_gray" backend: LMDB batch_size: 2 }}
      include {{ phase: TRAIN }} }}
    layer {{ name: "noise" type: "DummyData" top: "noise" include {{ phase: TEST }}
      dummy_data_param {{ shape {{ dim: 5 }} }} }}"""
    for sample in shown(tmp_path, net, 4):
        images, labels = (layer.name.rsplit("/", 1)[-1] for layer in sample)
        assert images.replace("db_lmdb", "db_gray") == labels
    (*_, sample) = shown(tmp_path, net, 2, "test")
    assert [layer.name != "" for layer in sample] == [True, False]
    assert sample[1].tops[0].values == 0


INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 } } }'


@pytest.mark.parametrize(
    ("net", "count", "message"),
    [
        (INPUT, 1, r"net.prototxt: has no data layers in this phase; the caller hands in x$"),
        ("", 1, r"net.prototxt: has no data layers in this phase$"),
        (INPUT, 0, r"^0 samples; at least 1 is needed$"),
        (
            'layer { name: "d" type: "Data" top: "x" data_param { source: "no" batch_size: 2 } }',
            1,
            r'net.prototxt:1: layer "d" \(Data\): source: no: no such folder$',
        ),
    ],
)
def test_nets_without_data(net: str, count: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(NetSpecError, match=message):
        shown(tmp_path, net, count)
