"""Write the README's layer table from the registry: ``python tools/readme.py``."""

from __future__ import annotations

import re
from pathlib import Path

from netspec.inspect.layer_catalogue import entries

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = "<!-- layers: written by tools/readme.py -->", "<!-- end of layers -->"


def table() -> str:
    """A row a layer type, family by family."""
    rows = ["| layer | family | bottoms | tops | computes |", "|---|---|---|---|---|"]
    for entry in entries():
        formula = entry.formula.replace("|", "\\|")
        cells = (entry.type, entry.family, entry.bottoms, entry.tops, formula)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def written(readme: str) -> str:
    """The README with the table as it should be."""
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{START}\n{table()}\n{END}", readme)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
