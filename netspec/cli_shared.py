"""What several verbs do."""

from __future__ import annotations

import click


def keep_programs() -> None:
    """Let what is compiled serve the next start, too."""
    from netspec import compiling

    compiling.keep_programs(lambda why: click.echo(f"netspec: warning: {why}", err=True))
