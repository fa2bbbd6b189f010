"""Figures as they are told: a table, JSON, and the machine that they hold for."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from netspec.sources.prefetch import cores

Row = Mapping[str, str | float | None]


def machine(*packages: str) -> dict[str, str | int]:
    """What the figures were taken on: processor, cores, Python, and the packages that are here."""
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": cores(),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known",
        "python": platform.python_version(),
    }
    for package in ("netspec", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows of the same columns as Markdown; three digits of a number, nothing for None."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[_cell(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell(tables: Sequence[Sequence[Row]], about: Mapping[str, str | int], path: str | None) -> None:
    """Print the machine and the tables, and write all to a JSON file if one is named."""
    click.echo(", ".join(f"{name} {value}" for name, value in about.items()))
    for rows in tables:
        click.echo(f"\n{table(rows)}")
    if path is not None:
        whole = {"machine": about, "tables": tables}
        Path(path).write_text(f"{json.dumps(whole, indent=1)}\n", encoding="utf-8")
        click.echo(f"\n{path}")


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
