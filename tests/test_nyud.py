"""NYUDv2 in a tiny folder of its true layout."""

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from set_folders import (
    HEIGHT,
    NYUD_NAMES,
    WIDTH,
    depth_of,
    fed,
    grid,
    picture,
    refused,
    write,
    write_list,
    write_mat,
)
from set_folders import nyud as nyud


def bgr(image: NDArray[np.uint8], mean: tuple[float, float, float]) -> NDArray[np.float32]:
    """What the published layers make of a photograph, in single precision."""
    blob = image[:, :, ::-1].astype(np.float32)
    blob -= np.array(mean, np.float32)
    return blob.transpose(2, 0, 1)


NYUD = "nyud_layers.NYUDSegDataLayer"


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
        "segmentation/img_5003.mat: label 300 at (x 1, y 0); classes are 1..255, 0 none"
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
