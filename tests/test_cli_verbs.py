"""``netspec upgrade``, ``data`` and ``layers``, and the command itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import WEIGHTS, mistake, output, run
from command_line import here as here
from command_line import signals as signals
from command_line import trained as trained

from netspec import __version__
from netspec.cli import main
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import read_net
from netspec.inspect.layer_catalogue import entries
from netspec.proto.layers_pb2 import LayerParameter

# upgrade


def test_upgrade_a_net(here: Path) -> None:
    Path("old.prototxt").write_text('layers { name: "a" type: RELU bottom: "x" top: "y" }')
    assert output("upgrade", "old.prototxt", "new.prototxt") == "new.prototxt\n"
    (layer,) = read_net("new.prototxt").message.layer
    assert layer == LayerParameter(name="a", type="ReLU", bottom=["x"], top=["y"])


def test_upgrade_a_net_in_its_place(here: Path) -> None:
    before = read_graph("net.prototxt")
    output("upgrade", "net.prototxt", "net.prototxt")
    after = read_graph("net.prototxt")
    assert [node.layer.spec for node in after.nodes] == [node.layer.spec for node in before.nodes]


def test_upgrade_a_solver(here: Path) -> None:
    Path("old.prototxt").write_text('net: "n.prototxt" solver_type: ADAM')
    output("upgrade", "old.prototxt", "new.prototxt")
    assert Path("new.prototxt").read_text() == 'net: "n.prototxt"\ntype: "Adam"\n'


UPGRADES = [
    ("nowhere.prototxt new.prototxt", "nowhere.prototxt: no such file"),
    (f"{WEIGHTS} new.prototxt", f"{WEIGHTS}: not a text file; weights (.caffemodel) are given "
     "beside the net, not instead of it"),
    ("mixed.prototxt new.prototxt", "mixed.prototxt:2: has both 'layer' and 'layers'; rewrite the "
     "'layers { type: CONVOLUTION }' ones as 'layer { type: \"Convolution\" }'"),
    ("net.prototxt log.txt/new.prototxt", "log.txt/new.prototxt: not a directory"),
    ("net.prototxt snap", "snap: is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), UPGRADES, ids=[arguments for arguments, _ in UPGRADES]
)
def test_upgrade_mistakes(here: Path, arguments: str, message: str) -> None:
    Path("mixed.prototxt").write_text('layer { name: "a" }\nlayers { name: "b" }')
    assert mistake("upgrade", *arguments.split()) == message
    assert not Path("new.prototxt").exists()


# data


def test_data_shapes(here: Path) -> None:
    assert output("data", "shapes", "set", "--train", 2, "--val", 1, "--seed", 3) == "set\n"
    lists = Path("set/ImageSets/Segmentation")
    assert lists.joinpath("train.txt").read_text().split() == ["train_0000", "train_0001"]
    assert lists.joinpath("val.txt").read_text().split() == ["val_0000"]


SETS = [
    ("snap", "snap: holds files, and none says that they are a synthetic set "
     "(.netspec-synthetic); name another folder"),
    ("log.txt", "log.txt: not a directory"),
    ("set --train 0", "0 and 40 images of 128x96; needed are some of each, 32x32 or more"),
    ("set --seed -1", "seed -1: needed is 0 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), SETS, ids=[arguments for arguments, _ in SETS])
def test_data_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("data", "shapes", *arguments.split()) == message


# layers


def test_layers_lists_what_there_is() -> None:
    head, rule, *rows = output("layers").splitlines()
    assert head.split() == ["type", "family", "bottoms", "tops", "blobs", "formula"]
    assert set(rule) == {"-", " "}
    assert [row.split()[0] for row in rows] == [entry.type for entry in entries()]


# The command itself


@pytest.mark.parametrize("verb", [[], *([name] for name in main.commands), ["data", "shapes"]])
def test_help(verb: list[str]) -> None:
    text = output(*verb, "--help")
    assert text.startswith("Usage: ")
    assert text == output(*verb, "-h")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("slove", "No such command 'slove'"),
        ("solve", "Missing argument 'SOLVER'"),
        ("draw net.prototxt", "Missing option '-o'"),
        ("solve solver.prototxt --max-iter many", "'many' is not a valid integer"),
        ("draw net.prototxt -o net.svg --phase tset", "'tset' is not one of 'train', 'test'"),
    ],
)
def test_usage(arguments: str, words: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr


def test_as_a_program(tmp_path: Path) -> None:
    """Status 1, the message on stderr, nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "netspec", "upgrade", "nowhere.prototxt", "new.prototxt"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "netspec: nowhere.prototxt: no such file\n"


def test_version() -> None:
    """Of a package that need not be installed."""
    assert output("--version").endswith(f", version {__version__}\n")
    assert __version__[0].isdecimal()
