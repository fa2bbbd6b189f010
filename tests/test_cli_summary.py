"""``netspec summary`` and ``netspec rf``."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from command_line import FORK, UNKNOWN, changed, mistake, output, run
from command_line import here as here
from command_line import signals as signals
from command_line import trained as trained

# summary


def test_summary(here: Path) -> None:
    lines = output("summary", "net.prototxt").splitlines()
    assert lines[3].split() == ["conv", "Convolution", "1x4x16x20", "112", "0.0", "0.0"]
    assert lines[-5].endswith("parameters, 502 of them learned; 0.0 GMAC a run")
    assert output("summary", "deploy.prototxt", "--phase", "test").count("\n") == 21
    assert "1x4x36x27" in output("summary", "deploy.prototxt", "--shape", "data=1,3,71,53")


def test_summary_of_what_is_known(here: Path) -> None:
    Path("fork.prototxt").write_text(FORK)
    assert output("summary", "fork.prototxt") == UNKNOWN + (
        "layer  type         top      params  MMAC  MiB\n"
        "-----  -----------  -------  ------  ----  ---\n"
        "in     Input        1x3x5x7                0.0\n"
        "conv   Convolution  1x2x5x7       8   0.0  0.0\n"
        "grow   Interp       ?             ?     ?    ?\n"
        "next   Convolution  ?             ?     ?    ?\n"
        "side   Pooling      1x2x1x3                0.0\n"
        "more   Interp       ?             ?     ?    ?\n"
        "odd    Poolng       ?             ?     ?    ?\n"
        "\n"
        "type         layers  params  MMAC   MiB\n"
        "-----------  ------  ------  ----  ----\n"
        "Input             1                 0.0\n"
        "Convolution       2      8+  0.0+  0.0+\n"
        "Interp            2       ?     ?     ?\n"
        "Pooling           1                 0.0\n"
        "Poolng            1       ?     ?     ?\n"
        "\n"
        "8 parameters, 8 of them learned, as far as shapes are known; 0.0 GMAC a run\n"
        "parameters       0.0 MiB\n"
        "momentum         0.0 MiB\n"
        "activations      0.0 MiB\n"
        "training, about  0.0 MiB\n"
    )


@pytest.mark.parametrize("form", ["csv", "json"])
def test_summary_for_other_programs(here: Path, form: str) -> None:
    """What is not known is said apart from it."""
    Path("fork.prototxt").write_text(FORK)
    result = run("summary", "fork.prototxt", "--format", form)
    assert (result.exit_code, result.stderr) == (0, UNKNOWN)
    found = (
        json.loads(result.stdout)
        if form == "json"
        else list(csv.reader(io.StringIO(result.stdout)))
    )
    assert len(found) == (4 if form == "json" else 14)


def test_summary_without_the_data(here: Path) -> None:
    shutil.rmtree("voc")
    note, *lines = output("summary", "net.prototxt", "--shape", "label=1,1,71,53").splitlines()
    assert note == (
        "without the shapes that hang on data, as the data is not here; "
        "give --shape data=1,3,500,500"
    )
    assert lines[2].split() == [
        "data", "Python", "?", "1x1x71x53", "0.0+", "voc_layers.VOCSegDataLayer",
    ]  # fmt: skip


SUMMARIES = [
    ("nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("deploy.prototxt --shape data", "--shape data: write it as data=1,3,500,500"),
    ("deploy.prototxt --shape dta=1,3,5,7", 'deploy.prototxt: no input blob "dta"; the net is fed '
     "data"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), SUMMARIES, ids=[arguments for arguments, _ in SUMMARIES]
)
def test_summary_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("summary", *arguments.split()) == message


# rf


def test_rf(here: Path) -> None:
    assert output("rf", "deploy.prototxt") == (
        "in pixels of data\n"
        "\n"
        "blob   stride  field  offset\n"
        "-----  ------  -----  ------\n"
        "data        1      1       0\n"
        "conv        2      3       0\n"
        "up          1      5    -1.5\n"
        "score       1      5    -0.5\n"
        "\n"
        'no least pad: deploy.prototxt: layer "score" (Crop): cannot crop "up" to "data": offset '
        "15/2 is no whole number of pixels; change a pad or kernel by one\n"
    )
    even = changed("deploy.prototxt", "kernel_size: 4", "kernel_size: 3")
    assert output("rf", even).endswith("\nleast pad of conv that aligns every input size: 1\n")
    assert output("rf", "net.prototxt", "conv", "--phase", "train").splitlines()[2:5] == [
        "blob  stride  field  offset",
        "----  ------  -----  ------",
        "conv       2      3       0",
    ]
    # Of the pads that there might be, not of the one that there is.
    small = changed(even, "pad: 1", "pad: 0")
    result = run("rf", small)
    assert result.stdout.endswith("\nleast pad of conv that aligns every input size: 1\n")
    assert result.stderr.startswith(f"with the pads that it has it cannot run: {small}:")
    assert '\n\nloss sees all of "data": layer "loss" (SoftmaxWithLoss)\n\n' in output(
        "rf", "net.prototxt"
    )


RFS = [
    ("nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("deploy.prototxt scor", 'deploy.prototxt: no blob "scor"; did you mean "score"?'),
    ("net.prototxt loss", 'net.prototxt: "loss" sees all of "data": layer "loss" '
     "(SoftmaxWithLoss)"),
    ("deploy.prototxt --shape data", "--shape data: write it as data=1,3,500,500"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), RFS, ids=[arguments for arguments, _ in RFS])
def test_rf_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("rf", *arguments.split()) == message
