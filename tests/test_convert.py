"""Databases and means made here: the same, byte for byte, as those that Caffe's tools made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from netspec.errors import SourceError
from netspec.proto.layers_pb2 import DataParameter, Datum
from netspec.sources.convert import (
    Listed,
    list_to_database,
    mean_image,
    samples_of_database,
    samples_of_list,
    write_mean,
)
from netspec.sources.images.databases import BACKENDS, open_database, write_database

FILES = Path(__file__).parent / "golden" / "data" / "files"
LISTED = Listed(FILES / "list.txt", f"{FILES}/imgs/")
LMDB, LEVELDB = DataParameter.LMDB, DataParameter.LEVELDB


def records(path: Path, backend: int) -> list[tuple[bytes, bytes]]:
    database = open_database(path, backend)
    found = list(database.records())
    database.close()
    return found


@pytest.mark.parametrize(
    ("golden", "backend", "color", "encoding"),
    [
        ("db_lmdb", LMDB, True, None),
        ("db_gray", LMDB, False, None),
        ("db_encoded", LMDB, True, ""),
        ("db_encoded", LMDB, True, "png"),
        ("db_leveldb", LEVELDB, True, None),
    ],
)
def test_databases_are_caffes(
    golden: str, backend: int, color: bool, encoding: str | None, tmp_path: Path
) -> None:
    if backend == LEVELDB:
        pytest.importorskip("plyvel")
    listed = Listed(LISTED.path, LISTED.folder, color)
    assert list_to_database(listed, tmp_path / "new" / "db", backend, encoding) == 7
    assert records(tmp_path / "new" / "db", backend) == records(FILES / golden, backend)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["db"]


def test_resized_shuffled_and_encoded_anew(tmp_path: Path) -> None:
    listed = Listed(LISTED.path, LISTED.folder, color=False, height=5, width=6, seed=3)
    assert list_to_database(listed, tmp_path / "db", encoding="jpg") == 7
    found = records(tmp_path / "db", LMDB)
    names = [key.decode() for key, _ in found]
    assert [name[:9] for name in names] == [f"{i:08d}_" for i in range(7)]
    assert [name[9:] for name in names] != sorted(name[9:] for name in names)
    assert {name[9:] for name in names} == {f"im{i}.png" for i in range(7)}
    labels = dict(line.split() for line in LISTED.path.read_text().splitlines())
    for name, (_, value) in zip(names, found, strict=True):
        datum = Datum.FromString(value)
        assert datum.encoded
        assert datum.label == int(labels[name[9:]])
    for sample in samples_of_database(tmp_path / "db"):
        assert sample.image.shape == (1, 5, 6)
        exact = listed.read(FILES / "imgs" / sample.name[-11:-1].split("_")[-1])
        assert np.abs(exact.transpose(2, 0, 1) - sample.image.astype(int)).mean() < 12


def test_more_records_than_a_transaction_takes(tmp_path: Path) -> None:
    made = [(b"%05d" % i, b"x" * (i % 7)) for i in range(2500)]
    for backend in BACKENDS:
        if backend == LEVELDB:
            pytest.importorskip("plyvel")
        path = tmp_path / str(backend)
        assert write_database(path, backend, iter(made)) == 2500
        assert records(path, backend) == made
        database = open_database(path, backend)
        assert database.count == 2500
        assert next(database.records(b"01234")) == made[1234]
        assert next(database.records(b"01234a")) == made[1235]
        database.close()


@pytest.mark.differs("mean-double")
@pytest.mark.parametrize("kind", ["list", "lmdb", "encoded"])
def test_the_mean_is_caffes(kind: str, tmp_path: Path) -> None:
    samples = {
        "list": lambda: samples_of_list(LISTED),
        "lmdb": lambda: samples_of_database(FILES / "db_lmdb"),
        "encoded": lambda: samples_of_database(FILES / "db_encoded"),
    }[kind]()
    write_mean(tmp_path / "mean.binaryproto", mean_image(samples))
    golden = (FILES / "mean.binaryproto").read_bytes()
    assert (tmp_path / "mean.binaryproto").read_bytes() == golden


def write_list(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A list of grey images of these sizes (H, W), beside them."""
    for i, size in enumerate(sizes):
        Image.fromarray(np.full(size, i, np.uint8)).save(folder / f"{i}.png")
    path = folder / "list"
    path.write_text("".join(f"{i}.png {i}\n" for i in range(len(sizes))))
    return path


@pytest.mark.differs("convert-broken")
def test_what_cannot_work(tmp_path: Path) -> None:
    path = write_list(tmp_path, (2, 3), (2, 4))
    with pytest.raises(SourceError, match=r"1.png: 3x2x4 .* but the first image is 3x2x3; resize"):
        mean_image(samples_of_list(Listed(path)))
    with pytest.raises(SourceError, match=r"no images to take the mean of"):
        mean_image([])
    with pytest.raises(SourceError, match=r"resized to height 3 and width 0; give both or none"):
        Listed(path, height=3)
    with pytest.raises(SourceError, match=r'0.png: ".tga0" is no known kind of image file'):
        list_to_database(Listed(path), tmp_path / "db", encoding="tga0")
    with pytest.raises(SourceError, match=rf"{path}/mean: not a directory"):
        write_mean(path / "mean", np.zeros((1, 2, 3), np.float32))
    with pytest.raises(SourceError, match=rf"{path}/db: not a directory"):
        list_to_database(Listed(path), path / "db")
    (tmp_path / "1.png").write_bytes(b"nothing")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SourceError, match=r"1.png: damaged, or not an image \(cannot identify"):
        list_to_database(Listed(path), tmp_path / "db")
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(SourceError, match=rf"{path}: exists already"):
        list_to_database(Listed(path), path)


def test_files_are_taken_as_they_are_if_nothing_changes(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "0.jpeg")
    (tmp_path / "list").write_text("0.jpeg 0\n")
    changes: list[dict[str, Any]] = [{}, {"color": False}, {"height": 2, "width": 3}]
    for settings in changes:
        path = tmp_path / str(settings)
        list_to_database(Listed(tmp_path / "list", **settings), path, encoding="JPG")
        ((_, value),) = records(path, LMDB)
        as_it_is = Datum.FromString(value).data == (tmp_path / "0.jpeg").read_bytes()
        assert as_it_is == (not settings)
        (sample,) = samples_of_database(path)
        height, width = settings.get("height", 4), settings.get("width", 5)
        assert sample.image.shape == (3 if settings.get("color", True) else 1, height, width)
