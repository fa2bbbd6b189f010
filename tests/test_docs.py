"""docs/training.md tells the truth: its commands run, in order, and print what it shows."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "training.md"
# Commands run exactly as written, but for this: all counts of iterations, in commands and solvers,
# are divided by it.
FEWER = 100
COUNTS = re.compile(
    r"((?:_iter_|--max-iter |Iteration |\b(?:max_iter|test_interval|snapshot|display): ))(\d+)\b"
)
# What differs from run to run: all numbers but those that are part of a name. Glog's day is one.
NUMBER = re.compile(
    r"(?<=_iter_)\d+|(?<=^I)\d{4}|(?<![\w.])(?:\d+(?:[.,]\d+)*(?:e[+-]\d+)?)(?!\w)(?!\.\w)"
)

ANY_NUMBER = r"-?[\d.,]+(?:e[+-]\d+)?"


class Block(NamedTuple):
    """A shell block, and the outputs that the text shows after it.

    status: which exit status it says that the block ends with.
    """

    shell: str
    status: int
    shown: list[str]


def blocks(text: str) -> Iterator[Block]:
    """The shell blocks of a text in Markdown; a ``text`` block belongs to the one above it."""
    found: list[Block] = []
    for language, status, code in re.findall(
        r"^```(\w+)(?: exit=(\d+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    ):
        if language == "text":
            found[-1].shown.append(code)
        else:
            assert language == "sh", f"nothing runs a block of {language}"
            found.append(Block(code, int(status or 0), []))
    yield from found


def fewer(text: str) -> str:
    """The same with fewer iterations; iteration 0 stays."""
    return COUNTS.sub(lambda match: f"{match[1]}{-(-int(match[2]) // FEWER)}", text)


def pattern(shown: str) -> str:
    """A regular expression for an output: any number for each, any lines for one of dots."""
    lines = []
    for line in shown.splitlines():
        # Numbers are padded to a width, so that any spaces stand for any.
        names = [re.sub(r"(\\ )+", " +", re.escape(part)) for part in NUMBER.split(line)]
        lines.append("(?:.*\n)*?" if line == "..." else ANY_NUMBER.join(names) + "\n")
    return "".join(lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has: the repository's nets and solvers, and ``netspec`` among the commands."""
    shutil.copytree(ROOT / "nets", tmp_path / "nets")
    (tmp_path / "solvers").mkdir()
    for path in (ROOT / "solvers").glob("shapes-*.prototxt"):
        (tmp_path / "solvers" / path.name).write_text(fewer(path.read_text()))
    (tmp_path / "bin").mkdir()
    for name, command in (("python", ""), ("netspec", "-m netspec")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    return {
        **cache,
        **os.environ,
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }


def test_commands_print_what_the_text_shows(folder: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("tensorboardX")
    for shell, status, shown in blocks(DOC.read_text(encoding="utf-8")):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", fewer(shell)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        said = f"{shell}\n{done.stdout}"
        assert done.returncode == status, said
        rest = done.stdout
        for output in shown:
            match = re.search(f"^{pattern(output)}", rest, re.MULTILINE)
            assert match, f"{said}\ndoes not show\n{output}"
            rest = rest[match.end() :]
    assert (folder / "training.svg").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("Iteration 0, loss = 1.79\n", "Iteration 0, loss = 1.8\n", True),
        ("a_iter_30.caffemodel\n", "a_iter_4.caffemodel\n", True),
        ("I1121 10:34 x\n", "I0203 11:12 x\n", True),
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
    assert bool(re.fullmatch(pattern(shown), printed)) == fits


def test_links_lead_somewhere() -> None:
    text = DOC.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
    links = re.findall(r"\]\(([^)]+)\)", text)
    for link in links:
        assert link in anchors if link.startswith("#") else (DOC.parent / link).exists(), link
    assert anchors <= set(links), "a chapter that the list above does not have"
