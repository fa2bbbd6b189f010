"""A solver is built whole from its options: nothing is set on it, or on its parts, afterwards."""

import ast
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from netspec.solving.options import SolverOptions

PACKAGE = Path(__file__).resolve().parents[1] / "netspec"
# What a solver and its parts are called by those who hold one.
PARTS = {"solver", "_solver", "_loop", "trainer", "tests", "guard", "store", "mesh", "callback"}


def set_from_outside(source: str) -> Iterator[int]:
    """The lines in which an attribute of a solver or of a part of one is assigned to."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in PARTS:
                yield node.lineno


@pytest.mark.parametrize("package", ["cli", "caffe", "reporting", "solving"])
def test_nothing_is_set_on_a_solver_from_outside(package: str) -> None:
    files = sorted((PACKAGE / package).rglob("*.py"))
    assert files
    found = {path.name: list(set_from_outside(path.read_text(encoding="utf-8"))) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "solver.stopping = True",
        "self._loop.trainer.keep = ()",
        "solver.guard.debug_nans, x = True, 1",
        "solver.iteration += 1",
        "del solver.callback",
    ],
)
def test_what_is_set_from_outside_is_found(line: str) -> None:
    assert list(set_from_outside(line)) == [1]


def test_options_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        SolverOptions().keep = 3  # type: ignore[misc]
