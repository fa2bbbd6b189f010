"""``netspec score`` and ``netspec segment``: a function a verb, each a few lines."""

from __future__ import annotations

from functools import partial

import click

from netspec.cli.options import dtype_option, keep_programs
from netspec.errors import NetSpecError, counted, fail, require


@click.command()
@click.argument("net")
@click.argument("weights")
@click.option("--save", metavar="DIR", help="Write the predicted labels of all images, too.")
@dtype_option
def score(net: str, weights: str, save: str | None, dtype: str | None) -> None:
    """Score NET with WEIGHTS on its test data, all of it once.

    Prints pixel accuracy, mean accuracy, mean IU, frequency-weighted IU, the IU of each class, and
    the loss. --save writes a palette PNG an image, named after it, in the folders in which the
    set's judges look: for PASCAL VOC DIR/results/VOC2012/Segmentation/comp6_test_cls. That works on
    a list without labels too, where the net's data layer has one top, the image, and the net no
    loss.
    """
    from netspec.runtime.compute_policy import ComputePolicy
    from netspec.runtime.size_buckets import SizeBuckets
    from netspec.segmentation.submission import Results, scored_blobs
    from netspec.solving.evaluation import class_names, evaluate, score_pairs
    from netspec.solving.testing import opened

    keep_programs()
    with opened(net, weights) as (compiled, feed, copied):
        click.echo(copied)
        compiled.policy = ComputePolicy(dtype or "f32")
        buckets = SizeBuckets(compiled, partial(click.echo, err=True))
        pairs = score_pairs(compiled.shapes)
        require(
            pairs or save,
            f"{net}: no scores are compared with labels, so there is nothing to score; "
            "--save DIR writes what the net predicts",
            NetSpecError,
        )
        blobs = scored_blobs(compiled, tuple(pairs)) if save else ()
        results = Results(save or "", feed, blobs)
        keep = results.keep if save else None
        found = evaluate(compiled, feed, feed.batches, pictures=blobs, keep=keep, buckets=buckets)
        names = class_names(compiled.shapes, feed)
    if len(buckets.sizes) > 1:
        click.echo(buckets.told, err=True)
    if pairs:
        click.echo(f"{found.batches} batches, loss {found.loss:.6g}")
    for blob, metrics in found.metrics.items():
        click.echo(f"\n{blob}: {metrics.pixels:,} pixels\n{metrics.table(names[blob])}")
    if save:
        click.echo(f"{counted(len(results.written), 'label image')} in {results.folder}")


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
    overlay: bool,
    probabilities: bool,
    blob: str | None,
    mean: str | None,
    tile: str | None,
    memory: float,
    time: bool,
    dtype: str | None,
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
    from netspec.build import load
    from netspec.runtime.size_buckets import SizeBuckets
    from netspec.segmentation.predict import MEAN, Segmenter
    from netspec.segmentation.stage_timing import stage_times
    from netspec.segmentation.write import Wanted, gather, plan_of_first, segment_each

    keep_programs()
    compiled = load(net, weights, dtype=dtype or "f32")
    buckets = SizeBuckets(compiled)
    segmenter = Segmenter(
        compiled,
        MEAN if mean is None else _mean(mean),
        blob,
        None if tile is None else _tile(tile),
        int(memory * 2**30),
        buckets,
    )
    pictures = gather(images, out)
    failures: list[NetSpecError] = []

    def failed(error: NetSpecError) -> None:
        failures.append(error)
        click.echo(f"netspec: {error}", err=True)

    wanted = Wanted(overlay, probabilities)
    say = partial(click.echo, err=True)
    written = segment_each(segmenter, pictures, out, wanted, failed, say)
    for path in written:
        click.echo(path)
    if len(buckets.sizes) > 1:
        click.echo(buckets.told, err=True)
    plan = plan_of_first(segmenter, pictures) if time else None
    if plan is not None:
        times = stage_times(segmenter.net, plan.feeds, plan.scores)
        click.echo(f"{times.title()}\n{times.table()}")
    if failures:
        raise click.exceptions.Exit(1)


def _mean(option: str) -> tuple[float, ...]:
    try:
        mean = tuple(float(part) for part in option.split(","))
    except ValueError:
        mean = ()
    require(len(mean) in (1, 3), f"--mean {option}: write it as 104,117,123", NetSpecError)
    return mean


def _tile(option: str) -> tuple[int, int]:
    parts = option.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 2:
        fail(f"--tile {option}: write it as 600, or 480x640 for height and width", NetSpecError)
    return int(parts[0]), int(parts[-1])
