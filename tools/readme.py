"""Write the README's tables of layers and of packages: ``python tools/readme.py``."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

from netspec.inspect.layer_catalogue import entries

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def layers() -> str:
    """A row a layer type, family by family."""
    rows = ["| layer | family | bottoms | tops | computes |", "|---|---|---|---|---|"]
    for entry in entries():
        formula = entry.formula.replace("|", "\\|")
        link = f"[{entry.type}](docs/layers/{entry.family}.md#{entry.type.lower()})"
        cells = (link, entry.family, entry.bottoms, entry.tops, formula)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def packages() -> str:
    """A row for each module at the root of netspec, and for each package: what it is for."""
    modules = [path for path in sorted((ROOT / "netspec").glob("*.py")) if path.stem[0] != "_"]
    folders = sorted(path.parent for path in (ROOT / "netspec").glob("*/**/__init__.py"))
    rows = ["| | |", "|---|---|"]
    rows += [_row(f"netspec/{path.name}", path) for path in modules]
    rows += [_row(f"{path.relative_to(ROOT)}/", path / "__init__.py") for path in folders]
    return "\n".join(rows)


def _row(name: str, path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return f"| `{name}` | {paragraph.removesuffix('.').replace('``', '`')} |"


TABLES: Mapping[str, Callable[[], str]] = {"layers": layers, "packages": packages}


def written(readme: str) -> str:
    """The README with its tables as they should be."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name}: written by tools/readme.py -->", f"<!-- end of {name} -->"
        head, _, rest = readme.partition(start)
        _, _, tail = rest.partition(end)
        readme = f"{head}{start}\n{table()}\n{end}{tail}"
    return readme


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
