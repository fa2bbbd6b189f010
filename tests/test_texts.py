"""Text files in the encodings of shells and editors are read wherever text is read."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from image_sources import images, noise
from list_sources import opened
from PIL import Image

from netspec.cli.caffe_windows import read_windows as read_csv
from netspec.cli.verbs import main
from netspec.errors import ParseError, SourceError, WeightsError
from netspec.frontend.prototxt import is_solver, read_net, read_solver
from netspec.inspect.read_logs import read
from netspec.sources.readers.image_list import read_list
from netspec.sources.readers.segmentation_list import read_pairs
from netspec.sources.readers.window_file import read_windows
from netspec.sources.sets.base import read_names
from netspec.sources.sets.pascal_context import read_class_names
from netspec.weights.caffemodel import read_weights

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]
NET = 'name: "Größe"\nlayer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } }\n'
LOG = "I0101 00:00:00.000000 1 solver.cpp:237] Iteration 20, loss = 0.5\n"
READ: dict[str, tuple[str, Callable[[Path], object], object]] = {
    "net": (NET, lambda path: read_net(path).message.name, "Größe"),
    "solver": ("base_lr: 2 # Größe\n", lambda path: read_solver(path).message.base_lr, 2),
    "kind": ("base_lr: 2 # Größe\n", is_solver, True),
    "log": (LOG, lambda path: read(path).smoothed, {20: 0.5}),
    "list": ("ä.png 3\nb c.png 4\n", read_list, (["ä.png", "b c.png"], [3, 4])),
    "pairs": ("ä.png b.png\n", lambda path: tuple(read_pairs(path)[0]), ("ä.png", "b.png")),
    "names": ("ä\nb\n", read_names, ["ä", "b"]),
    "classes": (
        "1: ä\n2: b\n",
        lambda path: read_class_names(path.parent)[1:],
        ("ä", "b"),
    ),
    "windows": (
        "# 0\nä.png\n3\n8\n8\n1\n1 0.9 0 0 3 3\n",
        lambda path: read_windows(path, 0.5, 0.5).images,
        ["ä.png"],
    ),
    "csv": (
        "filename, xmin, ymin, xmax, ymax\nä.png, 1, 2, 3, 4\n",
        read_csv,
        {"ä.png": [(2, 1, 4, 3)]},
    ),
}


@pytest.mark.differs("text-encodings")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", READ)
def test_texts_are_read(tmp_path: Path, kind: str, encoding: str) -> None:
    text, reader, expected = READ[kind]
    path = tmp_path / "59_labels.txt"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + text.replace("\n", "\r\n")).encode(encoding))
    assert reader(path) == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sources_read_their_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    Path("list.txt").write_bytes(f"{mark}ä.h5\r\n".encode(encoding))
    with h5py.File("ä.h5", "w") as file:
        file["x"] = np.arange(3)
    source = opened(
        'layer { type: "HDF5Data" top: "x" hdf5_data_param { source: "list.txt" batch_size: 3 } }'
    )
    assert source.next()["x"].tolist() == [0, 1, 2]


def test_a_net_of_powershell_is_summarised_and_its_log_drawn(tmp_path: Path) -> None:
    net, log = tmp_path / "net.prototxt", tmp_path / "log.txt"
    net.write_bytes(NET.encode("utf-16"))
    log.write_bytes(LOG.encode("utf-16"))
    result = CliRunner().invoke(main, ["summary", str(net)])
    assert (result.exit_code, result.stderr) == (0, "")
    result = CliRunner().invoke(main, ["plot", str(log), "-o", str(tmp_path / "a.svg")])
    assert result.exit_code == 0


def test_texts_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(NET.encode("utf-16") + b"x")
    with pytest.raises(ParseError) as caught:
        read_net(path)
    at = len(NET.encode("utf-16"))
    assert str(caught.value) == (
        f"{path}: begins as UTF-16-LE text, but is damaged at byte {at}; save it as UTF-8"
    )
    path.write_bytes((NET + "\0").encode("utf-16"))
    with pytest.raises(ParseError, match="not a text file"):
        read_net(path)
    path.write_bytes(NET.encode("utf-16"))
    with pytest.raises(WeightsError, match="is prototxt text"):
        read_weights(path)


def test_comments_in_older_encodings(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    for start in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(start + b"# Gr\xf6\xdfe\r\nname: 'a'\r\n")
        assert read_net(path).message.name == "a"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png 1 2", 'list.txt: "a.png 1 2" holds 2 labels, but'),
        ("a.png 1 2 3", 'list.txt: "a.png 1 2 3" holds 3 labels, but'),
        ("a.png 0.5 0.25", 'list.txt:1: "a.png 0.5 0.25" holds 2 labels, but'),
        ("a.png 1,0,1", 'list.txt:1: "a.png 1,0,1" holds 3 labels, but'),
    ],
)
def test_several_labels_a_line_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(4, 4)).save("a.png")
    Path("list.txt").write_text(f"{line}\n")
    with pytest.raises(SourceError) as caught:
        images('source: "list.txt" batch_size: 1')
    assert str(caught.value).endswith(
        f"{message} an image list has one a line, an integer; HDF5Data or a Python layer reads "
        "several labels, and fractions"
    )


def test_several_labels_are_named_where_absent_data_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(4, 4)).save("a.png")
    Path("net.prototxt").write_text(
        'layer { name: "d" type: "ImageData" top: "x" top: "y" '
        'image_data_param { source: "list.txt" batch_size: 1 } }'
    )
    Path("list.txt").write_text("a.png 1 2\n")
    for verb in (
        "summary net.prototxt",
        "data lmdb list.txt db",
        "caffe convert_imageset ./ list.txt db",
    ):
        result = CliRunner().invoke(main, verb.split())
        assert result.exit_code == 1
        assert 'list.txt: "a.png 1 2" holds 2 labels, but' in result.output
    monkeypatch.setenv("NETSPEC_MAX_MEGAPIXELS", "many")
    Path("list.txt").write_text("a.png 1\n")
    result = CliRunner().invoke(main, ["summary", "net.prototxt"])
    assert "NETSPEC_MAX_MEGAPIXELS=many: a number of millions" in result.output


def test_a_name_that_ends_in_a_number_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(4, 4)).save("a.png")
    Path("a.png").rename("a 1")
    Path("list.txt").write_text("a 1 2\n")
    assert images('source: "list.txt" batch_size: 1').next()["label"].tolist() == [2]
