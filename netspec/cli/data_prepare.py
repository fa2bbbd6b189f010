"""``netspec data prepare``: whether a published data set is complete."""

from __future__ import annotations

import click

from netspec.cli.progress_bar import with_progress
from netspec.sources.sets import prepare as sets


@click.command()
@click.argument("name", metavar="voc|sbd|nyud|siftflow|context")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--convert", is_flag=True, help="Write SBD's labels as PNGs, too.")
@click.option(
    "--sbd", default="data/sbdd/dataset", show_default=True, help="Where SBD is, for VOC's lists."
)
@click.pass_context
def prepare(ctx: click.Context, name: str, folder: str | None, convert: bool, sbd: str) -> None:
    """Say whether a set is ready for the published nets, and what it lacks.

    Lists that follow from others are written. Exit status 1 if the set is not ready.
    """
    report = sets.prepare(name, folder, convert, sbd, with_progress)
    for line in report.lines:
        click.echo(line)
    if not report.ready:
        ctx.exit(1)
