"""Wrong command lines, each answered by one message that names what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import WEIGHTS, mistake, output, run
from command_line import here as here
from command_line import signals as signals
from command_line import trained as trained
from PIL import Image

LONG = "n" * 5000
SEGMENT = f"segment deploy.prototxt {WEIGHTS} image.png"
# Words that an invocation has "-" for: an empty one.
WRONG = {
    "summary -": "the name of a file is empty",
    "draw - -o net.svg": "the name of a file is empty",
    "rf -": "the name of a file is empty",
    "solve -": "the name of a file is empty",
    "plot - -o plot.svg": "the name of a file is empty",
    "upgrade - new.prototxt": "the name of a file is empty",
    "run -": "the name of the script is empty",
    "run folder": "folder: a folder without __main__.py; name the script in it",
    "run nothing.py": "nothing.py: no such file",
    "draw deploy.prototxt -o /proc/x.svg": "/proc/x.svg: no file can be made there",
    "upgrade net.prototxt /proc/x": "/proc/x: no file can be made there",
    "draw deploy.prototxt -o folder.svg": "folder.svg: is a directory",
    "draw deploy.prototxt -o net.prototxt/x.svg": "not a directory",
    "data lmdb good.txt db --resize 100000x100000": (
        "--resize 100000x100000: an image of at most 715,827,882 pixels"
    ),
    f"data lmdb good.txt db --resize {LONG.replace('n', '9')}x1": "an image of at most",
    "data lmdb good.txt db --resize 0x3": "--resize 0x3: write height x width as 256x256",
    f"segment deploy.prototxt {WEIGHTS} {LONG}": "file name too long",
    f"{SEGMENT} --memory nan": "--memory nan: a number of GiB, more than 0",
    f"{SEGMENT} --memory 0": "--memory 0: a number of GiB, more than 0",
    f"{SEGMENT} --memory 1e30": "--memory 1e+30: a number of GiB, more than 0",
    f"{SEGMENT} --tile 0": "--tile 0: write it as 600",
    f"{SEGMENT} --mean x": "--mean x: write it as 104,117,123",
    f"{SEGMENT} --blob nothing": 'no blob "nothing"',
    "test net.prototxt --iterations 0": "0 test batches; at least 1 is needed",
    "data show net.prototxt -n 0": "0 samples; at least 1 is needed",
    "summary deploy.prototxt --shape data": "--shape data: write it as data=1,3,500,500",
    "summary deploy.prototxt --shape nothing=1": 'no input blob "nothing"',
    "summary deploy.prototxt --shape data=1,3,99999,99999": "at most 2,147,483,647 fit a blob",
    "summary solver.prototxt": "it belongs in a solver, but this file is read as a net",
    f"summary {WEIGHTS}": "not a text file; weights (.caffemodel) are given beside the net",
    "rf deploy.prototxt nothing": 'no blob "nothing"',
    "surgery deploy.prototxt -o w.caffemodel --rename x": "--rename x: write it as OLD=NEW",
    "plot huge.jsonl -o plot.svg": "no record of training",
}


@pytest.mark.parametrize("words", WRONG, ids=lambda words: words[:50])
def test_one_message(words: str, here: Path) -> None:
    for folder in ("folder", "folder.svg"):
        Path(folder).mkdir()
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save("image.png")
    Path("good.txt").write_text("image.png 0\n")
    Path("huge.jsonl").write_text(_step("9" * 400))
    said = mistake(*("" if word == "-" else word for word in words.split()))
    assert WRONG[words] in said


def _step(iteration: str) -> str:
    rest = json.dumps({"loss": 1, "smoothed_loss": 1, "lr": 1, "outputs": {}})[1:]
    return f'{{"event": "step", "iteration": {iteration}, {rest}\n'


def test_lines_with_iterations_beyond_caffes_are_passed_over(here: Path) -> None:
    head = f"Iteration {'9' * 5000}, loss = 3\n"
    Path("some.jsonl").write_text(_step("1") + _step("9" * 400) + head + _step("2"))
    assert output("plot", "some.jsonl", "-o", "plot.svg") == "plot.svg\n"


def test_more_samples_than_can_be_counted(here: Path) -> None:
    Path("net.prototxt").write_text("")
    assert "has no data layers" in mistake("data", "show", "net.prototxt", "-n", str(10**20))


def test_memory_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise MemoryError("Unable to allocate 28 GiB")

    monkeypatch.setattr("netspec.cli.inspect.look_at", refused)
    assert mistake("summary", "net.prototxt") == (
        "there is not enough memory (Unable to allocate 28 GiB)"
    )


def test_a_file_that_the_system_refuses(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "secret.txt")

    monkeypatch.setattr("netspec.cli.inspect.look_at", refused)
    assert mistake("summary", "net.prototxt") == "secret.txt: permission denied"
    monkeypatch.setattr("netspec.cli.inspect.look_at", lambda *_: print(1 // 0))
    with pytest.raises(ZeroDivisionError):
        run("summary", "net.prototxt")
