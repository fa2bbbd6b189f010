"""Caffe's command line: flags in every spelling, what docs say of them, and mistakes."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from caffe_command_line import FILES, WEIGHTS, lines, output, run
from caffe_command_line import classified as classified
from caffe_command_line import here as here
from caffe_command_line import made as made
from caffe_command_line import settings as settings
from caffe_command_line import trained as trained
from click.testing import CliRunner

from netspec.cli.caffe_flags import Flagged
from netspec.runtime import devices

# Flags


@click.command(cls=Flagged)
@click.argument("arguments", nargs=-1)
@click.option("--model", default="")
@click.option("--log_dir", default="")
@click.option("--iterations", default=50)
@click.option("--gray/--nogray")
@click.option("--notes", default="")
def tool(**found: Any) -> None:
    """A command that says what it was given, but for defaults."""
    defaults = {"arguments": (), "model": "", "log_dir": "", "iterations": 50, "gray": False}
    print(repr({k: v for k, v in found.items() if v not in (defaults.get(k, ""),)}))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("", {}),
        ("--model=a", {"model": "a"}),
        ("-model=a", {"model": "a"}),
        ("--model a", {"model": "a"}),
        ("-model a", {"model": "a"}),
        ("--model=a=b", {"model": "a=b"}),
        ("--model=", {}),
        ("--model -a", {"model": "-a"}),
        ("--model=a -model b", {"model": "b"}),
        ("--log_dir=a", {"log_dir": "a"}),
        ("-log-dir a", {"log_dir": "a"}),
        ("--iterations 7", {"iterations": 7}),
        ("-iterations=-7", {"iterations": -7}),
        ("-gray", {"gray": True}),
        ("--gray=true", {"gray": True}),
        ("--gray=1", {"gray": True}),
        ("--gray=No", {}),
        ("--gray --nogray", {}),
        ("--gray false", {"gray": True, "arguments": ("false",)}),
        ("--notes=a", {"notes": "a"}),
        (
            "-minloglevel 1 -v=2 --stderrthreshold 0 --vmodule=a=1 -logtostderr --colorlogtostderr",
            {},
        ),
        ("a --model b c", {"arguments": ("a", "c"), "model": "b"}),
        ("a - -- --model b", {"arguments": ("a", "-", "--model", "b")}),
    ],
)
def test_flags(arguments: str, found: dict[str, Any]) -> None:
    result = CliRunner().invoke(tool, arguments.split())
    assert ast.literal_eval(result.output) == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--modle=a", "No such option '--modle'. Did you mean '--model'?"),
        ("-x", "No such option '--x'."),
        ("--nomodel", "No such option '--nomodel'. Did you mean '--model'?"),
        ("a --model", "Option '--model' requires an argument."),
        ("--gray=maybe", "--gray=maybe: write true or false"),
        ("--iterations=many", "'many' is not a valid integer"),
    ],
)
def test_flags_that_are_wrong(arguments: str, words: str) -> None:
    result = CliRunner().invoke(tool, arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr


VERBS = """train test time device_query classify detect draw_net upgrade_net_proto_text
upgrade_net_proto_binary upgrade_solver_proto_text convert_imageset compute_image_mean
extract_features""".split()


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str) -> None:
    assert output(verb, "--help").startswith(f"Usage: main caffe {verb} ")


def test_flags_before_the_command(trained: Path) -> None:
    before = lines("-model=net.prototxt", "-iterations", 1, "test", "--weights", WEIGHTS)
    behind = lines("test", "-model=net.prototxt", "-iterations", 1, "--weights", WEIGHTS)
    assert before == behind
    assert behind[2] == "Running for 1 iterations."


# What docs say

DOC = Path(__file__).resolve().parents[1] / "docs" / "caffe-commands.md"


def documented() -> list[str]:
    """The commands of the page's shell block."""
    (block,) = re.findall(r"```sh\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    return (
        block.replace("\\\n", " ").split(" 2>&1")[0].splitlines()
        + block.replace("\\\n", " ").splitlines()[1:]
    )


def test_every_verb_is_documented() -> None:
    verbs = {line.split()[2] for line in documented()}
    assert verbs == set(VERBS)


@pytest.mark.parametrize("line", documented())
def test_documented_flags_exist(line: str) -> None:
    """They are read up to the first file that is not here."""
    _, _, *arguments = shlex.split(line)
    result = run(*arguments)
    assert result.exit_code in (0, 1), result.output


# Mistakes

CPU = "JAX finds no GPU here, only 0 (cpu); without --gpu it computes there, and pip install "
MISTAKES = [
    ("train", "train needs a solver: --solver=solver.prototxt"),
    ("train --solver=lost", "lost: no such file"),
    ("train --solver=solver.prototxt --gpu=0", f"--gpu 0: {CPU}'jax[cuda13]' lets it find one"),
    ("train --solver=solver.prototxt --log_dir=lost", "--log_dir lost: no such file"),
    ("test --weights=a", "test needs a net: --model=net.prototxt"),
    ("test --model=net.prototxt", "test needs weights: --weights=net.caffemodel"),
    ("time", "time needs a net: --model=net.prototxt"),
    ("time --model=net.prototxt --gpu=one", "--gpu one: write a number, numbers as 0,1, or all"),
    ("device_query --gpu=all", f"--gpu all: {CPU}'jax[cuda13]' lets it find one"),
    ("convert_imageset ./ lost db", "lost: no such file"),
    ("convert_imageset ./ list.txt db --resize_width=4", "resized to height 0 and width 4; give "
     "both or none"),
    ("compute_image_mean lost", "lost: no such folder"),
    ("upgrade_net_proto_text solver.prototxt new", 'solver.prototxt:1: unknown field "net" in '
     "NetParameter; it belongs in a solver, but this file is read as a net"),
    ("upgrade_net_proto_binary list.txt new", "list.txt: is no binary net; is it a .caffemodel?"),
    ("upgrade_net_proto_binary lost new", "lost: no such file"),
    ("upgrade_solver_proto_text lost new", "lost: no such file"),
    ("extract_features a net.prototxt conv,fc db 1 lmdb", "2 blobs (conv,fc) and 1 databases (db); "
     "give a database for each blob, and each once"),
    ("draw_net net.prototxt net.pdf", 'net.pdf: cannot draw ".pdf"; the name of a drawing ends in '
     ".svg, .png or .dot"),
    ("classify 0.png out --mean_file= --model_def=lost", "lost: no such file"),
    ("classify 0.png out --mean_file=lost.npy", "lost.npy: no such file"),
    ("classify 0.png out --mean_file=list.txt", "list.txt: no .npy of numbers"),
    ("classify 0.png out --mean_file= --model_def=net.prototxt", "net.prototxt: has no Input layer "
     "to take images"),
    ("detect windows.csv out", "windows.csv: --crop_mode selective_search takes a .txt"),
    ("detect list.txt out --crop_mode=list", "list.txt: --crop_mode list takes a .csv"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_mistakes(here: Path, arguments: str, message: str) -> None:
    """One line, after what was said before it, status 1, and nothing is left behind."""
    if CPU in message and devices.accelerators():
        pytest.skip("needs a machine without a GPU")
    before = sorted(here.rglob("*"))
    result = run(*arguments.split())
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1] == f"netspec: {message}"
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("conv,fcc a,b 1 lmdb", 'net.prototxt: no blob "fcc"; did you mean "fc"?'),
        ("conv,loss a,b 1 lmdb", 'blob "loss" is scalar; a record takes (N), (N, C), (N, C, H) or '
         "(N, C, H, W)"),
        ("conv a 0 lmdb", "0 batches; at least 1 is needed"),
        ("fc,conv a,list.txt 1 lmdb", "list.txt: exists already"),
    ],
)  # fmt: skip
def test_features_that_cannot_be(trained: Path, arguments: str, message: str) -> None:
    before = sorted(trained.rglob("*"))
    result = run("extract_features", WEIGHTS, "net.prototxt", *arguments.split())
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"netspec: {message}"
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,xmin,ymin,xmax\n", "windows.csv: its first line lacks ymax; it names the "
         "columns filename, xmin, ymin, xmax, ymax"),
        ("filename,xmin,ymin,xmax,ymax\n", "windows.csv: has no windows"),
        ("filename,xmin,ymin,xmax,ymax\n0.png,1,2,3\n", "windows.csv:2: a window is filename, "
         "xmin, ymin, xmax, ymax, the latter in pixels"),
    ],
)  # fmt: skip
def test_windows_that_are_none(classified: Path, text: str, message: str) -> None:
    Path("windows.csv").write_text(text)
    result = run("detect", "windows.csv", "o.csv", *FILES, "--mean_file=", "--crop_mode=list")
    assert result.exit_code == 1
    assert result.stderr == f"netspec: {message}\n"
