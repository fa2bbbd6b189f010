"""``netspec segment``: images labelled pixel by pixel."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from netspec.build import load
from netspec.cli.options import dtype_option, keep_programs
from netspec.errors import NetSpecError, fail, require
from netspec.runtime.size_buckets import SizeBuckets
from netspec.segmentation.predict import MEAN, Segmenter
from netspec.segmentation.stage_timing import stage_times
from netspec.segmentation.write import Picture, Wanted, gather, plan_of_first, segment_each


@click.command()
@click.argument("net")
@click.argument("weights")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|FOLDER|LIST...")
@click.option("-o", "--out", default="segmented", show_default=True, help="The folder to write to.")
@click.option("--overlay/--no-overlay", default=True, help="Write NAME_overlay.png.  [default: on]")
@click.option("--probabilities", is_flag=True, help="Write NAME_probabilities.npy (C, H, W).")
@click.option("--blob", help="The scores, where the net has several.")
@click.option("--mean", metavar="B,G,R", help="What is subtracted; by default ImageNet's mean.")
@click.option("--tile", metavar="SIZE", help="Run at most 600, or 480x640 (HxW), pixels at once.")
@click.option("--memory", default=4.0, show_default=True, help="Run at most so many GiB at once.")
@click.option("--time", is_flag=True, help="Print the time of a forward pass, stage by stage.")
@dtype_option
def segment(
    net: str,
    weights: str,
    images: tuple[str, ...],
    out: str,
    time: bool,
    dtype: str | None,
    **options: Any,
) -> None:
    """Label every pixel of images: of each a palette PNG and an overlay.

    A LIST is a .txt or .lst file with a path a line. Of a FOLDER all images within are taken, and
    results lie in folders as they do. Images that cannot be read are named, the others go on, and
    the exit status is 1.

    Images too large for --memory, by an estimate of what the net's blobs take, are cut into tiles
    that overlap. The scores are those of the whole image: only those are kept that see nothing
    beyond their tile. A pixel's score hangs on several hundred pixels around it, so tiles are
    larger than that: about 550 for a VGG-16 FCN, 400 of which are overlap.

    --time compiles and times each stage (conv1, conv2, ..., fc6, fc7, score, upsampling) alone, at
    the size that the first image is run at, then the whole net.
    """
    keep_programs()
    compiled = load(net, weights, dtype=dtype or "f32", run_python=True)
    buckets = SizeBuckets(compiled)
    mean, tile = _mean(options["mean"]), _tile(options["tile"])
    memory = _memory(options["memory"])
    segmenter = Segmenter(compiled, mean, options["blob"], tile, memory, buckets)
    pictures = gather(images, out)
    wanted = Wanted(options["overlay"], options["probabilities"])
    whole = _write_each(segmenter, pictures, out, wanted)
    if len(buckets.sizes) > 1:
        click.echo(buckets.summary, err=True)
    plan = plan_of_first(segmenter, pictures) if time else None
    if plan is not None:
        times = stage_times(segmenter.net, plan.feeds, plan.scores)
        click.echo(f"{times.title()}\n{times.table()}")
    if not whole:
        raise click.exceptions.Exit(1)


def _write_each(segmenter: Segmenter, pictures: list[Picture], out: str, wanted: Wanted) -> bool:
    """Write what is wanted of each picture, and say so; returns whether all could be segmented."""
    failures: list[NetSpecError] = []

    def failed(error: NetSpecError) -> None:
        failures.append(error)
        click.echo(f"netspec: {error}", err=True)

    say = partial(click.echo, err=True)
    for path in segment_each(segmenter, pictures, out, wanted, failed, say):
        click.echo(path)
    return not failures


def _mean(option: str | None) -> tuple[float, ...]:
    if option is None:
        return MEAN
    try:
        mean = tuple(float(part) for part in option.split(","))
    except ValueError:
        mean = ()
    require(len(mean) in (1, 3), f"--mean {option}: write it as 104,117,123", NetSpecError)
    return mean


def _memory(option: float) -> int:
    """The bytes of ``--memory``."""
    fits = 0 < option < 2**30
    require(fits, f"--memory {option:g}: a number of GiB, more than 0", NetSpecError)
    return int(option * 2**30)


def _tile(option: str | None) -> tuple[int, int] | None:
    if option is None:
        return None
    parts = option.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 2:
        fail(f"--tile {option}: write it as 600, or 480x640 for height and width", NetSpecError)
    return int(parts[0]), int(parts[-1])
