"""``netspec plot``. Imports no JAX."""

from __future__ import annotations

import click

from netspec.inspect.plot_logs import plot as plot_logs


@click.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option("-o", "--out", required=True, help="curves.svg or curves.png.")
def plot(logs: tuple[str, ...], out: str) -> None:
    """Draw what LOGs tell of training: loss, learning rate and tests over iterations.

    A LOG is a PREFIX.log.jsonl, or the text that netspec or Caffe printed.
    """
    plot_logs(logs, out)
    click.echo(out)
