"""What the modules may know of each other, and what each of them owes its reader."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "netspec"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE / "proto"]
# A module may import those that stand before it, and what is not in the list.
STAGES = ("prototxt", "upgrade", "phase", "graph", "shapes", "module", "build")
# Who alone may import a library, as it is or in part.
OWNERS = {
    "flax": {"netspec.runtime.module"},
    "optax": {"netspec.solving.updates"},
    "google": {"netspec.frontend.prototxt", "netspec.weights.caffemodel"},
}
MOST_LINES = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """The module's name: ``netspec.layers`` for its ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    here = name_of(path)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{here} imports by a relative name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users(library: str) -> set[str]:
    """The modules that import a library or a part of it."""
    return {
        name_of(path)
        for path in MODULES
        if any(found == library or found.startswith(f"{library}.") for found in imported(path))
    }


@pytest.mark.parametrize("library", OWNERS)
def test_libraries_have_owners(library: str) -> None:
    assert users(library) - OWNERS[library] == set()


def test_nothing_imports_the_command_line() -> None:
    assert users("netspec.cli.main") - {"netspec.__main__"} == set()


def test_stages_know_only_those_above_them() -> None:
    for i, stage in enumerate(STAGES):
        known = set(imported(PACKAGE / f"{stage}.py"))
        below = {f"netspec.{name}" for name in STAGES[i + 1 :]}
        assert known & below == set(), f"netspec.{stage} stands above {known & below}"


def test_layers_are_plain_python_on_arrays() -> None:
    for path in sorted((PACKAGE / "layers").glob("*.py")):
        rooms = {found.split(".")[1] for found in imported(path) if found.startswith("netspec.")}
        assert rooms <= {"errors", "layers", "proto", "rows", "wire"}, name_of(path)


def test_leaves_know_nothing() -> None:
    """What layers import knows no layer."""
    for leaf, known in (
        ("errors", ()),
        ("files", ()),
        ("wire", ("netspec.errors",)),
        ("rows", ("netspec.errors", "netspec.formats.atomic")),
    ):
        found = [name for name in imported(PACKAGE / f"{leaf}.py") if name.startswith("netspec")]
        assert all(name.startswith(known) for name in found), leaf


@pytest.mark.parametrize(
    ("room", "strangers"),
    [
        ("sources", {"solving", "inspect", "caffe", "report"}),
        ("segmentation", {"solving", "inspect", "caffe", "report"}),
        ("inspect", {"solving", "caffe", "report", "sources"}),
        ("solving", {"inspect", "caffe", "report"}),
    ],
)
def test_rooms_do_not_know_who_uses_them(room: str, strangers: set[str]) -> None:
    for stranger in strangers:
        found = users(f"netspec.{stranger}")
        assert not any(f"{user}.".startswith(f"netspec.{room}.") for user in found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_short_and_say_what_they_are(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{lines} lines"
    if path.name != "__main__.py":
        assert ast.get_docstring(tree(path)), "no docstring"


def definitions(path: Path) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Every class and function of a module with its dotted name, those within others too."""

    def within(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | Function):
                yield f"{prefix}{child.name}", child
                yield from within(child, f"{prefix}{child.name}.")
            else:
                yield from within(child, prefix)

    yield from within(tree(path), "")


def is_setter(node: ast.ClassDef | Function) -> bool:
    """Whether this is the other half of a property."""
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)


def undocumented(path: Path) -> Iterator[str]:
    """Public classes and functions without a docstring.

    A method that a base class documents may go without.
    """
    found = dict(definitions(path))
    for name, node in found.items():
        *outer, own = name.split(".")
        if own.startswith("_") or any(
            part.startswith("_") or isinstance(found[".".join(outer[: i + 1])], Function)
            for i, part in enumerate(outer)
        ):
            continue
        owner = found[".".join(outer)] if outer else None
        overrides = isinstance(owner, ast.ClassDef) and owner.bases
        if not (ast.get_docstring(node) or overrides or is_setter(node)):
            yield name


def unannotated(path: Path) -> Iterator[str]:
    """Functions with an argument or a result of no stated type."""
    for name, node in definitions(path):
        if not isinstance(node, Function):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [rest for rest in (node.args.vararg, node.args.kwarg) if rest]
        bare = [a.arg for a in arguments if not a.annotation and a.arg not in ("self", "cls")]
        if bare or node.returns is None:
            yield name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_is_documented(path: Path) -> None:
    assert list(undocumented(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_function_is_annotated(path: Path) -> None:
    assert list(unannotated(path)) == []


@pytest.mark.parametrize(
    "module", ["netspec", "netspec.cli.main", "netspec.frontend.prototxt", "netspec.errors"]
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
        "import sys\nfrom netspec.cli.main import main\n"
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
        "import sys\nfrom netspec.cli.main import main\n"
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
