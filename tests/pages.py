"""Texts in Markdown that tell the truth: their blocks run, in order, and print what they show."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import inf, isclose
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# What differs from run to run: all numbers but those that are part of a name. Glog's day is one.
NUMBER = re.compile(
    r"(?<=_iter_)\d+|(?<=^I)\d{4}|(?<![\w.])(?:\d+(?:[.,]\d+)*(?:e[+-]\d+)?)(?!\w)(?!\.\w)"
)
# What differs from machine to machine, and not by much.
DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d*(?:e[+-]\d+)?(?!\w)")

ANY_NUMBER = r"-?[\d.,]+(?:e[+-]\d+)?"


class Numbers(NamedTuple):
    """Which numbers of an output may be others, and how far from those shown."""

    found: re.Pattern[str]
    relative: float
    absolute: float

    def alike(self, shown: str, printed: str) -> bool:
        """Whether one may stand for the other."""
        return self.relative == inf or isclose(
            float(shown), float(printed), rel_tol=self.relative, abs_tol=self.absolute
        )


ANY = Numbers(NUMBER, inf, inf)
NEAR = Numbers(DECIMAL, 0.1, 0.05)


class Block(NamedTuple):
    """A block of a text, and the outputs that the text shows after it.

    It is run by a shell, or is a file whose first line, a comment, names it.
    status: which exit status the text says that a shell's block ends with.
    """

    language: str
    code: str
    status: int
    shown: list[str]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a text in Markdown; a ``text`` block belongs to the one above it."""
    found: list[Block] = []
    for language, status, code in re.findall(
        r"^```(\w+)(?: exit=(\d+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    ):
        if language == "text":
            found[-1].shown.append(code)
        else:
            assert language in ("sh", "python"), f"nothing runs a block of {language}"
            found.append(Block(language, code, int(status or 0), []))
    yield from found


def pattern(shown: str, numbers: Numbers = ANY) -> str:
    """A regular expression for an output: a group for each number that may be another.

    Any lines may stand for one of dots.
    """
    lines = []
    for line in shown.splitlines():
        # Numbers are padded to a width, so that any spaces stand for any.
        names = [re.sub(r"(\\ )+", " +", re.escape(part)) for part in numbers.found.split(line)]
        lines.append("(?:.*\n)*?" if line == "..." else f"({ANY_NUMBER})".join(names) + "\n")
    return "".join(lines)


def find(shown: str, printed: str, numbers: Numbers = ANY) -> re.Match[str] | None:
    """Where an output stands in what was printed, if it does."""
    match = re.search(f"^{pattern(shown, numbers)}", printed, re.MULTILINE)
    if match is None:
        return None
    expected = [number for line in shown.splitlines() for number in numbers.found.findall(line)]
    pairs = zip(expected, match.groups(), strict=True)
    return match if all(numbers.alike(*pair) for pair in pairs) else None


def commands(folder: Path) -> dict[str, str]:
    """An environment in which ``netspec`` and ``python`` are commands; makes ``folder/bin``."""
    (folder / "bin").mkdir()
    for name, command in (("python", ""), ("netspec", "-m netspec")):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        **os.environ,
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def follow(
    text: str,
    folder: Path,
    environment: dict[str, str],
    numbers: Numbers = ANY,
    change: Callable[[str], str] = str,
) -> None:
    """Do what a text says in a folder, and hold what it shows against what is printed.

    change: what becomes of a shell's block before it runs.
    """
    found = list(blocks(text))
    assert any(block.language == "sh" and block.shown for block in found), "no output to compare"
    for block in found:
        if block.language != "sh":
            assert block.code.startswith("# "), f"a file without a name:\n{block.code}"
            (folder / block.code.splitlines()[0][2:]).write_text(block.code, encoding="utf-8")
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", change(block.code)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        said = f"{block.code}\n{done.stdout}"
        assert done.returncode == block.status, said
        rest = done.stdout
        for output in block.shown:
            match = find(output, rest, numbers)
            assert match, f"{said}\ndoes not show\n{output}"
            rest = rest[match.end() :]


def missing_modules(text: str) -> list[str]:
    """The modules that a text names, ``netspec/errors.py``, and that do not exist."""
    named = sorted(set(re.findall(r"\bnetspec/[\w/]+\.py\b", text)))
    return [name for name in named if not (ROOT / name).is_file()]


def anchors(text: str) -> set[str]:
    """The links to a text's own chapters."""
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}


def links(path: Path) -> list[str]:
    """The links of a text, if it has any; each of them leads somewhere."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)]+)\)", text)
    own = anchors(text)
    for link in found:
        assert link in own if link.startswith("#") else (path.parent / link).exists(), link
    return found
