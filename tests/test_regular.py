"""Only regular files are opened, whatever a path in a prototxt, a list or an argument names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from netspec.caffe.io import load_image
from netspec.cli.verbs import main
from netspec.errors import NetSpecError, ParseError
from netspec.formats.regular import open_regular, read_bytes, require_regular
from netspec.formats.text import read_text
from netspec.frontend.prototxt import parse_net, read_binary_net, read_net, read_solver
from netspec.inspect.read_logs import read
from netspec.proto.layers_pb2 import TEST
from netspec.solving.snapshots.solverstate import read_state
from netspec.sources import open_source
from netspec.sources.sets.base import read_names
from netspec.weights.caffemodel import read_weights


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to(path)
    require_regular(path)
    with open_regular(str(path)) as file:
        assert file.read(1) == b"a"
    assert read_bytes(tmp_path / "link") == b"abc"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


NOT_FILES = {
    "pipe": "is a pipe, not a regular file",
    "/dev/zero": "is a device, not a regular file",
    ".": "is a directory",
    "a\0b": "no path of a file",
    "nil": "no such file",
    "n" * 5000: "file name too long",
}
READERS: list[Callable[[str], object]] = [
    read_net,
    read_solver,
    read_binary_net,
    read_weights,
    read_state,
    read,
    lambda path: read_names(Path(path)),
    load_image,
]


@pytest.mark.parametrize("named", NOT_FILES, ids=lambda name: repr(name)[:12])
def test_readers_of_paths_refuse_what_is_no_file(
    pipe: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(pipe.parent)
    for reader in READERS:
        with pytest.raises(NetSpecError) as caught:
            reader(named)
        assert str(caught.value).lower().endswith(NOT_FILES[named]), reader
        assert "\0" not in str(caught.value)
    with pytest.raises(OSError, match=f"(?i){NOT_FILES[named]}"):
        read_text(named)


LAYERS = {
    "HDF5Data": 'hdf5_data_param {{ batch_size: 1 source: "{}" }}',
    "ImageData": 'image_data_param {{ batch_size: 1 source: "{}" }}',
    "WindowData": """window_data_param {{ batch_size: 1 source: "{}" }}
        transform_param {{ crop_size: 8 }}""",
    "Data": 'data_param {{ batch_size: 1 backend: LMDB source: "{}" }}',
}


@pytest.mark.differs("regular-files")
@pytest.mark.parametrize("named", ["pipe", "/dev/zero", ".", "a\\000b", "n" * 5000])
@pytest.mark.parametrize("kind", LAYERS)
def test_data_layers_refuse_what_is_no_file(
    pipe: Path, monkeypatch: pytest.MonkeyPatch, kind: str, named: str
) -> None:
    monkeypatch.chdir(pipe.parent)
    net = parse_net(f'layer {{ type: "{kind}" top: "x" top: "y" {LAYERS[kind].format(named)} }}')
    with pytest.raises(NetSpecError) as caught:
        open_source(net.message.layer[0], TEST, None, net.places[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ImageData", "HDF5Data"])
@pytest.mark.parametrize("named", ["pipe", "/dev/zero", ".", "a\0b", "n" * 5000])
def test_lists_may_not_name_what_is_no_file(
    pipe: Path, monkeypatch: pytest.MonkeyPatch, kind: str, named: str
) -> None:
    monkeypatch.chdir(pipe.parent)
    (pipe.parent / "list.txt").write_text(f"{named} 0\n" if kind == "ImageData" else named)
    net = parse_net(f'layer {{ type: "{kind}" top: "x" {LAYERS[kind].format("list.txt")} }}')
    with pytest.raises(NetSpecError) as caught:
        open_source(net.message.layer[0], TEST, None, net.places[0])
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("verb", ["summary", "draw", "rf", "plot", "upgrade", "score"])
def test_verbs_refuse_a_pipe(pipe: Path, verb: str) -> None:
    written = {"draw": ["-o", "a.svg"], "plot": ["-o", "a.svg"], "upgrade": ["new"]}
    more = written.get(verb, [str(pipe)] if verb == "score" else [])
    result = CliRunner().invoke(main, [verb, str(pipe), *more])
    assert result.exit_code == 1
    assert result.stderr == f"netspec: {pipe}: is a pipe, not a regular file\n"


def test_a_parse_error_shows_a_nul() -> None:
    assert str(ParseError("a\0b: no path")) == "a\\0b: no path"
