"""docs/training.md tells the truth: its commands run, in order, and print what it shows."""

import re
import shutil
from pathlib import Path

import pytest
from pages import ROOT, anchors, commands, find, follow, links

DOC = ROOT / "docs" / "training.md"
# Commands run exactly as written, but for this: all counts of iterations, in commands and solvers,
# are divided by it.
FEWER = 100
COUNTS = re.compile(
    r"((?:_iter_|--max-iter |Iteration |\b(?:max_iter|test_interval|snapshot|display): ))(\d+)\b"
)


def fewer(text: str) -> str:
    """The same with fewer iterations; iteration 0 stays."""
    return COUNTS.sub(lambda match: f"{match[1]}{-(-int(match[2]) // FEWER)}", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has: the repository's nets and solvers."""
    shutil.copytree(ROOT / "nets", tmp_path / "nets")
    (tmp_path / "solvers").mkdir()
    for path in (ROOT / "solvers").glob("shapes-*.prototxt"):
        (tmp_path / "solvers" / path.name).write_text(fewer(path.read_text()))
    return tmp_path


@pytest.mark.slow
def test_commands_print_what_the_text_shows(folder: Path) -> None:
    pytest.importorskip("tensorboardX")
    follow(DOC.read_text(encoding="utf-8"), folder, commands(folder), change=fewer)
    assert (folder / "training.svg").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("Iteration 0, loss = 1.79\n", "Iteration 0, loss = 1.8\n", True),
        ("a_iter_30.caffemodel\n", "a_iter_4.caffemodel\n", True),
        ("I1121 10:34 x\nI1121 y\n", "I0203 11:12 x\nI0203 y\n", True),
        ("loss at 1e-05 (3 left)\n", "loss at 2.5e-10 (4 left)\n", True),
        ("a 1\n...\nb\n", "a 2\nother\nb\n", True),
        ("a\nb\n", "a\nother\nb\n", False),
        ("fcn32s and conv1_1\n", "fcn16s and conv1_1\n", False),
        ("conv1_1\n", "conv2_1\n", False),
        ("loss = 1.79\n", "loss = nan\n", False),
        ("1x3x96x128\n", "1x3x96x64\n", False),
    ],
)
def test_outputs_are_compared_but_for_numbers(shown: str, printed: str, fits: bool) -> None:
    match = find(shown, printed)
    assert (match is not None and match.group() == printed) == fits


def test_links_lead_somewhere() -> None:
    chapters = anchors(DOC.read_text(encoding="utf-8"))
    assert chapters
    missing = chapters - set(links(DOC))
    assert not missing, "a chapter that the list above does not have"
