"""Data and ImageData: settings, records and lists that cannot work."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_sources import LMDB_, data, encoded, images, labels_of, noise, write_lmdb
from image_sources import _among_the_files as _among_the_files
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.proto.layers_pb2 import BlobProto, Datum
from netspec.sources.images.transform import read_mean


def fails(message: str, make: Callable[[], object]) -> None:
    """It must fail with this after the place and the layer."""
    with pytest.raises(SourceError) as caught:
        make()
    assert caught.value.place == Place("net.prototxt", 1)
    assert f"{caught.value.who}: {caught.value.message}" == message


SETTINGS = {
    'source: "db_lmdb" backend: LMDB': "batch_size must be given and positive",
    "batch_size: 1": "source must be given: the database",
    f"{LMDB_} prefetch: 0": "prefetch is 0; must be positive",
    'source: "nil" batch_size: 1': "source: nil: no such folder",
    'source: "list.txt" batch_size: 1': "source: list.txt: not a directory",
    'source: "imgs" batch_size: 1': "source: imgs: no LEVELDB database; it lacks the file CURRENT",
    'source: "imgs" backend: LMDB batch_size: 1': "source: imgs: no LMDB database; it lacks the "
    "file data.mdb",
    'source: "db_lmdb" batch_size: 1': "source: db_lmdb is a database of the other kind; write "
    "backend: LMDB (LEVELDB is what is read where none is given)",
    'source: "db_leveldb" backend: LMDB batch_size: 1': "source: db_leveldb is a database of the "
    "other kind; write backend: LEVELDB (LEVELDB is what is read where none is given)",
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_data_settings_that_cannot_work(settings: str) -> None:
    fails(f'layer "d" (Data): {SETTINGS[settings]}', lambda: data(settings))


TRANSFORMS = {
    "force_color: true force_gray: true": "force_color and force_gray exclude each other",
    'mean_file: "mean.binaryproto" mean_value: 1': "mean_file and mean_value exclude each other",
    'mean_file: "nil"': "mean_file: nil: no such file",
    'mean_file: "list.txt"': "mean_file: list.txt: is truncated: a field of 105 bytes "
    "has only 59 left",
    "mean_value: 1 mean_value: 2": 'db_lmdb: record "00000000_im0.png": 2 mean_value for '
    "3 channels; give one for all, or one for each",
    "crop_size: 21": 'db_lmdb: record "00000000_im0.png": crop_size 21 is larger than the image, '
    "26x20",
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_that_cannot_work(transform: str) -> None:
    fails(f'layer "d" (Data): {TRANSFORMS[transform]}', lambda: data(LMDB_, transform))


def test_means_that_cannot_work(tmp_path: Path) -> None:
    path = tmp_path / "mean"
    path.write_bytes(
        BlobProto(num=1, channels=3, height=1, width=1, data=[1, 2, 3]).SerializeToString()
    )
    fails(
        f'layer "d" (Data): db_lmdb: record "00000000_im0.png": 3x20x26 (channels, height, width), '
        f"but the mean in {path} is 3x1x1; both must be the same before cropping",
        lambda: data(LMDB_, f'mean_file: "{path}"'),
    )
    path.write_bytes(
        BlobProto(num=2, channels=1, height=1, width=1, data=[1, 2]).SerializeToString()
    )
    with pytest.raises(SourceError, match=r"2x1x1x1 numbers; one image .* expected"):
        read_mean(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=rf"mean_file: {path}: is empty"):
        read_mean(path)


JPEG = encoded(noise(40, 40, 3), "JPEG").data
RECORDS: dict[str, tuple[list[Datum | bytes], int, str]] = {
    "no records": ([], 2, "DB: has no records"),
    "no Datum": ([b"\xff\xff"], 2, 'DB: record "0": damaged, or not a Datum ('),
    "no image": ([Datum(label=1)], 2, 'DB: record "0": 0 floats for an image of 0x0x0 '),
    "too few bytes": (
        [Datum(channels=3, height=2, width=2, data=b"12345")],
        2,
        'DB: record "0": 5 bytes for an image of 3x2x2 (channels, height, width)',
    ),
    "nothing encoded": ([Datum(encoded=True)], 2, 'DB: record "0": an encoded Datum without data'),
    "no image file": (
        [Datum(encoded=True, data=b"text", label=0)],
        2,
        'DB: record "0": damaged, or not an image (cannot identify image file',
    ),
    "truncated JPEG": (
        [Datum(encoded=True, data=JPEG[: len(JPEG) // 2], label=0)],
        2,
        'DB: record "0": damaged, or not an image (',
    ),
    "16 bits": (
        [encoded(np.full((2, 3), 1000, np.uint16))],
        2,
        'DB: record "0": has more than 8 bits a channel; force_color or force_gray reduces it',
    ),
    "no label": (
        [Datum(channels=1, height=1, width=1, data=b"a")],
        2,
        'DB: record "0": has no label for top "label"; leave that top out',
    ),
    "other channels": (
        [encoded(noise(4, 5)), encoded(noise(4, 5, 3))],
        2,
        'DB: record "1": 3 channels, but the batch that it is in began with 1 channel; '
        "force_color or force_gray makes encoded images alike",
    ),
    "other size": (
        [encoded(noise(4, 5)), encoded(noise(4, 6))],
        2,
        'DB: record "1": 1x4x6 (channels, height, width), but the batch that it is in began with '
        "1x4x5; crop_size or batch_size: 1 allows several sizes",
    ),
    "second too small": (
        [encoded(noise(4, 5)), encoded(noise(2, 5))],
        2,
        'DB: record "1": crop_size 3 is larger than the image, 5x2',
    ),
}


@pytest.mark.differs("record-labels")
@pytest.mark.differs("truncated-image")
@pytest.mark.parametrize("name", RECORDS)
def test_records_that_cannot_work(name: str, tmp_path: Path) -> None:
    records, size, message = RECORDS[name]
    settings = f"{write_lmdb(tmp_path / 'db', *records)} batch_size: {size}"
    transform = "crop_size: 3" if "crop_size 3" in message else ""
    with pytest.raises(SourceError) as caught:
        labels_of(data(settings, transform), 1)
    assert caught.value.who == 'layer "d" (Data)'
    assert caught.value.message.startswith(message.replace("DB", f"{tmp_path}/db", 1))


def test_damaged_lmdb(tmp_path: Path) -> None:
    shutil.copytree("db_lmdb", tmp_path / "db")
    file = tmp_path / "db" / "data.mdb"
    whole = file.read_bytes()
    settings = f'source: "{tmp_path}/db" backend: LMDB batch_size: 1'
    file.write_bytes(whole[: len(whole) // 2])
    fails(
        f'layer "d" (Data): {file}: truncated: it has {len(whole) // 2} of its {len(whole)} bytes',
        lambda: data(settings),
    )
    file.write_bytes(b"nothing" * 9999)
    with pytest.raises(SourceError, match=r"/db: damaged, or no LMDB database \("):
        data(settings)
    file.unlink()
    file.mkdir()
    fails(f'layer "d" (Data): {file}: is a directory', lambda: data(settings))


def test_damaged_leveldb(tmp_path: Path) -> None:
    pytest.importorskip("plyvel")
    shutil.copytree("db_leveldb", tmp_path / "db")
    (tmp_path / "db" / "CURRENT").write_text("MANIFEST-nil\n")
    with pytest.raises(SourceError, match=r"/db: damaged, or no LEVELDB database \("):
        data(f'source: "{tmp_path}/db" batch_size: 1')
    shutil.copytree("db_leveldb", tmp_path / "other")
    table = tmp_path / "other" / "000005.ldb"
    table.write_bytes(bytes(50) + table.read_bytes()[50:])
    with pytest.raises(SourceError, match=r"/other: damaged, or no LEVELDB database \("):
        data(f'source: "{tmp_path}/other" batch_size: 1')


def test_leveldb_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    fails(
        'layer "d" (Data): db_leveldb: LevelDB needs plyvel: pip install "netspec[leveldb]"; '
        "or convert it to LMDB",
        lambda: data('source: "db_leveldb" batch_size: 1'),
    )


LISTS: dict[str, tuple[str, str, str]] = {
    "no list": ('source: "nil"', "", "source: nil: no such file"),
    "no source": ("", "", "source must be given: the list of images"),
    "empty": ("LIST", "\n \n", "LIST: lists no images"),
    "binary": ("LIST", "\udcff", "LIST: not a text file; source lists images and labels, one of"),
    "no label": (
        "LIST",
        "imgs/im0.png 1\n\nmy image.png\n",
        'LIST:3: "my image.png" does not end in a label; a line is a path, a space, and an integer',
    ),
    "nothing but a label": ("LIST", "3", 'LIST:1: "3" does not end in a label; '),
    "no whole label": ("LIST", "imgs/im0.png 1.5", 'LIST:1: "imgs/im0.png 1.5" does not end in a '),
    "no image": ("LIST", "imgs/nil.png 1", "LIST lacks 1 of its 1 file: imgs/nil.png"),
    "no slash": (
        'LIST root_folder: "imgs"',
        "im0.png 1",
        'imgsim0.png: no such file; root_folder "imgs" lacks a "/" at its end',
    ),
    "not an image": ("LIST", "h5.txt 1", "h5.txt: damaged, or not an image ("),
    "one size": (
        'source: "list_full.txt" new_height: 3',
        "",
        "new_height is 3 and new_width 0; give both or none",
    ),
    "batch_size": ('source: "list_full.txt" batch_size: 0', "", "batch_size must be given and pos"),
    "skip": (
        'source: "list_full.txt" rand_skip: 8',
        "",
        "rand_skip 8 may leave out more than the 7 images of list_full.txt",
    ),
}


@pytest.mark.differs("list-labels")
@pytest.mark.parametrize("name", LISTS)
def test_lists_that_cannot_work(name: str, tmp_path: Path) -> None:
    settings, lines, message = LISTS[name]
    path = tmp_path / "list"
    path.write_bytes(lines.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError) as caught:
        images(settings.replace("LIST", f'source: "{path}"'))
    assert caught.value.who == 'layer "d" (ImageData)'
    assert caught.value.message.startswith(message.replace("LIST", str(path)))


def test_sizes_and_colours_of_listed_images(tmp_path: Path) -> None:
    for name, size in (("a", (4, 5, 3)), ("b", (4, 6, 3))):
        Image.fromarray(noise(*size)).save(tmp_path / f"{name}.png")
    (tmp_path / "list").write_text(f"{tmp_path}/a.png 0\n{tmp_path}/b.png 1\n")
    fails(
        f'layer "d" (ImageData): {tmp_path}/b.png: 3x4x6 (channels, height, width), but the batch '
        "that it is in began with 3x4x5; new_height and new_width, crop_size, or batch_size: 1 "
        "allows several sizes",
        lambda: labels_of(images(f'source: "{tmp_path}/list" batch_size: 2'), 1),
    )
    fails(
        'layer "d" (ImageData): is_color: true is what decides here; transform_param '
        "{ force_color force_gray } concern Data layers",
        lambda: images('source: "list_full.txt"', "force_gray: true"),
    )
    (tmp_path / "broken.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    (tmp_path / "list").write_text(f"{tmp_path}/a.png 0\n{tmp_path}/broken.jpg 1\n")
    with pytest.raises(SourceError, match=r"broken.jpg: damaged, or not an image \(image file is"):
        labels_of(images(f'source: "{tmp_path}/list"'), 2)
