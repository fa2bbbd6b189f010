"""Data and ImageData: what Caffe, OpenCV and NumPy make of the same files, with every setting."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sources import (
    FILES,
    GOLDEN,
    LMDB_,
    Bytes,
    data,
    datum,
    encoded,
    images,
    noise,
    write_lmdb,
)
from image_sources import _among_the_files as _among_the_files
from numpy.typing import NDArray
from PIL import Image

from netspec.frontend.prototxt import parse_net, read_net
from netspec.proto.layers_pb2 import TEST, TRAIN, BlobProto, Datum
from netspec.sources import Source, open_source
from netspec.sources.images.databases import LMDB
from netspec.sources.images.transform import Transform

LABELS = [0, 3, 1, 4, 2, 0, 3]


def stored() -> Bytes:
    """The seven images (N, C, H, W), 20 x 26, in blue, green, red."""
    files = sorted((FILES / "imgs").iterdir())
    return np.stack(
        [np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)[::-1] for file in files]
    )


# What Caffe itself made of the files


@pytest.mark.parametrize("name", ["lmdb", "lmdb_crop_mean", "imagedata"])
def test_caffes_arrays(name: str) -> None:
    net = read_net(GOLDEN / "cases" / f"{name}.prototxt")
    golden = np.load(GOLDEN / "cases" / f"{name}.npz")
    with open_source(net.message.layer[0], TEST, None, net.places[0]) as source:
        for k in range(4):
            shapes, batch = source.tops, source.next()
            for top in ("data", "label"):
                assert shapes[top] == batch[top].shape
                assert batch[top].dtype == np.float32
                assert batch[top].flags.c_contiguous
                np.testing.assert_array_equal(batch[top], golden[f"{k}/{top}"])


# Every setting

Made = Callable[[Bytes], NDArray[Any]]


MEAN = np.float32([[[3.5]], [[100]], [[7]]])


def mean_image() -> NDArray[np.float32]:
    blob = BlobProto.FromString((FILES / "mean.binaryproto").read_bytes())
    return np.float32(blob.data).reshape(3, 20, 26)


def as_it_is(image: Bytes) -> NDArray[Any]:
    return image


DATA: dict[str, tuple[str, str, Made]] = {
    "raw": (LMDB_, "", as_it_is),
    "one batch for many": ('source: "db_lmdb" backend: LMDB batch_size: 7', "", as_it_is),
    "one by one": ('source: "db_lmdb" backend: LMDB batch_size: 1', "", as_it_is),
    "encoded": ('source: "db_encoded" backend: LMDB batch_size: 3', "", as_it_is),
    "rand_skip": (f"{LMDB_} rand_skip: 5", "", as_it_is),
    "prefetch": (f"{LMDB_} prefetch: 9", "", as_it_is),
    "scale": (LMDB_, "scale: 0.3", lambda x: np.float32(x) * np.float32(0.3)),
    "crop": (LMDB_, "crop_size: 11", lambda x: x[:, :, 4:15, 7:18]),
    "crop all": (LMDB_, "crop_size: 20", lambda x: x[:, :, :, 3:23]),
    "one mean": (LMDB_, "mean_value: 3.5", lambda x: np.float32(x) - np.float32(3.5)),
    "means": (
        LMDB_,
        "mean_value: 3.5 mean_value: 100 mean_value: 7 scale: 0.3",
        lambda x: (np.float32(x) - MEAN) * np.float32(0.3),
    ),
    "mean file": (
        LMDB_,
        'mean_file: "mean.binaryproto"',
        lambda x: np.float32(x) - mean_image(),
    ),
    "cropped mean": (
        LMDB_,
        'mean_file: "mean.binaryproto" crop_size: 11',
        lambda x: (np.float32(x) - mean_image())[:, :, 4:15, 7:18],
    ),
    "forced colour": (
        'source: "db_encoded" backend: LMDB batch_size: 3',
        "force_color: true",
        as_it_is,
    ),
    # Force concerns encoded records alone.
    "forced grey, raw": (LMDB_, "force_gray: true", as_it_is),
}


def check_stream(source: Source, expected: NDArray[Any], batches: int = 5) -> None:
    """Batches must be ``expected``, labels ``LABELS``, over and over."""
    with source:
        taken = 0
        for _ in range(batches):
            shapes, batch = source.tops, source.next()
            turns = [(taken + i) % 7 for i in range(len(batch["label"]))]
            np.testing.assert_array_equal(batch["data"], np.float32(expected[turns]))
            assert batch["label"].tolist() == [LABELS[turn] for turn in turns]
            assert shapes == {name: array.shape for name, array in batch.items()}
            taken += len(turns)


@pytest.mark.parametrize("name", DATA)
def test_settings_of_data(name: str) -> None:
    settings, transform, made = DATA[name]
    check_stream(data(settings, transform), made(stored()))


@pytest.mark.differs("transform-random")
def test_layers_of_the_same_settings_crop_and_mirror_alike() -> None:
    """So that an image and its labels stay together."""
    how = "crop_size: 9 mirror: true"
    with data(LMDB_, how, phase=TRAIN) as first, data(LMDB_, how, phase=TRAIN) as second:
        for _ in range(3):
            np.testing.assert_array_equal(first.next()["data"], second.next()["data"])


def grey() -> Bytes:
    """The images in grey, as Caffe's own tools stored them with OpenCV."""
    with data('source: "db_gray" backend: LMDB batch_size: 7', tops=1) as source:
        return source.next()["data"].astype(np.uint8)


def test_forced_grey() -> None:
    settings = 'source: "db_encoded" backend: LMDB batch_size: 2'
    check_stream(data(settings, "force_gray: true"), grey())


IMAGES: dict[str, tuple[str, str, Callable[[], NDArray[Any]]]] = {
    "list": ('source: "list_full.txt" batch_size: 3', "", stored),
    "one by one": ('source: "list_full.txt"', "", stored),
    "root folder": ('source: "list.txt" root_folder: "imgs/" batch_size: 2', "", stored),
    "prefix": ('source: "numbers.txt" root_folder: "imgs/im" batch_size: 2', "", stored),
    "grey": ('source: "list_full.txt" is_color: false batch_size: 3', "", grey),
    "first of many skipped": ('source: "list_full.txt" rand_skip: 1 batch_size: 3', "", stored),
    "resized": (
        'source: "list_full.txt" new_height: 10 new_width: 13 batch_size: 3',
        "",
        # Half the size each way is the mean of four.
        lambda: (stored().reshape(7, 3, 10, 2, 13, 2).astype(int).sum((3, 5)) + 2) // 4,
    ),
    "transformed": (
        'source: "list_full.txt" batch_size: 3',
        'crop_size: 11 mean_file: "mean.binaryproto" scale: 0.5',
        lambda: (np.float32(stored()) - mean_image())[:, :, 4:15, 7:18] / 2,
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_settings_of_image_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, transform, made = IMAGES[name]
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    lines = [f"{i}.png {label}\r\n" for i, label in enumerate(LABELS)]
    (tmp_path / "numbers.txt").write_text("".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    check_stream(images(settings, transform), made())


def test_leveldb_is_left_as_it_is() -> None:
    pytest.importorskip("plyvel")
    before = {file.name: file.stat().st_mtime_ns for file in (FILES / "db_leveldb").iterdir()}
    # LevelDB is the default. Two may read it at once.
    with data('source: "db_leveldb" batch_size: 3') as other:
        check_stream(data('source: "db_leveldb" batch_size: 3 backend: LEVELDB'), stored())
        assert other.batches == 3
        assert other.describe() == "Data: 7 records of db_leveldb (LEVELDB)"
    after = {file.name: file.stat().st_mtime_ns for file in (FILES / "db_leveldb").iterdir()}
    assert before == after


def test_an_lmdb_can_be_read_twice_at_once() -> None:
    before = sorted((FILES / "db_lmdb").iterdir())
    with data(LMDB_) as one, data(LMDB_) as other:
        one.next()
        np.testing.assert_array_equal(other.next()["data"], stored()[:3])
        assert one.next()["label"].tolist() == [4, 2, 0]
        assert one.batches == 3
        assert one.describe() == "Data: 7 records of db_lmdb (LMDB)"
        assert one.current == 'the batch that begins with db_lmdb: record "00000003_im3.png"'
    assert sorted((FILES / "db_lmdb").iterdir()) == before


@pytest.mark.parametrize(
    "array",
    [noise(3, 4, 5), noise(1, 4, 5), np.random.default_rng(0).normal(size=(2, 3, 5)) * 1e3],
    ids=["bytes", "grey bytes", "floats"],
)
def test_datum(array: NDArray[Any], tmp_path: Path) -> None:
    array = array if array.dtype == np.uint8 else np.float32(array)
    source = data(
        write_lmdb(tmp_path / "db", datum(array, label=-5)) + " batch_size: 1",
        "crop_size: 2 mean_value: 1.5",
    )
    with source:
        batch = source.next()
    height, width = ((size - 2) // 2 for size in array.shape[1:])
    window = array[:, height : height + 2, width : width + 2]
    np.testing.assert_array_equal(batch["data"], np.float32(window)[None] - np.float32(1.5))
    assert batch["label"].tolist() == [-5]


def test_images_of_several_sizes(tmp_path: Path) -> None:
    small, large = noise(4, 5, 3), noise(7, 9, 3)
    settings = write_lmdb(tmp_path / "db", encoded(small), encoded(large))
    paths = [tmp_path / "a b.png", tmp_path / "c.png"]
    for path, image in zip(paths, (small, large), strict=True):
        Image.fromarray(image).save(path)
    # A path may have spaces in it.
    (tmp_path / "list").write_text("".join(f"{path} 1\n" for path in paths))
    for source in (data(f"{settings} batch_size: 1"), images(f'source: "{tmp_path}/list"')):
        with source:
            for image in (small, large, small):
                assert source.tops["data"] == (1, 3, *image.shape[:2])
                expected = image.transpose(2, 0, 1)[None, ::-1]
                np.testing.assert_array_equal(source.next()["data"], expected)
    with data(f"{settings} batch_size: 2", "crop_size: 4") as source:
        assert source.next()["data"].shape == (2, 3, 4, 4)


def test_without_labels(tmp_path: Path) -> None:
    record = Datum(channels=1, height=1, width=2, data=b"ab")
    settings = write_lmdb(tmp_path / "db", record) + " batch_size: 1"
    with data(settings, tops=1) as source:
        assert source.tops == {"data": (1, 1, 1, 2)}
        assert source.next().keys() == {"data"}
    # A label of 0 is one, too.
    with data(write_lmdb(tmp_path / "other", datum(noise(1, 1, 1))) + " batch_size: 1") as source:
        assert source.next()["label"].tolist() == [0]


def test_lmdbs_are_shared_only_while_they_are_read(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", b"a")
    first, second = LMDB(tmp_path / "db"), LMDB(tmp_path / "db")
    first.close()
    assert list(second.records()) == [(b"0", b"a")]
    second.close()
    # Closed: it can be opened to be written.
    write_lmdb(tmp_path / "db", b"a", b"b")
    assert LMDB(tmp_path / "db").count == 2


def test_transform_writes_where_it_is_told() -> None:
    layer = parse_net("layer { transform_param { scale: 2 } }", "net").message.layer[0]
    out = np.full((2, 1, 2, 3), 9, np.float32)
    Transform(layer.transform_param, TEST, Path).apply(noise(1, 2, 3), out[1], 7, 0)
    np.testing.assert_array_equal(out[1], 2.0 * noise(1, 2, 3))
    assert (out[0] == 9).all()
