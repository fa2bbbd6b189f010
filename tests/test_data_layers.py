"""Data and ImageData: what Caffe, OpenCV and plain NumPy make of the same files."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.frontend.prototxt import parse_net, read_net
from netspec.proto.layers_pb2 import TEST, TRAIN, BlobProto, Datum
from netspec.sources import Prefetch, Source, open_source
from netspec.sources.images.databases import LMDB
from netspec.sources.images.decode import read_channels
from netspec.sources.images.resize import resize
from netspec.sources.images.transform import Transform, read_mean
from netspec.sources.sampling import Passes

GOLDEN = Path(__file__).parent / "golden" / "data"
FILES = GOLDEN / "files"
LABELS = [0, 3, 1, 4, 2, 0, 3]
Bytes = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _among_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FILES)


def opened(layer: str, phase: int = TEST, seed: int | None = 7) -> Source:
    """The source of a data layer written as prototxt."""
    net = parse_net(layer, "net.prototxt")
    return open_source(net.message.layer[0], phase, seed, net.places[0])


def data(settings: str, transform: str = "", tops: int = 2, **more: Any) -> Source:
    named = " ".join(f'top: "{top}"' for top in ("data", "label")[:tops])
    return opened(
        f'layer {{ name: "d" type: "Data" {named} data_param {{ {settings} }} '
        f"transform_param {{ {transform} }} }}",
        **more,
    )


def images(settings: str, transform: str = "", **more: Any) -> Source:
    return opened(
        f'layer {{ name: "d" type: "ImageData" top: "data" top: "label" '
        f"image_data_param {{ {settings} }} transform_param {{ {transform} }} }}",
        **more,
    )


def stored() -> Bytes:
    """The seven images (N, C, H, W), 20 x 26, in blue, green, red."""
    files = sorted((FILES / "imgs").iterdir())
    return np.stack(
        [np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)[::-1] for file in files]
    )


def write_lmdb(path: Path, *records: Datum | bytes) -> str:
    """An LMDB of these records under the keys 0, 1, ...; returns a ``data_param``'s source."""
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for i, record in enumerate(records):
            value = record if isinstance(record, bytes) else record.SerializeToString()
            transaction.put(b"%d" % i, value)
    environment.close()
    return f'source: "{path}" backend: LMDB'


def datum(image: NDArray[Any], **more: Any) -> Datum:
    channels, height, width = image.shape
    if image.dtype == np.uint8:
        more["data"] = image.tobytes()
    else:
        more["float_data"] = image.ravel().tolist()
    return Datum(channels=channels, height=height, width=width, **{"label": 0, **more})


def encoded(image: NDArray[Any], kind: str = "PNG", **more: Any) -> Datum:
    """An image file of (H, W), or (H, W, 3) in red, green, blue."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return Datum(data=file.getvalue(), encoded=True, **{"label": 0, **more})


def noise(*shape: int) -> Bytes:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


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
LMDB_ = 'source: "db_lmdb" backend: LMDB batch_size: 3'
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


def labels_of(source: Source, batches: int) -> list[list[int]]:
    with source:
        return [source.next()["label"].astype(int).tolist() for _ in range(batches)]


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


# What cannot work


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
    f"{LMDB_} mirror: true": "mirror has no effect here; write transform_param { mirror: ... }",
    f"{LMDB_} force_encoded_color: true": "force_encoded_color has no effect here; write "
    "transform_param { force_color: ... }",
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
    "moved": ('source: "list_full.txt" scale: 2', "", "scale has no effect here; write transform_"),
}


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


# Decoding and resizing, as OpenCV does both


def files_of_all_kinds() -> dict[str, bytes]:
    image = noise(9, 12, 3)
    colour = Image.fromarray(image.repeat(4, 0).repeat(4, 1))
    alpha = colour.copy()
    alpha.putalpha(colour.getchannel(0))
    palette = colour.quantize(16)
    turned = Image.Exif()
    turned[274] = 6
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "png": (colour, "PNG", {}),
        "grey png": (colour.convert("L"), "PNG", {}),
        "1-bit png": (colour.convert("1"), "PNG", {}),
        "alpha png": (alpha, "PNG", {}),
        "grey alpha png": (alpha.convert("LA"), "PNG", {}),
        "palette png": (palette, "PNG", {}),
        "palette png, one transparent": (palette, "PNG", {"transparency": 3}),
        "palette png, some transparent": (palette, "PNG", {"transparency": b"\0\3\xff\7"}),
        "16-bit png": (Image.fromarray(noise(8, 9).astype(np.uint16) * 255 + 7), "PNG", {}),
        "jpeg": (colour, "JPEG", {}),
        "grey jpeg": (colour.convert("L"), "JPEG", {}),
        "progressive jpeg": (colour, "JPEG", {"progressive": True}),
        "turned jpeg": (colour, "JPEG", {"exif": turned}),
        "bmp": (colour, "BMP", {}),
    }
    found = {}
    for name, (picture, kind, options) in made.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found[name] = file.getvalue()
    return found


# Where OpenCV rounds grey to the nearest number, and Pillow does so a little differently.
ROUGH = {("bmp", False)}


@pytest.mark.parametrize("name", files_of_all_kinds())
def test_decoding_is_opencvs(name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    content = files_of_all_kinds()[name]
    for color, flag in ((True, cv2.IMREAD_COLOR), (False, cv2.IMREAD_GRAYSCALE), (None, -1)):
        expected = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
        if expected.dtype != np.uint8:
            continue
        expected = expected.reshape(*expected.shape[:2], -1)
        image = read_channels(io.BytesIO(content), color, name)
        assert image.shape == expected.shape
        off = np.abs(image.astype(int) - expected)
        assert off.max() <= ((name, color) in ROUGH), (name, color)


def test_decoding_by_hand() -> None:
    """Without OpenCV: the channels, their order, and libpng's grey."""
    made = {
        name: read_channels(io.BytesIO(c), None, name)
        for name, c in files_of_all_kinds().items()
        if "16" not in name
    }
    image = noise(9, 12, 3).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(made["png"], image[:, :, ::-1])
    np.testing.assert_array_equal(made["alpha png"], image[:, :, [2, 1, 0, 0]])
    shapes = {name: array.shape[2] for name, array in made.items()}
    assert shapes == dict.fromkeys(made, 3) | {
        "grey png": 1,
        "1-bit png": 1,
        "grey jpeg": 1,
        "alpha png": 4,
        "grey alpha png": 4,
        "palette png, one transparent": 4,
        "palette png, some transparent": 4,
    }
    turned = files_of_all_kinds()["turned jpeg"]
    for color, size in ((True, (48, 36, 3)), (False, (48, 36, 1)), (None, (36, 48, 3))):
        assert read_channels(io.BytesIO(turned), color, "turned").shape == size


# What OpenCV 5.0 made of (i * 37) % 256, i = 0..34, of 5 rows and 7 columns.
SMALLER = [[15, 79, 144, 209], [20, 85, 149, 214], [25, 89, 154, 219]]
LARGER = [
    [0, 25, 53, 82, 111, 140, 168, 197, 222],
    [1, 26, 55, 83, 112, 141, 170, 199, 223],
    [3, 28, 56, 85, 114, 143, 172, 200, 225],
    [5, 30, 58, 87, 116, 145, 174, 202, 227],
    [7, 32, 60, 89, 118, 146, 175, 204, 229],
    [9, 33, 62, 91, 120, 148, 177, 206, 231],
    [11, 35, 64, 93, 122, 150, 179, 208, 233],
    [12, 37, 65, 94, 123, 152, 180, 209, 234],
]


def test_resizing_by_hand() -> None:
    image = (np.arange(35) * 37 % 256).astype(np.uint8).reshape(5, 7, 1)
    for expected in (SMALLER, LARGER):
        made = resize(image, len(expected), len(expected[0]))
        assert made[:, :, 0].tolist() == expected
    assert resize(image, 5, 7) is image
    assert resize(noise(1, 1, 3), 4, 2).tolist() == [[noise(1, 1, 3)[0, 0].tolist()] * 2] * 4


def test_resizing_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    sizes = np.random.default_rng(3).integers(1, 60, (200, 4))
    halves = [(2 * h, 2 * w, h, w) for h, w in ((3, 5), (1, 7), (20, 13))]
    for rows, columns, height, width in [*sizes.tolist(), *halves]:
        for channels in (1, 3):
            image = noise(rows, columns, channels)
            expected = cv2.resize(image, (width, height)).reshape(height, width, channels)
            np.testing.assert_array_equal(resize(image, height, width), expected)


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
