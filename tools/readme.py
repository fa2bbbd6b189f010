"""Write the README's layer table from the registry: ``python tools/readme.py``."""

from __future__ import annotations

import re
from pathlib import Path

from netspec.layers import FAMILIES, REGISTRY, Layer

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = "<!-- layers: written by tools/readme.py -->", "<!-- end of layers -->"


def table() -> str:
    """A row a layer type, family by family."""
    rows = ["| layer | family | bottoms | tops | computes |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        name = family.__name__.rsplit(".", 1)[-1]
        for layer in sorted(REGISTRY.values(), key=lambda layer: layer.__name__):
            if layer.family == name:
                rows.append(_row(layer))
    return "\n".join(rows)


def _row(layer: type[Layer]) -> str:
    tops = "as bottoms" if layer.same_count else _span(layer.tops)
    formula = layer.formula.replace("|", "\\|")
    return (
        f"| {layer.__name__} | {layer.family} | {_span(layer.num_bottoms)} | {tops} | {formula} |"
    )


def _span(allowed: range) -> str:
    least, most = allowed.start, allowed.stop - 1
    if least == most:
        return str(least)
    return f"{least} or more" if most >= 1 << 29 else f"{least} to {most}"


def written(readme: str) -> str:
    """The README with the table as it should be."""
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{START}\n{table()}\n{END}", readme)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
