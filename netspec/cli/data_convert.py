"""``netspec data lmdb``, ``leveldb`` and ``mean``: databases of images, and mean images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from netspec.cli.progress_bar import with_progress
from netspec.errors import NetSpecError, counted, fail
from netspec.proto.layers_pb2 import DataParameter
from netspec.sources.convert import Listed, list_to_database, mean_image, samples, write_mean

_ENCODINGS = ("png", "jpg")


class _Convert(click.Command):
    """A command whose ``--encoded`` may stand before its arguments, with a kind or without."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add ``=`` where no kind follows, as click would take the next argument for one."""
        return super().parse_args(
            ctx,
            [
                f"{arg}=" if arg == "--encoded" and following not in _ENCODINGS else arg
                for arg, following in zip(args, [*args[1:], ""], strict=True)
            ],
        )


_OPTIONS = (
    click.argument("listed", metavar="LIST"),
    click.argument("folder", metavar="DIR"),
    click.option("--root", default="", metavar="FOLDER", help="Where the listed paths begin."),
    click.option("--resize", metavar="HxW", help="Make all images so high and wide: 256x256."),
    click.option("--gray", is_flag=True, help="Store one channel of grey."),
    click.option("--shuffle", is_flag=True, help="Store them in another order than the list's."),
    click.option(
        "--encoded",
        is_flag=False,
        flag_value="",
        type=click.Choice(["", *_ENCODINGS]),
        metavar="[png|jpg]",
        help="Store image files, of the kind that each is, or of this one.",
    ),
    click.option("--check-size", is_flag=True, help="Refuse images of several sizes."),
)


def _converts(backend: str) -> click.Command:
    """The verb that makes a database of one kind."""

    def convert(listed: str, folder: str, encoded: str | None, **options: Any) -> None:
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
            with_progress,
        )
        click.echo(f"{folder}: {counted(count, 'record')}")

    function: Callable[..., None] = convert
    for option in reversed(_OPTIONS):
        function = option(function)
    text = f"Write the images of LIST, a line `path label` each, to a new {backend} database DIR."
    return click.command(backend.lower(), _Convert, help=text)(function)


lmdb = _converts("LMDB")
leveldb = _converts("LevelDB")


@click.command()
@click.argument("images", metavar="DB|LIST")
@click.option("-o", "--out", help="Write the mean image, too: mean.binaryproto.")
@click.option("--root", default="", metavar="FOLDER", help="Where the listed paths begin.")
def mean(images: str, out: str | None, root: str) -> None:
    """Print the mean of each channel of a database or of a LIST of images."""
    found = mean_image(samples(Path(images), _as_folder(root), with_progress))
    if out:
        write_mean(Path(out), found)
    for value in found.mean((1, 2), dtype=float):
        click.echo(f"mean_value: {value:.7g}")


# With three channels no more fit a blob.
_MOST_PIXELS = (2**31 - 1) // 3


def _size(option: str | None) -> tuple[int, int]:
    """Height and width of ``--resize``; 0 and 0 leave images as they are."""
    if option is None:
        return 0, 0
    height, _, width = option.partition("x")
    if not (height.isdecimal() and width.isdecimal() and height.strip("0") and width.strip("0")):
        fail(f"--resize {option}: write height x width as 256x256", NetSpecError)
    # Of longer ones Python would make no number.
    if len(option) > 20 or int(height) * int(width) > _MOST_PIXELS:
        fail(f"--resize {option}: an image of at most {_MOST_PIXELS:,} pixels", NetSpecError)
    return int(height), int(width)


def _as_folder(root: str) -> str:
    """``--root`` with a slash at its end, to be put before listed paths."""
    return f"{root}/" if root and not root.endswith("/") else root
