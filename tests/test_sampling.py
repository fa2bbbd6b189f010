"""Data and ImageData: what is random in them, and how they go on from a state."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from image_sources import FILES, LMDB_, data, datum, images, labels_of, noise, write_lmdb
from image_sources import _among_the_files as _among_the_files

from netspec.errors import SourceError
from netspec.proto.layers_pb2 import TEST, TRAIN, BlobProto
from netspec.sources import Prefetch, Source
from netspec.sources.sampling import Passes

# What is random


def windows(source: Source, count: int) -> list[tuple[int, int, bool]]:
    """Where each image of a batch was cut from, by its size, and whether it was mirrored.

    The images: pixel (y, x) holds 16 y + x.
    """
    found = []
    with source:
        for _ in range(count // source.tops["data"][0]):
            for image in source.next()["data"][:, 0].astype(int):
                flips = image.shape[1] > 1 and bool(image[0, 0] > image[0, 1])
                corner = image[0, -1 if flips else 0]
                found.append((*divmod(int(corner), 16), flips))
    return found


@pytest.fixture
def ramp(tmp_path: Path) -> str:
    """The settings of a database of five images (1, 9, 12) whose pixels tell where they were."""
    image = (16 * np.arange(9)[:, None] + np.arange(12)).astype(np.uint8)[None]
    return write_lmdb(tmp_path / "ramp", *[datum(image)] * 5)


def test_training_crops_anywhere_testing_in_the_middle(ramp: str) -> None:
    found = windows(data(f"{ramp} batch_size: 10", "crop_size: 6", phase=TRAIN), 400)
    assert {place[:2] for place in found} == {(y, x) for y in range(4) for x in range(7)}
    assert not any(flips for *_, flips in found)
    assert set(windows(data(f"{ramp} batch_size: 10", "crop_size: 6"), 50)) == {(1, 3, False)}
    # No room to move.
    found = windows(data(f"{ramp} batch_size: 10", "crop_size: 9", phase=TRAIN), 100)
    assert {place[:2] for place in found} == {(0, x) for x in range(4)}


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_half_of_the_images_are_mirrored_in_both_phases(ramp: str, phase: int) -> None:
    found = windows(data(f"{ramp} batch_size: 10", "mirror: true", phase=phase), 400)
    assert {place[:2] for place in found} == {(0, 0)}
    assert 160 < sum(flips for *_, flips in found) < 240


def test_the_mean_is_cropped_and_mirrored_like_the_image(ramp: str, tmp_path: Path) -> None:
    image = (16 * np.arange(9)[:, None] + np.arange(12)).astype(np.float32)
    blob = BlobProto(num=1, channels=1, height=9, width=12, data=image.ravel().tolist())
    (tmp_path / "mean").write_bytes(blob.SerializeToString())
    transform = f'crop_size: 6 mirror: true mean_file: "{tmp_path}/mean" scale: 3'
    with data(f"{ramp} batch_size: 50", transform, phase=TRAIN) as source:
        assert not source.next()["data"].any()


def test_randomness_is_the_seeds_and_the_samples(ramp: str) -> None:
    def drawn(size: int, seed: int | None, source: str = ramp) -> list[tuple[int, int, bool]]:
        settings = f"{source} batch_size: {size}"
        opened = data(settings, "crop_size: 6 mirror: true", phase=TRAIN, seed=seed)
        return windows(Prefetch(opened, 3), 60)

    assert drawn(1, 7) == drawn(5, 7) == drawn(60, 7)
    assert drawn(5, 7) != drawn(5, 8)
    assert drawn(5, None) != drawn(5, None)
    # Passes differ.
    assert drawn(5, 7)[:5] != drawn(5, 7)[5:10]


def numbered(folder: Path, count: int) -> str:
    """Settings of a list of one image with labels 0, 1, ...."""
    path = folder / "numbered"
    path.write_text("".join(f"{FILES}/imgs/im0.png {i}\n" for i in range(count)))
    return f'source: "{path}"'


def test_shuffled_anew_each_pass(tmp_path: Path) -> None:
    settings = numbered(tmp_path, 9) + " shuffle: true batch_size: 9"
    passes = labels_of(images(settings), 4)
    assert all(sorted(one) == list(range(9)) for one in passes)
    assert all(one != other for one, other in pairwise([[*range(9)], *passes]))
    assert labels_of(images(settings), 4) == passes
    assert labels_of(images(settings, seed=8), 4) != passes


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_skipped_samples_come_in_the_second_pass(tmp_path: Path, shuffle: str) -> None:
    settings = f"{numbered(tmp_path, 6)} shuffle: {shuffle} batch_size: 18"
    begins = set()
    for seed in range(30):
        (whole,) = labels_of(images(f"{settings} rand_skip: 1", seed=seed), 1)
        (labels,) = labels_of(images(f"{settings} rand_skip: 6", seed=seed), 1)
        begins.add(next(skip for skip in range(7) if labels[: 18 - skip] == whole[skip:]))
    assert begins == set(range(6))


def test_passes_without_a_seed_are_in_turn() -> None:
    order = Passes(3, None, skip=2)
    assert [order.index(i) for i in range(5)] == [2, 0, 1, 2, 0]


# Going on

RESUMED = {
    "lmdb": lambda: data(f"{LMDB_}", "crop_size: 5 mirror: true", phase=TRAIN, seed=None),
    "leveldb": lambda: data(
        'source: "db_leveldb" batch_size: 3', "mirror: true", phase=TRAIN, seed=None
    ),
    "images": lambda: images(
        'source: "list_full.txt" shuffle: true rand_skip: 6 batch_size: 3',
        "crop_size: 5 mirror: true",
        phase=TRAIN,
        seed=None,
    ),
}


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 2, 7])
@pytest.mark.parametrize("name", RESUMED)
def test_goes_on_where_its_state_was_taken(name: str, taken: int, ahead: bool) -> None:
    if name == "leveldb":
        pytest.importorskip("plyvel")

    def start() -> Source:
        return Prefetch(RESUMED[name]()) if ahead else RESUMED[name]()

    with start() as source, start() as other:
        for _ in range(taken):
            source.next()
        assert source.tops["label"] == (3,)
        state = json.loads(json.dumps(source.state()))
        # What is left of an old stream must not come through.
        other.next()
        other.restore(state)
        for _ in range(6):
            expected, batch = source.next(), other.next()
            assert expected.keys() == batch.keys()
            assert all(np.array_equal(expected[top], batch[top]) for top in batch)
        assert other.state() == source.state()


def test_states_of_other_data(tmp_path: Path) -> None:
    settings = f"{write_lmdb(tmp_path / 'db', *[datum(noise(1, 2, 3))] * 2)} batch_size: 2"
    with data(LMDB_) as source, data(settings) as other:
        source.next()
        with pytest.raises(
            SourceError,
            match=r'/db: record "00000002_im2.png": the state goes on behind it, but there is no',
        ):
            other.restore(source.state())
        with pytest.raises(SourceError, match=r"the state is another source's"):
            other.restore({"position": 3})
    state = images(numbered(tmp_path, 4)).state()
    with pytest.raises(SourceError, match=r"state is of 4 images, but .*numbered has 5"):
        images(numbered(tmp_path, 5)).restore(state)
