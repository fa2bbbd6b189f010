"""What is wrong with a set is told before a run begins; what turns up later may be skipped."""

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import lmdb
import numpy as np
import pytest
import scipy.io
from PIL import Image

from netspec.errors import SourceError
from netspec.frontend.net_graph import read_graph
from netspec.proto.layers_pb2 import Datum
from netspec.sources.checks import require_files
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed

SAMPLES = 4
LIST = "voc/ImageSets/Segmentation/val.txt"
VOC = """layer { name: "d" type: "Python" top: "data" top: "label" python_param {
  module: "voc_layers" layer: "VOCSegDataLayer"
  param_str: "{'voc_dir': 'voc', 'split': 'val', 'mean': 0}" } }"""
SBD = VOC.replace("VOCSeg", "SBDDSeg").replace("'voc_dir': 'voc'", "'sbdd_dir': 'sbd'")
IMAGES = """layer { name: "d" type: "ImageData" top: "data" top: "label"
  image_data_param { source: "list.txt" batch_size: 1 } }"""
BATCHES = IMAGES.replace("batch_size: 1", "batch_size: 2")
WINDOWS = """layer { name: "d" type: "WindowData" top: "data" top: "label"
  window_data_param { source: "windows.txt" batch_size: 1 fg_fraction: 1 }
  transform_param { crop_size: 2 } }"""
DATABASE = """layer { name: "d" type: "Data" top: "data" top: "label"
  data_param { source: "db" batch_size: 1 backend: LMDB } }"""
# Two classes for pixels, or, pooled, for whole images.
PIXELS = """
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  LOSS }"""
WHOLE = """
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }"""


def image(i: int) -> Path:
    return Path(f"voc/JPEGImages/s{i}.jpg")


def labels(i: int) -> Path:
    return Path(f"voc/SegmentationClass/s{i}.png")


def write_records(records: Iterable[Datum]) -> None:
    with lmdb.open("db", map_size=1 << 20) as database, database.begin(write=True) as writing:
        for i, record in enumerate(records):
            writing.put(f"{i}".encode(), record.SerializeToString())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a whole set of each kind; sample i is of brightness 20 * i."""
    monkeypatch.chdir(tmp_path)
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        Path("voc", name).mkdir(parents=True)
    for name in ("img", "cls"):
        Path("sbd", name).mkdir(parents=True)
    for i in range(SAMPLES):
        Image.new("RGB", (5, 3), (20 * i,) * 3).save(image(i))
        Image.new("L", (5, 3), 1).save(labels(i))
    names = "".join(f"s{i}\n" for i in range(SAMPLES))
    Path(LIST).write_text(names)
    Path("sbd/val.txt").write_text("s0\n")
    Image.new("RGB", (5, 3)).save("sbd/img/s0.jpg")
    segmentation = {"GTcls": {"Segmentation": np.ones((3, 5), np.uint8)}}
    scipy.io.savemat("sbd/cls/s0.mat", segmentation)
    Path("list.txt").write_text("".join(f"{image(i)} 1\n" for i in range(SAMPLES)))
    Path("windows.txt").write_text(f"# 0\n{image(1)}\n3\n3\n5\n1\n1 1 0 0 1 1\n")
    write_records(
        Datum(channels=1, height=2, width=2, data=bytes([20 * i] * 4), label=1) for i in range(3)
    )
    return tmp_path


def feed(data: str, loss: str = "", **how: bool) -> Feed:
    """What feeds a net of this data layer, its next batch looked at."""
    net = PIXELS.replace("LOSS", loss) if data in (VOC, SBD) else WHOLE
    Path("net.prototxt").write_text(data + net)
    connected = read_graph("net.prototxt")
    made = Feed(connected, 1, **how)
    try:
        made.check(compile_net(connected, made.tops).shapes)
    except BaseException:
        made.close()
        raise
    return made


@pytest.mark.parametrize("data", [VOC, SBD, IMAGES, WINDOWS, DATABASE])
def test_whole_sets_pass(data: str) -> None:
    with feed(data) as made:
        assert made.next()["label"].max() == 1


def cut(path: str | Path, left: int) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:left])


def no_labels() -> None:
    labels(2).unlink()
    labels(3).unlink()


def no_files() -> None:
    for i in range(SAMPLES):
        labels(i).unlink()
        image(i).unlink()


def labelled(value: int) -> None:
    array = np.ones((3, 5), np.uint8)
    array[1, 4] = value
    Image.fromarray(array).save(labels(0))


def saved_by_an_editor() -> None:
    Image.open(labels(0)).convert("RGB").save(labels(0))


DATA = 'net.prototxt:1: layer "d" (Python): '
LOSS = 'net.prototxt:6: layer "loss" (SoftmaxWithLoss): '
DAMAGES: dict[str, tuple[str, Callable[[], object], str]] = {
    "no labels": (
        VOC,
        no_labels,
        f'{DATA}split "val" lacks 2 of its 8 files: {labels(2)}, {labels(3)}',
    ),
    "no files": (
        VOC,
        no_files,
        f'{DATA}split "val" lacks 8 of its 8 files: {image(0)}, {labels(0)}, {image(1)} and 5 '
        "others",
    ),
    "other size": (
        VOC,
        lambda: Image.new("L", (3, 5)).save(labels(0)),
        f"{DATA}{labels(0)}: 3x5, but its image is 5x3",
    ),
    "colours": (
        VOC,
        saved_by_an_editor,
        f"{DATA}{labels(0)}: RGB label image; class indices expected (an 8-bit palette or grey "
        "PNG; programs that save colors lose the indices)",
    ),
    "truncated": (
        VOC,
        lambda: cut(image(0), 600),
        f"{DATA}{image(0)}: damaged, or not an image (...",
    ),
    "out of range": (
        VOC,
        lambda: labelled(2),
        f"{LOSS}label 2 at (x 4, y 1) of {labels(0)}; the net has 2 classes (0..1)",
    ),
    "void": (
        VOC,
        lambda: labelled(255),
        f"{LOSS}label 255 at (x 4, y 1) of {labels(0)}; the net has 2 classes (0..1); "
        "loss_param { ignore_label: 255 } skips such pixels",
    ),
    "empty list": (VOC, lambda: Path(LIST).write_text("\n"), f"{DATA}{LIST}: lists no samples"),
    "no set": (
        VOC,
        lambda: Path("voc").rename("elsewhere"),
        f'{DATA}voc_dir "voc": no such folder, from here or from the prototxt; get VOCtrainval...',
    ),
    "no mat": (
        SBD,
        lambda: Path("sbd/cls/s0.mat").unlink(),
        f'{DATA}split "val" lacks 1 of its 2 files: sbd/cls/s0.mat',
    ),
    "half a mat": (
        SBD,
        lambda: cut("sbd/cls/s0.mat", 140),
        f"{DATA}sbd/cls/s0.mat: no GTcls.Segmentation can be read from it (...",
    ),
    "no images": (
        IMAGES,
        no_files,
        f'net.prototxt:1: layer "d" (ImageData): list.txt lacks 4 of its 4 files: {image(0)}, '
        f"{image(1)}, {image(2)} and 1 other",
    ),
    "empty list of images": (
        IMAGES,
        lambda: Path("list.txt").write_text(""),
        'net.prototxt:1: layer "d" (ImageData): list.txt: lists no images',
    ),
    "class out of range": (
        IMAGES,
        lambda: Path("list.txt").write_text(f"{image(0)} 2\n"),
        'net.prototxt:5: layer "loss" (SoftmaxWithLoss): label 2 of '
        f"{image(0)}; the net has 2 classes (0..1)",
    ),
    "no windows": (
        WINDOWS,
        no_files,
        f'net.prototxt:1: layer "d" (WindowData): windows.txt lacks 1 of its 1 file: {image(1)}',
    ),
    "no database": (
        DATABASE,
        lambda: Path("db/data.mdb").unlink(),
        'net.prototxt:1: layer "d" (Data): source: db: no LMDB database; it lacks the file '
        "data.mdb",
    ),
    "not a database": (
        DATABASE,
        lambda: Path("db/data.mdb").write_text("nothing"),
        'net.prototxt:1: layer "d" (Data): db: damaged, or no LMDB database (...',
    ),
    "half a database": (
        DATABASE,
        lambda: cut("db/data.mdb", 8192),
        'net.prototxt:1: layer "d" (Data): db/data.mdb: truncated: it has 8192 of its ...',
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_has_its_message(name: str) -> None:
    data, damage, message = DAMAGES[name]
    damage()
    with pytest.raises(SourceError) as caught:
        feed(data)
    said = str(caught.value)
    # What libraries say of a damaged file, and where sets are to be had, is tested elsewhere.
    start = message.removesuffix("...")
    assert said == message or (start != message and said.startswith(start))


def test_a_look_takes_nothing_away() -> None:
    with feed(VOC, "loss_param { ignore_label: 255 }") as made, Feed(made.graph, 1) as other:
        assert made.tops == other.tops
        assert made.state() == other.state()
        assert made.current == other.current == ""
        for _ in range(SAMPLES + 1):
            one, another = made.next(), other.next()
            np.testing.assert_array_equal(one["data"], another["data"])
            assert made.current == other.current
            assert made.state() == other.state()
            made.check(compile_net(made.graph, made.tops).shapes)
        made.restore(state := other.state())
        assert made.state() == state
        np.testing.assert_array_equal(made.next()["data"], other.next()["data"])


def test_files_are_looked_for_in_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    def slowly(i: int) -> str | None:
        time.sleep(0.02)
        return f"{i}.png" if i in (3, 7) else None

    with pytest.raises(SourceError) as caught:
        require_files(100_000, slowly, "a.txt", seconds=0.05)
    said = caught.value.message
    assert said.startswith("a.txt lacks 2 of the ")
    assert said.endswith(" files looked for within 0.05 s (it has 100000): 3.png, 7.png")
    require_files(100_000, lambda i: time.sleep(0.02), "b.txt", seconds=0.05)  # type: ignore[func-returns-value]
    (warning,) = caplog.messages
    found = re.fullmatch(
        r"b.txt: looked for (\d+) of its 100000 files within 0.05 s; none of these is missing",
        warning,
    )
    assert found
    assert 16 <= int(found[1]) < 1000
    # What is not looked for is never all.
    with pytest.raises(SourceError, match=r"^c.txt lacks 1 of its 40 files: 33$"):
        require_files(40, lambda i: "33" if i == 33 else None, "c.txt")


# Skipping


def shades(made: Feed, count: int) -> list[list[int]]:
    """Which samples come next, by their brightness."""
    return [
        [round(float(row) / 20) for row in made.next()["data"][:, 0, 0, 0]] for _ in range(count)
    ]


@pytest.mark.parametrize("data", [VOC, IMAGES])
def test_what_cannot_be_read_is_skipped_and_counted(
    data: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut(image(1), 600)
    image(3).write_text("nothing")
    with feed(data, skip_corrupt=True) as made:
        assert shades(made, 4) == [[0], [2], [0], [2]]
        state = made.state()
        rest = shades(made, 3)
        made.restore(state)
        assert shades(made, 3) == rest
        assert made.skipped >= 4
        assert made.sources["d"].describe().endswith(", without what cannot be read")
    # Each is told once, however often it comes.
    assert sorted(message.split(": ")[2] for message in caplog.messages) == [
        str(image(1)),
        str(image(3)),
    ]
    assert all(message.endswith("; skipped") for message in caplog.messages)


def test_records_that_cannot_be_read_are_skipped() -> None:
    write_records([Datum(encoded=True, data=b"text", label=1)])
    with feed(DATABASE, skip_corrupt=True) as made:
        assert shades(made, 4) == [[1], [2], [1], [2]]


def test_without_the_option_a_run_stops_there() -> None:
    cut(image(1), 600)
    with feed(VOC) as made:
        made.next()
        for _ in range(2):
            with pytest.raises(SourceError, match=rf"\): {image(1)}: damaged, or not an image"):
                made.next()
        assert made.skipped == 0


def test_the_first_sample_may_be_skipped() -> None:
    cut(image(0), 600)
    with feed(VOC, skip_corrupt=True) as made:
        assert shades(made, 4) == [[1], [2], [3], [1]]


def test_other_batches_are_what_they_were() -> None:
    cut(image(1), 600)
    with feed(BATCHES, skip_corrupt=True) as made:
        assert shades(made, 2) == [[2, 3]] * 2


def test_random_orders_stay() -> None:
    Path(LIST).rename("voc/ImageSets/Segmentation/train.txt")
    train = VOC.replace("'val'", "'train', 'seed': 5")
    Path("net.prototxt").write_text(train)
    with Feed(read_graph("net.prototxt")) as made:
        whole = shades(made, 30)
    image(2).write_text("nothing")
    with Feed(read_graph("net.prototxt"), skip_corrupt=True) as made:
        assert shades(made, 15) == [each for each in whole if each != [2]][:15]


def test_nothing_but_damage_stops_all_the_same() -> None:
    for i in range(SAMPLES):
        image(i).write_text("nothing")
    with pytest.raises(
        SourceError,
        match=r"no batch can be read: each of 4 in a row holds .* the last was v",
    ):
        feed(VOC, skip_corrupt=True)


def test_labels_outside_the_classes_are_never_skipped() -> None:
    labelled(7)
    with pytest.raises(SourceError, match=r"label 7 at \(x 4, y 1\) of "):
        feed(VOC, skip_corrupt=True)
