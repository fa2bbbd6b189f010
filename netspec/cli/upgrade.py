"""``netspec upgrade``. Imports no JAX."""

from __future__ import annotations

import click

from netspec.frontend.upgrade import upgrade_file


@click.command()
@click.argument("old")
@click.argument("new")
def upgrade(old: str, new: str) -> None:
    """Write net (or solver) OLD in the current schema to NEW."""
    upgrade_file(old, new)
    click.echo(new)
