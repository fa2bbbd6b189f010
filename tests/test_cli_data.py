"""The commands of ``netspec data``: each does its work, and says in one line what it cannot."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from netspec.cli import main
from netspec.cli.progress_bar import with_progress
from netspec.proto.layers_pb2 import DataParameter, Datum
from netspec.segmentation.shapes_set import write_dataset
from netspec.sources.images.databases import open_database
from netspec.sources.images.transform import read_mean

FILES = Path(__file__).parent / "golden" / "data" / "files"
PICTURES = (np.arange(5 * 6 * 7 * 3) % 251).astype(np.uint8).reshape(5, 6, 7, 3)
NAMES = [f"{i}.png" for i in range(5)]
NET = """layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "voc_layers" layer: "VOCSegDataLayer"
    param_str: "{'voc_dir': 'voc', 'split': 'train', 'mean': (104, 117, 123)}" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 } }
"""
DEPLOY = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 } } }'


def run(*arguments: object) -> Result:
    """Run a verb; an exception of another kind than a user's mistake is raised."""
    result = CliRunner().invoke(main, ["data", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def output(*arguments: object) -> str:
    """What a verb prints, if it goes well."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set in PASCAL VOC's layout."""
    folder = tmp_path_factory.mktemp("set") / "voc"
    write_dataset(str(folder), 2, 1, size=(32, 40))
    return folder


@pytest.fixture(autouse=True)
def here(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with images, a list of them, nets, and what is none of these."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name, picture in zip(NAMES, PICTURES, strict=True):
        Image.fromarray(picture).save(tmp_path / "images" / name)
    Image.fromarray(PICTURES[0, :4]).save(tmp_path / "images" / "small.png")
    lines = [f"{name} {i}\n" for i, name in enumerate(NAMES)]
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "sizes.txt").write_text("0.png 0\nsmall.png 1\n")
    (tmp_path / "unlabelled.txt").write_text("0.png\n")
    (tmp_path / "bytes").write_bytes(b"\xff\x00")
    (tmp_path / "empty").mkdir()
    (tmp_path / "voc").symlink_to(voc)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "lost.prototxt").write_text(NET.replace("'voc_dir': 'voc'", "'voc_dir': 'lost'"))
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    return tmp_path


def records(path: str, backend: int = DataParameter.LMDB) -> Iterator[tuple[str, Datum]]:
    database = open_database(Path(path), backend)
    for key, value in database.records():
        yield key.decode(), Datum.FromString(value)
    database.close()


# lmdb, leveldb


@pytest.mark.parametrize("verb", ["lmdb", "leveldb"])
def test_a_list_becomes_a_database(verb: str) -> None:
    if verb == "leveldb":
        pytest.importorskip("plyvel")
    assert output(verb, "list.txt", "new/db", "--root", "images") == "new/db: 5 records\n"
    found = dict(records("new/db", DataParameter.DB.Value(verb.upper())))
    assert list(found) == [f"{i:08d}_{name}" for i, name in enumerate(NAMES)]
    for i, datum in enumerate(found.values()):
        stored = np.frombuffer(datum.data, np.uint8).reshape(3, 6, 7)
        np.testing.assert_array_equal(stored, PICTURES[i][:, :, ::-1].transpose(2, 0, 1))
        assert datum.label == i


def sizes(datum: Datum) -> tuple[int, int, int]:
    return datum.channels, datum.height, datum.width


def kind(datum: Datum) -> str:
    return str(Image.open(io.BytesIO(datum.data)).format)


@pytest.mark.parametrize(
    ("options", "look", "seen"),
    [
        ("", sizes, (3, 6, 7)),
        ("--root images/", sizes, (3, 6, 7)),
        ("--resize 4x5", sizes, (3, 4, 5)),
        ("--gray", sizes, (1, 6, 7)),
        ("--gray --resize 4x5 --check-size", sizes, (1, 4, 5)),
        ("--encoded", kind, "PNG"),
        ("--encoded png", kind, "PNG"),
        ("--encoded jpg", kind, "JPEG"),
        ("--encoded=jpg --resize 4x5", kind, "JPEG"),
    ],
)
def test_options(options: str, look: Callable[[Datum], object], seen: object) -> None:
    """Behind what is converted, and before it."""
    root = [] if "--root" in options else ["--root", "images"]
    for i, order in enumerate(
        (["list.txt", "db0", *options.split()], [*options.split(), "list.txt", "db1"])
    ):
        output("lmdb", *order, *root)
        assert [look(datum) for _, datum in records(f"db{i}")] == [seen] * 5


def test_shuffled() -> None:
    """In an order that is the same each time."""
    orders = []
    for name in ("one", "two"):
        output("lmdb", "list.txt", name, "--root", "images", "--shuffle")
        orders.append([datum.label for _, datum in records(name)])
    assert sorted(orders[0]) == [0, 1, 2, 3, 4] != orders[0]
    assert orders[0] == orders[1]


def test_progress_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nowhere else: `output` has seen that."""
    screen = io.StringIO()
    monkeypatch.setattr(
        "netspec.cli.progress_bar.Console", lambda **_: Console(file=screen, force_terminal=True)
    )
    assert list(with_progress(iter("abc"), 3)) == ["a", "b", "c"]
    assert "100%" in screen.getvalue()


# mean


def test_mean_of_a_list_and_of_databases() -> None:
    """As one pastes it into a net, channels as they are stored: blue, green, red."""
    expected = PICTURES.mean((0, 1, 2))[::-1]
    lines = "".join(f"mean_value: {value:.7g}\n" for value in expected)
    assert output("mean", "list.txt", "--root", "images") == lines
    for options in ([], ["--encoded"]):
        name = f"db{len(options)}"
        output("lmdb", "list.txt", name, "--root", "images", *options)
        assert output("mean", name, "-o", f"{name}/mean.binaryproto") == lines
        mean = read_mean(Path(name) / "mean.binaryproto")
        np.testing.assert_allclose(mean, PICTURES.mean(0)[:, :, ::-1].transpose(2, 0, 1), rtol=1e-6)


def test_mean_of_a_leveldb() -> None:
    pytest.importorskip("plyvel")
    lines = output("mean", FILES / "db_leveldb", "-o", "mean.binaryproto")
    assert lines.count("mean_value: ") == 3
    assert Path("mean.binaryproto").read_bytes() == (FILES / "mean.binaryproto").read_bytes()


# show


@pytest.mark.parametrize("options", [[], ["-n", "3", "-o", "out/sheet.jpg", "--seed", "4"]])
def test_show_writes_a_sheet(options: list[str]) -> None:
    out = "out/sheet.jpg" if options else "sheet.png"
    assert output("show", "net.prototxt", *options) == f"{out}\n"
    with Image.open(out) as sheet:
        assert sheet.format == ("JPEG" if options else "PNG")
        assert sheet.width > 2 * 240
        pixels = np.asarray(sheet.convert("RGB"))
    # Background, and the void around the shapes; a JPEG holds them roughly.
    for colour in ((0, 0, 0), (224, 224, 192)):
        assert (np.abs(pixels.astype(int) - colour) < 40).all(2).sum() > 1000


def test_show_of_another_phase_or_seed() -> None:
    """The seed decides what is drawn, the phase which layers draw."""
    data, conv, rest = NET.partition('layer { name: "conv"')
    phases = [
        data.replace('top: "label"', f'top: "label" include {{ phase: {phase} }}')
        for phase in ("TRAIN", "TEST")
    ]
    Path("phases.prototxt").write_text(
        "".join([phases[0], phases[1].replace("train", "val"), conv, rest])
    )
    made = []
    for i, options in enumerate(("", "--seed 0", "--seed 1", "--phase test")):
        output("show", "phases.prototxt", "-o", f"{i}.png", "-n", 6, *options.split())
        made.append(Path(f"{i}.png").read_bytes())
    assert made[0] == made[1]
    assert len(set(made)) == 3


# prepare


def test_prepare_tells_what_is_there() -> None:
    result = run("prepare", "voc", "voc")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "PASCAL VOC in voc"
    assert lines[2].startswith("  train: 2 samples (1112 or 1464 when whole); voc/Segmentation")


@pytest.mark.parametrize("name", ["voc", "sbd", "nyud", "siftflow", "context"])
def test_prepare_of_what_is_not_there(name: str) -> None:
    """Status 1, and how one comes by it; also where the published nets look for it."""
    for folder in (["nowhere"], []):
        result = run("prepare", name, *folder)
        assert result.exit_code == 1
        assert result.stderr == ""
        head, line = result.stdout.splitlines()
        assert head.endswith(" in nowhere" if folder else head.rpartition(" in ")[2])
        assert line.startswith("  not there: get ")


def test_prepare_of_what_is_incomplete() -> None:
    Path("sbd").mkdir()
    result = run("prepare", "sbd", "sbd", "--convert")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:3] == [
        "  train: no sbd/train.txt",
        "  val: no sbd/val.txt",
    ]


# Mistakes


NO_LABEL = (
    'unlabelled.txt:1: "0.png" does not end in a label; a line is a path, a space, and an integer'
)
ROOTLESS = "list.txt: lacks 5 of its 5 images, the first is 0.png; is the root folder right?"
SMALL = (
    "images/small.png: 3x4x7 (channels, height, width), but the first image is 3x6x7; resize them "
    "to one size"
)
MISTAKES = [
    ("lmdb nowhere.txt db", "nowhere.txt: no such file"),
    ("lmdb images db", "images: is a directory"),
    ("lmdb bytes db", "bytes: not a text file; source lists images and labels, one of each on a "
     "line"),
    ("lmdb unlabelled.txt db", NO_LABEL),
    ("lmdb list.txt db", ROOTLESS),
    ("lmdb list.txt db --root lost", ROOTLESS.replace("0.png", "lost/0.png")),
    ("lmdb list.txt empty --root images", "empty: exists already"),
    ("leveldb list.txt list.txt --root images", "list.txt: exists already"),
    ("lmdb list.txt list.txt/db --root images", "list.txt/db: not a directory"),
    ("lmdb sizes.txt db --root images --check-size", SMALL),
    ("lmdb sizes.txt db --root images --check-size --encoded", SMALL),
    *((f"lmdb list.txt db --resize {size}", f"--resize {size}: write height x width as 256x256")
      for size in ("256", "0x5", "5x0", "-3x5", "axb", "5x5x5", "5X5.0")),
    ("mean nowhere", "nowhere: no such file"),
    ("mean empty", "empty: no database: it has neither CURRENT (LEVELDB) nor data.mdb (LMDB)"),
    ("mean list.txt", ROOTLESS),
    ("mean sizes.txt --root images", SMALL),
    ("mean empty --root images", "empty: a database; only a list has a root folder"),
    ("mean list.txt --root images -o empty", "empty: is a directory"),
    ("mean list.txt --root images -o bytes/mean", "bytes/mean: not a directory"),
    ("show nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("show bytes", "bytes: not a text file; weights (.caffemodel) are given beside the net, not "
     "instead of it"),
    ("show deploy.prototxt", "deploy.prototxt: has no data layers in this phase; the caller hands "
     "in x"),
    ("show net.prototxt -n 0", "0 samples; at least 1 is needed"),
    ("show net.prototxt -o sheet.pdf", "sheet.pdf: the name of a contact sheet ends in .png or "
     ".jpg"),
    ("show net.prototxt -n 1 -o bytes/sheet.png", "bytes/sheet.png: not a directory"),
    ("prepare nowhere", 'unknown data set "nowhere" (voc, sbd, nyud, siftflow, context)'),
    ("prepare vok", 'unknown data set "vok" (voc, sbd, nyud, siftflow, context); did you mean '
     '"voc"?'),
    ("prepare voc voc --convert", "convert: voc needs no conversion"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_mistakes(here: Path, arguments: str, message: str) -> None:
    """One line, status 1, and nothing is left behind."""
    before = sorted(here.rglob("*"))
    result = run(*arguments.split())
    assert result.stderr == f"netspec: {message}\n"
    assert result.exit_code == 1
    assert result.stdout == ""
    assert sorted(here.rglob("*")) == before


def test_show_without_the_data() -> None:
    result = run("show", "lost.prototxt")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        'netspec: lost.prototxt:1: layer "data" (Python): voc_dir "lost": no such folder, from '
    )
    assert result.stderr.count("\n") == 1


def test_a_damaged_image_leaves_no_database(here: Path) -> None:
    Path("images/3.png").write_bytes(Path("images/3.png").read_bytes()[:40])
    result = run("lmdb", "list.txt", "db", "--root", "images")
    assert result.exit_code == 1
    assert result.stderr.startswith("netspec: images/3.png: damaged, or not an image (")
    assert not [path for path in here.iterdir() if "db" in path.name]


@pytest.mark.parametrize("verb", ["leveldb list.txt db --root images", "mean db"])
def test_without_the_library_of_leveldb(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    if verb.startswith("mean"):
        Path("db").mkdir()
        Path("db/CURRENT").touch()
    result = run(*verb.split())
    assert result.exit_code == 1
    assert result.stderr.endswith(
        ': LevelDB needs plyvel: pip install "netspec[leveldb]"; or convert it to LMDB\n'
    )
    assert result.stderr.count("\n") == 1
    assert Path("db").exists() == verb.startswith("mean")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("lmdb list.txt", "Missing argument 'DIR'"),
        ("lmdb list.txt db --encoded=gif", "'gif' is not one of"),
        ("lmdb list.txt db --encoded gif", "unexpected extra argument (gif)"),
        ("mean", "Missing argument 'DB|LIST'"),
        ("show net.prototxt -n many", "'many' is not a valid integer"),
        ("show net.prototxt --phase tset", "'tset' is not one of 'train', 'test'"),
        ("prepare", "Missing argument"),
        ("lmbd list.txt db", "No such command 'lmbd'"),
    ],
)
def test_usage(arguments: str, words: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("verb", ["lmdb", "leveldb", "mean", "show", "prepare"])
def test_help(verb: str) -> None:
    text = output(verb, "--help")
    assert text.startswith("Usage: ")
    assert text == output(verb, "-h")
