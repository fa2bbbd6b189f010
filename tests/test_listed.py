"""SegmentationData: pairs of files, and what happens to an image and its labels alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST, TRAIN, BlobProto
from netspec.sources import Prefetch, Source, open_source

Bytes = NDArray[np.uint8]
HEIGHT, WIDTH = 9, 12
MEAN = (104.00699, 116.66877, 122.67892)


def opened(settings: str, phase: int = TEST, seed: int | None = 7, more: str = "") -> Source:
    net = parse_net(
        'layer { name: "d" type: "SegmentationData" top: "data" top: "label" '
        f"segmentation_data_param {{ {settings} }} {more} }}",
        "net.prototxt",
    )
    return open_source(net.message.layer[0], phase, seed, net.places[0])


def save(path: str, image: Bytes, palette: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    if palette:
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


def noise(number: int) -> Bytes:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def labels(number: int) -> Bytes:
    return np.full((HEIGHT, WIDTH), number, np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: images i/0.png to i/6.png of noise, and l/0.png, ... of their numbers."""
    monkeypatch.chdir(tmp_path)
    for i in range(7):
        save(f"i/{i}.png", noise(i))
        save(f"l/{i}.png", labels(i), palette=i % 2 == 0)
    write_list(*(f"i/{i}.png l/{i}.png" for i in range(7)))
    return tmp_path


def write_list(*lines: str) -> None:
    Path("list.txt").write_text("\n".join(lines), encoding="utf-8")


LIST = 'source: "list.txt"'


def numbers(source: Source, batches: int) -> list[list[int]]:
    with source:
        return [source.next()["label"][:, 0, -1, -1].astype(int).tolist() for _ in range(batches)]


# Which files


def test_samples_are_those_of_the_voc_layer(folder: Path) -> None:
    """Palette and grey label images; blue, green, red less their means."""
    Path("ImageSets/Segmentation").mkdir(parents=True)
    Path("ImageSets/Segmentation/val.txt").write_text("0\n1\n2\n")
    Path("JPEGImages").symlink_to("i")
    Path("SegmentationClass").symlink_to("l")
    settings = {"voc_dir": ".", "split": "val", "mean": MEAN}
    text = (
        'layer { type: "Python" top: "data" top: "label" python_param { module: "voc_layers" '
        f'layer: "VOCSegDataLayer" param_str: {json.dumps(str(settings))} }} }}'
    )
    voc = open_source(parse_net(text, "net").message.layer[0], TEST, 7, Place("net"))
    means = " ".join(f"mean_value: {value}" for value in MEAN)
    source = opened(f"{LIST} {means}")
    assert source.tops == {"data": (1, 3, HEIGHT, WIDTH), "label": (1, 1, HEIGHT, WIDTH)}
    for i in range(3):
        expected, batch = voc.next(), source.next()
        assert batch.keys() == expected.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, expected[name])
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
        assert source.current == f"l/{i}.png"


def test_list_in_order(folder: Path) -> None:
    source = opened(f"{LIST} batch_size: 3")
    assert source.describe() == "SegmentationData: 7 images of list.txt, in order"
    assert source.batches == 3
    assert source.tops == {"data": (3, 3, HEIGHT, WIDTH), "label": (3, 1, HEIGHT, WIDTH)}
    batch = source.next()
    assert source.current == "the batch that begins with l/0.png"
    pictures = np.stack([noise(i).transpose(2, 0, 1)[::-1] for i in range(3)])
    np.testing.assert_array_equal(batch["data"], pictures)
    assert numbers(source, 2) == [[3, 4, 5], [6, 0, 1]]


def cityscapes() -> None:
    for town in ("aachen", "zurich"):
        for i in range(2):
            number = i + 3 * (town == "zurich")
            save(f"left/{town}/{i}_left.png", noise(number))
            save(f"left/{town}/{i}_right.png", noise(number))
            save(f"fine/{town}/{i}_ids.png", labels(number))


def spaced() -> None:
    save("some where/an image.png", noise(0))
    save("some where/its labels.png", labels(5))
    write_list("", "some where/an image.png\tsome where/its labels.png ", "  ")


def coco() -> None:
    for i in (3, 1, 2):
        Path("jpg").mkdir(exist_ok=True)
        Image.fromarray(noise(i)).save(f"jpg/{i}.jpg")


@pytest.mark.parametrize(
    ("make", "settings", "found"),
    [
        (spaced, LIST, [5]),
        (lambda: write_list("/3.png /../l/3.png"), f'{LIST} root_folder: "i"', [3]),
        (coco, 'image_folder: "jpg" label_folder: "l"', [1, 2, 3]),
        (
            cityscapes,
            'image_folder: "left" image_suffix: "_left.png" '
            'label_folder: "fine" label_suffix: "_ids.png"',
            [0, 1, 3, 4],
        ),
        (
            cityscapes,
            'root_folder: "left/" image_folder: "aachen" image_suffix: "_left.png" '
            'label_folder: "../fine/aachen" label_suffix: "_ids.png"',
            [0, 1],
        ),
    ],
)
def test_files(folder: Path, make: Callable[[], None], settings: str, found: list[int]) -> None:
    make()
    source = opened(settings)
    assert source.batches == len(found)
    assert numbers(source, len(found)) == [[number] for number in found]


def test_files_beside_the_prototxt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'layer { type: "SegmentationData" top: "data" top: "label" '
        f"segmentation_data_param {{ {LIST} }} }}"
    )
    net = parse_net(text, str(folder / "net.prototxt"))
    monkeypatch.chdir("/")
    assert open_source(net.message.layer[0], TEST, 7, net.places[0]).batches == 7


def test_shuffled_anew_each_pass(folder: Path) -> None:
    settings = f"{LIST} shuffle: true batch_size: 7"
    passes = numbers(opened(settings), 3)
    assert all(sorted(one) == [*range(7)] for one in passes)
    assert len({tuple(one) for one in [*passes, [*range(7)]]}) == 4
    assert numbers(opened(settings), 3) == passes
    assert numbers(opened(settings, seed=8), 3) != passes


# What becomes of them


def numbered() -> None:
    """A single image whose pixels are 1, 2, ... in each channel, and labels that are the same."""
    grid = np.arange(1, HEIGHT * WIDTH + 1, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    save("i/0.png", np.stack([grid] * 3, axis=-1))
    save("l/0.png", grid)
    write_list("i/0.png l/0.png")


def samples(settings: str, count: int, phase: int = TRAIN, seed: int = 7) -> NDArray[np.float32]:
    """The labels of a batch (N, H, W) that its images agree with; 0 where there was no image."""
    batch = opened(f"{LIST} batch_size: {count} {settings}", phase, seed).next()
    found = batch["label"][:, 0]
    outside = found == 255
    for channel in range(3):
        np.testing.assert_array_equal(batch["data"][:, channel], np.where(outside, 0, found))
    return np.where(outside, 0, found)


def windows(found: NDArray[np.float32]) -> set[tuple[int, int, bool]]:
    """Top, left and whether mirrored, of samples that lie within the numbered image."""
    flips = found[:, 0, 0] > found[:, 0, -1]
    upright = np.where(flips[:, None, None], found[:, :, ::-1], found)
    top, left = divmod(upright[:, 0, 0].astype(int) - 1, WIDTH)
    steps = np.add.outer(WIDTH * np.arange(found.shape[1]), np.arange(found.shape[2]))
    np.testing.assert_array_equal(upright, upright[:, :1, :1] + steps)
    return set(zip(top.tolist(), left.tolist(), flips.tolist(), strict=True))


EVERYWHERE = {(top, left) for top in range(HEIGHT - 6) for left in range(WIDTH - 9)}


@pytest.mark.parametrize(
    ("settings", "phase", "expected"),
    [
        ("crop_size: 7 crop_size: 10", TRAIN, {(*at, False) for at in EVERYWHERE}),
        (
            "crop_size: 7 crop_size: 10 mirror: true",
            TRAIN,
            {(*at, flips) for at in EVERYWHERE for flips in (False, True)},
        ),
        ("mirror: true", TRAIN, {(0, 0, False), (0, 0, True)}),
        ("", TRAIN, {(0, 0, False)}),
        ("crop_size: 6", TEST, {(1, 3, False)}),
        ("crop_size: 6 mirror: true min_scale: 2 max_scale: 3 contrast: 1", TEST, {(1, 3, False)}),
        ("mirror: true brightness: 1", TEST, {(0, 0, False)}),
    ],
)
def test_windows(
    folder: Path, settings: str, phase: int, expected: set[tuple[int, int, bool]]
) -> None:
    numbered()
    assert windows(samples(settings, 200, phase)) == expected


def test_half_are_mirrored(folder: Path) -> None:
    numbered()
    found = samples("mirror: true", 400)
    assert 160 < (found[:, 0, 0] > 1).sum() < 240


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_outside_is_the_mean_and_ignored(folder: Path, phase: int) -> None:
    """A window larger than the image has all of it, anywhere in TRAIN, in the middle in TEST."""
    numbered()
    whole = samples("", 1)[0]
    places = set()
    for found in samples("crop_size: 11 crop_size: 15 mirror: true", 200, phase):
        (top, *_), (left, *_) = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
        shown = found[top : top + HEIGHT, left : left + WIDTH]
        np.testing.assert_array_equal(shown, whole[:, ::-1] if shown[0, 0] > 1 else whole)
        assert np.count_nonzero(found) == whole.size
        places.add((int(top), int(left)))
    everywhere = {(top, left) for top in range(3) for left in range(4)}
    assert places == (everywhere if phase == TRAIN else {(1, 2)})
    batch = opened(f"{LIST} crop_size: 15 mean_value: 9 scale: 0.5 ignore_label: -1").next()
    outside = batch["label"][0] == -1
    assert outside.sum() == 15 * 15 - HEIGHT * WIDTH
    assert not batch["data"][0, :, outside[0]].any()
    np.testing.assert_array_equal(batch["data"][0, 0], ((batch["label"] - 9) / 2 * ~outside)[0, 0])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("scale", "most"), [("4", 0), ("2", 0.5), ("1.3", 1), ("0.5", 1)])
def test_scaled_images_and_labels_lie_upon_each_other(
    folder: Path, scale: str, most: float, axis: int
) -> None:
    """Along a ramp, what is between two pixels rounds to the nearer one's number."""
    ramp = np.arange(20, 60, dtype=np.uint8) * np.ones((40, 1), np.uint8)
    ramp = ramp if axis else ramp.T.copy()
    save("i/0.png", np.stack([ramp] * 3, axis=-1))
    save("l/0.png", ramp)
    write_list("i/0.png l/0.png")
    settings = f"min_scale: {scale} max_scale: {scale} crop_size: 50 mirror: true batch_size: 30"
    batch = opened(f"{LIST} {settings}", TRAIN).next()
    inside = batch["label"][:, 0] != 255
    apart = np.abs(batch["data"][:, 0] - batch["label"][:, 0])[inside]
    assert apart.max() <= np.ceil(most)
    # Not a part of a pixel is lost to one side.
    assert abs((batch["data"][:, 0] - batch["label"][:, 0])[inside].mean()) <= most
    size = min(50, round(40 * float(scale)))
    assert (inside.sum(axis=(1, 2)) == size**2).all()


def test_scaled_labels_are_no_others(folder: Path) -> None:
    save("l/0.png", np.where(noise(0)[:, :, 0] < 128, 3, 9).astype(np.uint8))
    write_list("i/0.png l/0.png")
    settings = "crop_size: 20 min_scale: 0.5 max_scale: 2 batch_size: 20"
    assert {*np.unique(opened(f"{LIST} {settings}", TRAIN).next()["label"])} == {3, 9, 255}


def test_scales_are_drawn_between_least_and_most(folder: Path) -> None:
    numbered()
    settings = "crop_size: 40 min_scale: 0.5 max_scale: 3 batch_size: 300"
    batch = opened(f"{LIST} {settings}", TRAIN).next()
    inside = (batch["label"][:, 0] != 255).any(axis=2).sum(axis=1)
    assert inside.min() in (4, 5)
    assert inside.max() in (26, 27)
    assert len(set(inside.tolist())) > 20


GREY = np.full((4, 5, 3), 100, np.uint8)
RED = np.full((4, 5, 3), (200, 100, 100), np.uint8)


@pytest.mark.parametrize(
    ("image", "settings", "least", "most"),
    [
        (GREY, "brightness: 0.5", 50, 150),
        (GREY, "contrast: 1 saturation: 1", 100, 100),
        (RED, "saturation: 0.5", 85, 115),
        (RED, "brightness: 1", 0, 200),
    ],
)
def test_colours(folder: Path, image: Bytes, settings: str, least: int, most: int) -> None:
    """Of blue; labels stay as they are."""
    save("i/0.png", image)
    save("l/0.png", np.full((4, 5), 3, np.uint8))
    write_list("i/0.png l/0.png")
    batch = opened(f"{LIST} {settings} batch_size: 200", TRAIN).next()
    assert (batch["label"] == 3).all()
    blue = batch["data"][:, 0]
    assert (blue == blue[:, :1, :1]).all()
    span = 0.05 * (most - least) + 1
    assert least - 1 <= blue.min() <= least + span
    assert most - span <= blue.max() <= most + 1


def test_contrast_moves_away_from_the_mean(folder: Path) -> None:
    image = np.full((4, 6, 3), 60, np.uint8)
    image[:, 3:] = 140
    save("i/0.png", image)
    save("l/0.png", np.zeros((4, 6), np.uint8))
    write_list("i/0.png l/0.png")
    data = opened(f"{LIST} contrast: 0.5 batch_size: 99", TRAIN).next()["data"]
    apart = data[:, 0, 0, 5] - data[:, 0, 0, 0]
    assert 38 <= apart.min() < 50 < 110 < apart.max() <= 122
    assert np.abs(data[:, 0, 0, 5] + data[:, 0, 0, 0] - 200).max() <= 2


@pytest.mark.parametrize(
    ("settings", "means"),
    [
        ("mean_value: 3.5", (3.5, 3.5, 3.5)),
        ("mean_value: 3.5 mean_value: 100 mean_value: 7", (3.5, 100, 7)),
        ('mean_file: "mean"', (10, 20, 40)),
    ],
)
def test_means(folder: Path, settings: str, means: tuple[float, ...]) -> None:
    values = [9.0, 11.0, 20.0, 20.0, 30.0, 50.0]
    blob = BlobProto(num=1, channels=3, height=1, width=2, data=values)
    Path("mean").write_bytes(blob.SerializeToString())
    data = opened(f"{LIST} {settings} scale: 0.5").next()["data"][0]
    expected = noise(0).transpose(2, 0, 1)[::-1] - np.reshape(means, (3, 1, 1))
    np.testing.assert_array_equal(data, expected.astype(np.float32) * np.float32(0.5))


# Chance, and going on

CHANCE = (
    f"{LIST} shuffle: true mirror: true min_scale: 0.5 max_scale: 2 crop_size: 5 crop_size: 8 "
    "brightness: 0.3 contrast: 0.3 saturation: 0.3"
)


def stream(source: Source, batches: int) -> NDArray[np.float32]:
    with source:
        made = [source.next() for _ in range(batches)]
    return np.concatenate([np.concatenate([b["data"], b["label"]], axis=1) for b in made])


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 4])
def test_chance_is_the_seeds_and_the_samples(folder: Path, size: int, workers: int) -> None:
    expected = stream(opened(CHANCE, TRAIN), 32)
    source = opened(f"{CHANCE} batch_size: {size}", TRAIN)
    found = stream(Prefetch(source, 6, workers), 32 // size)
    np.testing.assert_array_equal(found, expected)
    other = stream(opened(CHANCE, TRAIN, seed=8), 32)
    assert not np.array_equal(other, expected)
    # Passes differ.
    assert not np.array_equal(np.sort(expected[:7], axis=0), np.sort(expected[7:14], axis=0))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_goes_on_where_its_state_was_taken(folder: Path, taken: int, ahead: bool) -> None:
    def start() -> Source:
        source = opened(f"{CHANCE} batch_size: 2", TRAIN, seed=None)
        return Prefetch(source, 3) if ahead else source

    with start() as source, start() as other:
        for _ in range(taken):
            source.next()
        state = json.loads(json.dumps(source.state()))
        other.next()
        other.restore(state)
        assert other.tops == source.tops
        np.testing.assert_array_equal(stream(other, 6), stream(source, 6))


def test_states_of_other_data(folder: Path) -> None:
    state = opened(LIST).state()
    write_list("i/0.png l/0.png")
    with pytest.raises(SourceError, match=r"the state is of 7 images, but list.txt has 1"):
        opened(LIST).restore(state)
    with pytest.raises(SourceError, match=r"the state is another source's"):
        opened(LIST).restore({"position": 1})


# What cannot work


def refused(settings: str, **more: Any) -> str:
    with pytest.raises(SourceError) as caught:
        opened(settings, **more)
    start = 'net.prototxt:1: layer "d" (SegmentationData): '
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


EITHER = "give either source, a list of images and labels, or image_folder and label_folder"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", EITHER),
        (f'{LIST} image_folder: "i" label_folder: "l"', EITHER),
        ('image_folder: "i"', EITHER),
        (f'{LIST} label_folder: "l"', EITHER),
        (f"{LIST} batch_size: 0", "batch_size is 0; must be positive"),
        (
            f"{LIST} mean_value: 1 mean_value: 2",
            "2 mean_value; give one, or three: blue, green, red",
        ),
        (
            f'{LIST} mean_value: 1 mean_file: "mean"',
            "mean_value and mean_file exclude each other",
        ),
        (f'{LIST} mean_file: "nil"', "mean_file: nil: no such file"),
        (f'{LIST} mean_file: "grey"', "mean_file: grey: 1 channel; 3 expected"),
        (
            f"{LIST} crop_size: 3 crop_size: 0",
            "crop_size 3 0; give height and width, or one for both, both positive",
        ),
        (
            f"{LIST} crop_size: 1 crop_size: 2 crop_size: 3",
            "crop_size 1 2 3; give height and width, or one for both, both positive",
        ),
        (
            f"{LIST} crop_size: 5 min_scale: 2",
            "min_scale 2 and max_scale 1; needed is 0 < min_scale <= max_scale",
        ),
        (
            f"{LIST} crop_size: 5 min_scale: 0",
            "min_scale 0 and max_scale 1; needed is 0 < min_scale <= max_scale",
        ),
        (
            f"{LIST} max_scale: 2",
            "min_scale and max_scale need crop_size: else every sample has a size of its own",
        ),
        (f"{LIST} contrast: 1.5", "contrast 1.5; must be from 0 to 1"),
        (f"{LIST} saturation: -0.5", "saturation -0.5; must be from 0 to 1"),
        ('source: "nil.txt"', "source: nil.txt: no such file"),
        (
            'source: "i/0.png"',
            "i/0.png: not a text file; source lists images and labels, a path of each on a line",
        ),
        ('source: "empty"', "empty: lists no images"),
        (
            'source: "three"',
            'three:2: "an image.png l/0.png": 3 paths; a line is an image and its labels, '
            "with a tab between them if a path has spaces",
        ),
        ('source: "gone"', "gone lacks 1 of its 4 files: l/9.png"),
        (
            'source: "slash" root_folder: "i"',
            'i0.png: no such file; root_folder "i" lacks a "/" at its end',
        ),
        ('source: "sizes"', "l/big.png: 4x3, but its image is 12x9"),
        (
            'source: "colours"',
            "i/1.png: RGB label image; class indices expected (an 8-bit palette or grey PNG; "
            "programs that save colors lose the indices)",
        ),
        ('image_folder: "nil" label_folder: "l"', 'image_folder "nil": no such folder'),
        ('image_folder: "i" label_folder: "nil"', 'label_folder "nil": no such folder'),
        (
            'image_folder: "i" label_folder: "l"',
            'image_folder "i": no file in it ends in ".jpg"; image_suffix says how images end',
        ),
        (
            'image_folder: "i" label_folder: "l" image_suffix: "6.png"',
            'label_folder "l", with label_suffix ".png", lacks 1 of its 1 file: l/.png',
        ),
    ],
)
def test_settings_that_cannot_work(folder: Path, settings: str, message: str) -> None:
    grey = BlobProto(num=1, channels=1, height=1, width=1, data=[1.0])
    Path("grey").write_bytes(grey.SerializeToString())
    Path("empty").write_text("\n \n")
    Path("three").write_text("i/0.png l/0.png\nan image.png l/0.png")
    Path("gone").write_text("i/0.png l/0.png\ni/1.png l/9.png")
    Path("slash").write_text("0.png 0.png")
    save("l/big.png", np.zeros((3, 4), np.uint8))
    Path("sizes").write_text("i/0.png l/big.png")
    Path("colours").write_text("i/0.png i/1.png")
    assert refused(settings) == message


def test_transform_param_is_of_other_layers(folder: Path) -> None:
    assert refused(LIST, more="transform_param { mirror: true }") == (
        "transform_param has no effect here; write what it says in segmentation_data_param"
    )


def test_sizes_of_a_batch(folder: Path) -> None:
    save("i/1.png", np.zeros((3, 4, 3), np.uint8))
    save("l/1.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(SourceError) as caught:
        opened(f"{LIST} batch_size: 2").next()
    assert str(caught.value) == (
        'net.prototxt:1: layer "d" (SegmentationData): i/1.png: 4x3, but the batch that it is in '
        "began with 12x9; crop_size or batch_size: 1 allows several sizes"
    )
    source = opened(LIST)
    source.next()
    assert source.tops["data"] == (1, 3, 3, 4)
    assert opened(f"{LIST} batch_size: 2 crop_size: 6").next()["data"].shape == (2, 3, 6, 6)
