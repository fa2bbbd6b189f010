"""SegmentationData: which pairs of files, and in what order."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pair_lists import HEIGHT, LIST, WIDTH, labels, noise, opened, save, write_list
from pair_lists import folder as folder
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST, TRAIN, BlobProto
from netspec.sources import Prefetch, Source, open_source

MEAN = (104.00699, 116.66877, 122.67892)


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
