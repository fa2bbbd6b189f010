"""What the packages may know of each other, and what each module owes its reader."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from structure import (
    circle,
    dependencies,
    forbidden,
    imported,
    modules,
    too_long,
    tree,
    unannotated,
    undocumented,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "netspec"
MODULES = modules(PACKAGE)

# The packages from the bottom up, with what each may import.
ALLOWED = {
    "proto": "",
    "errors": "",
    "formats": "errors proto",
    "layers": "errors formats proto",
    "frontend": "errors formats layers proto",
    "geometry": "errors frontend layers proto",
    "runtime": "errors formats frontend layers proto",
    "sources": "errors formats frontend layers proto runtime",
    "weights": "errors formats frontend layers proto runtime",
    "inspect": "errors formats frontend geometry layers proto sources",
    "spec": "errors frontend geometry layers proto",
    "build": "errors frontend layers proto runtime sources weights",
    "segmentation": "errors formats frontend geometry layers proto runtime sources",
    "solving": "errors formats frontend layers proto runtime segmentation sources weights",
    "reporting": "errors formats inspect layers proto runtime segmentation solving weights",
    "caffe": (
        "errors formats frontend geometry inspect layers proto reporting runtime "
        "solving sources spec weights"
    ),
    "cli": (
        "build caffe errors formats frontend inspect layers proto reporting runtime "
        "segmentation solving sources spec weights"
    ),
    "__main__": "cli",
    # Within a package: which of its sister packages an inner one may import.
    "sources.images": "",
    "sources.sets": "sources.images",
    "sources.readers": "sources.images sources.sets",
    "solving.diagnosis": "",
    "solving.snapshots": "",
    "solving.distributed": "",
}
# Who alone may import a library, as it is or in part.
OWNERS = {
    "flax": {"netspec.runtime.module"},
    "optax": {"netspec.solving.updates"},
    "google": {
        "netspec.frontend.any_fields",
        "netspec.frontend.prototxt",
        "netspec.weights.caffemodel",
    },
}
MOST_LINES = 350
MOST_IN_FUNCTION = 40


def users(library: str) -> set[str]:
    """The modules that import a library or a part of it."""
    return {
        name
        for name, path in MODULES.items()
        if any(found == library or found.startswith(f"{library}.") for found in imported(path))
    }


@pytest.mark.parametrize("library", OWNERS)
def test_libraries_have_owners(library: str) -> None:
    assert users(library) - OWNERS[library] == set()


def test_packages_import_what_the_table_allows() -> None:
    known = {name.split(".")[1] for name in MODULES if "." in name}
    assert known == {row for row in ALLOWED if "." not in row}
    crossings = forbidden(PACKAGE, ALLOWED)
    assert [line for line in crossings if not line.startswith("netspec imports")] == []


def test_the_table_allows_nothing_upward() -> None:
    rows = list(ALLOWED)
    for row, others in ALLOWED.items():
        assert all(rows.index(other) < rows.index(row) for other in others.split()), row


def test_no_import_goes_in_a_circle() -> None:
    assert circle(PACKAGE) == []


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A package of two rooms, the upper of which imports the lower."""
    package = tmp_path / "planted"
    for room in ("low", "high"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "low" / "a.py").write_text("import os\n")
    (package / "high" / "b.py").write_text("from planted.low import a\n")
    return package


ROOMS = {"planted": "", "low": "", "high": "low"}


def test_what_is_allowed_is_not_found(planted: Path) -> None:
    assert circle(planted) == []
    assert forbidden(planted, ROOMS) == []
    assert dependencies(planted)["planted.high.b"] == {"planted.low.a"}


def test_a_planted_circle_is_found(planted: Path) -> None:
    (planted / "low" / "a.py").write_text("def late():\n    import planted.high.b\n")
    assert set(circle(planted)) == {"planted.low.a", "planted.high.b"}


def test_a_planted_upward_import_is_found(planted: Path) -> None:
    (planted / "low" / "c.py").write_text("from planted.high.b import a\n")
    assert forbidden(planted, ROOMS) == ["low imports high: planted.low.c -> planted.high.b"]


def test_a_planted_import_of_a_sister_is_found(planted: Path) -> None:
    (planted / "low" / "inner").mkdir()
    (planted / "low" / "other").mkdir()
    (planted / "low" / "inner" / "d.py").write_text("import planted.low.other.e\n")
    (planted / "low" / "other" / "e.py").write_text("")
    rows = {**ROOMS, "low.inner": "", "low.other": ""}
    (found,) = forbidden(planted, rows)
    assert found.startswith("low.inner imports low.other")
    assert forbidden(planted, {**rows, "low.inner": "low.other"}) == []


def test_a_planted_long_file_is_found(planted: Path) -> None:
    path = planted / "low" / "long.py"
    path.write_text("def f():\n" + "    pass\n" * 41 + "x = 1\n" * 400)
    assert too_long(path, MOST_LINES, MOST_IN_FUNCTION) == [
        "long.py: 442 lines, at most 350",
        "long.py:1 f: 42 lines, at most 40",
    ]


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short_and_say_what_they_are(name: str) -> None:
    assert too_long(MODULES[name], MOST_LINES, MOST_IN_FUNCTION) == []
    if not name.endswith("__main__"):
        assert docstring(name), "no docstring"


def docstring(name: str) -> str | None:
    """What a module says of itself."""
    return ast.get_docstring(tree(MODULES[name]))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, path in MODULES.items()
        if path.name == "__init__.py"
        and name.count(".")
        and not name.startswith(("netspec.proto", "netspec.caffe"))
    ],
)
def test_packages_say_what_they_must_not_import(name: str) -> None:
    assert re.search(r"\b[Ii]mports\b", docstring(name) or "")


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_is_documented(name: str) -> None:
    assert list(undocumented(MODULES[name])) == []


@pytest.mark.parametrize("name", MODULES)
def test_every_function_is_annotated(name: str) -> None:
    assert list(unannotated(MODULES[name])) == []


@pytest.mark.parametrize(
    "module", ["netspec", "netspec.cli", "netspec.frontend.prototxt", "netspec.errors"]
)
def test_what_starts_fast_imports_no_jax(module: str) -> None:
    heavy = ("jax", "flax", "optax", "h5py", "scipy", "PIL")
    script = f"import sys, {module}; print(*sorted(sys.modules.keys() & set({heavy})))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_help_imports_no_jax() -> None:
    script = (
        "import sys\nfrom netspec.cli import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("Usage:")
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    "command",
    [
        "upgrade old.prototxt new.prototxt",
        "plot none.log -o a.svg",
        "data shapes set --train 1 --val 1",
    ],
)
def test_verbs_that_compute_nothing_import_no_jax(command: str, tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text('layers { type: RELU name: "a" bottom: "x" top: "x" }')
    script = (
        "import sys\nfrom netspec.cli import main\n"
        f"try:\n    main({command.split()})\nfinally:\n    print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.endswith("False\n"), done.stderr
