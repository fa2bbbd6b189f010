"""What several verbs do."""

from __future__ import annotations

import click

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["f32", "tf32", "bf16"]),
    help="What products are computed in; f32 by default.",
)


def keep_programs() -> None:
    """Let what is compiled serve the next start, too."""
    from netspec.runtime import compile_cache

    compile_cache.keep_programs(lambda why: click.echo(f"netspec: warning: {why}", err=True))
