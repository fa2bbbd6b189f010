"""A table of all layer types in the registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from netspec.layers import FAMILIES, REGISTRY, Layer


class CatalogueRow(NamedTuple):
    """One layer type: how many bottoms and tops, the learned blobs, what is computed."""

    type: str
    family: str
    bottoms: str
    tops: str
    blobs: str
    formula: str


def entries() -> Iterator[CatalogueRow]:
    """A row a layer type, family by family."""
    for family in FAMILIES:
        name = family.__name__.rsplit(".", 1)[-1]
        for layer in sorted(REGISTRY.values(), key=lambda layer: layer.__name__):
            if layer.family == name:
                yield _row(layer)


def table() -> str:
    """All rows as text, in columns."""
    rows: list[tuple[str, ...]] = [CatalogueRow._fields, *entries()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _row(layer: type[Layer]) -> CatalogueRow:
    arity = layer.arity
    tops = "as bottoms" if arity.tops_as_bottoms else _span(arity.tops)
    blobs = ", ".join(blob_names(layer))
    bottoms = _span(arity.bottoms)
    return CatalogueRow(layer.__name__, layer.family, bottoms, tops, blobs, layer.formula)


def _span(allowed: range) -> str:
    least, most = allowed.start, allowed.stop - 1
    if least == most:
        return str(least)
    return f"{least} or more" if most >= 1 << 29 else f"{least} to {most}"


def blob_names(layer: type[Layer]) -> list[str]:
    """The learned blobs that a type may have, as ``Blobs: ...`` in its docstring lists them."""
    found = re.search(r"Blobs: (.*?)\.(?:\s|$)", layer.__doc__ or "", re.DOTALL)
    if not found:
        return []
    parts = re.split("[,;]", re.sub(r"\([^()]*\)", "", found[1]))
    names = (
        re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(?:(?:if|of)\s.*)?", part, re.DOTALL) for part in parts
    )
    return [name[1] for name in names if name]
