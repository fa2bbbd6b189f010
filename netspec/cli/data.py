"""The verbs of ``netspec data``: a function a verb, each a few lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from netspec.errors import NetSpecError, counted, fail


@click.group()
def data() -> None:
    """Make and look at data sets."""


@data.command()
@click.argument("folder", default="data/shapes")
@click.option("--train", default=160, show_default=True, help="Images to train on.")
@click.option("--val", default=40, show_default=True, help="Images to test on.")
@click.option("--seed", default=0, show_default=True)
def shapes(folder: str, train: int, val: int, seed: int) -> None:
    """Make a small set of textured shapes in PASCAL VOC's layout in FOLDER."""
    from netspec.segmentation.shapes_set import write_dataset

    click.echo(write_dataset(folder, train, val, seed))


_ENCODINGS = ("png", "jpg")


class _Convert(click.Command):
    """A command whose ``--encoded`` may stand before its arguments, with a kind or without."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say so where no kind follows: click would take whatever follows for one."""
        return super().parse_args(
            ctx,
            [
                f"{arg}=" if arg == "--encoded" and following not in _ENCODINGS else arg
                for arg, following in zip(args, [*args[1:], ""], strict=True)
            ],
        )


def _converts(backend: str) -> click.Command:
    """The verb that makes a database of one kind."""

    @click.argument("listed", metavar="LIST")
    @click.argument("folder", metavar="DIR")
    @click.option("--root", default="", metavar="FOLDER", help="Where the listed paths begin.")
    @click.option("--resize", metavar="HxW", help="Make all images so high and wide: 256x256.")
    @click.option("--gray", is_flag=True, help="Store one channel of grey.")
    @click.option("--shuffle", is_flag=True, help="Store them in another order than the list's.")
    @click.option(
        "--encoded",
        is_flag=False,
        flag_value="",
        type=click.Choice(["", *_ENCODINGS]),
        metavar="[png|jpg]",
        help="Store image files, of the kind that each is, or of this one.",
    )
    @click.option("--check-size", is_flag=True, help="Refuse images of several sizes.")
    def convert(listed: str, folder: str, encoded: str | None, **options: Any) -> None:
        from netspec.proto.layers_pb2 import DataParameter
        from netspec.sources.convert import Listed, list_to_database

        height, width = _size(options["resize"])
        images = Listed(
            Path(listed),
            _as_folder(options["root"]),
            color=not options["gray"],
            height=height,
            width=width,
            seed=0 if options["shuffle"] else None,
        )
        count = list_to_database(
            images,
            Path(folder),
            DataParameter.DB.Value(backend.upper()),
            encoded,
            options["check_size"],
            _watched,
        )
        click.echo(f"{folder}: {counted(count, 'record')}")

    text = f"Write the images of LIST, a line `path label` each, to a new {backend} database DIR."
    return click.command(backend.lower(), _Convert, help=text)(convert)


for _backend in ("LMDB", "LevelDB"):
    data.add_command(_converts(_backend))


@data.command()
@click.argument("images", metavar="DB|LIST")
@click.option("-o", "--out", help="Write the mean image, too: mean.binaryproto.")
@click.option("--root", default="", metavar="FOLDER", help="Where the listed paths begin.")
def mean(images: str, out: str | None, root: str) -> None:
    """Print the mean of each channel of a database or of a LIST of images."""
    from netspec.sources.convert import mean_image, samples, write_mean

    found = mean_image(samples(Path(images), _as_folder(root), _watched))
    if out:
        write_mean(Path(out), found)
    for value in found.mean((1, 2), dtype=float):
        click.echo(f"mean_value: {value:.7g}")


@data.command()
@click.argument("net")
@click.option("-n", "--count", default=8, show_default=True, help="How many samples.")
@click.option("-o", "--out", default="sheet.png", show_default=True, help="A .png or a .jpg.")
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--seed", default=0, show_default=True, help="The solver's random_seed.")
def show(net: str, count: int, out: str, phase: str, seed: int) -> None:
    """Draw what NET really gets: images, their mean added back, and labels."""
    from netspec.build import look_at
    from netspec.inspect.contact_sheet import card, write
    from netspec.sources.show import samples

    shown = samples(look_at(net, phase), count, seed)
    cards = (
        card((layer.name for layer in sample), (p for layer in sample for p in layer.pieces))
        for sample in shown
    )
    write(out, f"{net}, phase {phase}: what the net gets, any mean added back", cards)
    click.echo(out)


@data.command()
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
    from netspec.sources.sets.prepare import prepare as look

    report = look(name, folder, convert, sbd, _watched)
    for line in report.lines:
        click.echo(line)
    if not report.ready:
        ctx.exit(1)


def _watched(items: Iterable[Any], total: int) -> Iterable[Any]:
    """Items, with a bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, "", total, console=console, transient=True, disable=not console.is_terminal)


def _size(option: str | None) -> tuple[int, int]:
    """Height and width; 0 and 0 leave images as they are."""
    if option is None:
        return 0, 0
    height, _, width = option.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        fail(f"--resize {option}: write height x width as 256x256", NetSpecError)
    return int(height), int(width)


def _as_folder(root: str) -> str:
    """What is put before a listed path as it is."""
    return f"{root}/" if root and not root.endswith("/") else root
