"""SegmentationData: what happens to an image and its labels alike."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pair_lists import HEIGHT, LIST, WIDTH, Bytes, noise, opened, save, write_list
from pair_lists import folder as folder

from netspec.proto.layers_pb2 import TEST, TRAIN, BlobProto


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
