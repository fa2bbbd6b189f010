"""What a tree of Python modules is like: who imports whom, in circles or upward, and how long."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path, root: Path) -> str:
    """The module's name: ``netspec.layers`` for its ``__init__.py``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by name, but for code that protoc wrote."""
    return {
        module_name(path, package.parent): path
        for path in sorted(package.rglob("*.py"))
        if not path.stem.endswith("_pb2")
    }


def imported(path: Path) -> Iterator[str]:
    """Every module, or name in one, that a file imports anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dependencies(package: Path) -> dict[str, set[str]]:
    """For each module of a package, those of the package that it imports."""
    known = modules(package)

    def module_of(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {module_of(found) for found in imported(path)} - {"", name}
        for name, path in known.items()
    }


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; or none."""
    try:
        TopologicalSorter(dependencies(package)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def forbidden(package: Path, allowed: Mapping[str, str]) -> list[str]:
    """Imports that a table of packages does not allow.

    allowed: package or root module, relative to ``package`` -> the others that it may import,
    space-separated; one without a row may be imported by none and import none. A row for a package
    within another (``solving.snapshots``) holds beside the outer one's, and says which of its
    sisters it may import.
    """
    rows = {row: set(others.split()) for row, others in allowed.items()}
    found = []
    for name, others in dependencies(package).items():
        for other in sorted(others):
            a, b = (full.removeprefix(f"{package.name}.") for full in (name, other))
            for row, (mine, theirs) in _levels(a, b, rows).items():
                if theirs not in rows.get(row, set()):
                    found.append(f"{mine} imports {theirs}: {name} -> {other}")
    return found


def _levels(a: str, b: str, rows: Mapping[str, set[str]]) -> dict[str, tuple[str, str]]:
    """The row that each level of two modules' names is checked by, where they differ there."""
    here, there = a.split(".")[0], b.split(".")[0]
    if here != there:
        return {here: (here, there)}
    inner_a, inner_b = _inner(a, rows), _inner(b, rows)
    if inner_a and inner_b and inner_a != inner_b:
        return {inner_a: (inner_a, inner_b)}
    return {}


def _inner(name: str, rows: Mapping[str, set[str]]) -> str:
    # A package's own ``__init__`` stands in none of the packages within it.
    inner = ".".join(name.split(".")[:2])
    return inner if "." in inner and inner in rows else ""


def too_long(path: Path, most_lines: int, most_in_function: int) -> list[str]:
    """The file and the functions in it that have more lines than they may."""
    found = []
    lines = path.read_text(encoding="utf-8").count("\n")
    if lines > most_lines:
        found.append(f"{path.name}: {lines} lines, at most {most_lines}")
    for node in ast.walk(tree(path)):
        if isinstance(node, Function):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > most_in_function:
                found.append(
                    f"{path.name}:{node.lineno} {node.name}: {length} lines, "
                    f"at most {most_in_function}"
                )
    return found


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
        if not (ast.get_docstring(node) or overrides or _is_setter(node)):
            yield name


def _is_setter(node: ast.ClassDef | Function) -> bool:
    """Whether this is the other half of a property."""
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)


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
