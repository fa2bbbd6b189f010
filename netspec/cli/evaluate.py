"""``netspec test`` and ``netspec score``: nets run on the data of their TEST phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import click

from netspec.cli.options import dtype_option, keep_programs
from netspec.errors import NetSpecError, counted, require
from netspec.reporting.console import evaluation_lines
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.size_buckets import SizeBuckets
from netspec.segmentation.submission import Results, scored_blobs
from netspec.solving.evaluation import Evaluation, class_names, evaluate, score_pairs
from netspec.solving.testing import opened


@click.command()
@click.argument("net")
@click.argument("weights", required=False)
@click.option("--iterations", type=int, help="Batches to run; by default, the data once.")
@dtype_option
def test(net: str, weights: str | None, iterations: int | None, dtype: str | None) -> None:
    """Run NET on its test data: the mean of its outputs, and metrics where it segments."""
    keep_programs()
    with opened(net, weights) as (compiled, feed, copied):
        compiled.policy = ComputePolicy(dtype or "f32")
        if copied:
            click.echo(copied)
        buckets = SizeBuckets(compiled, click.echo)
        batches = feed.batches if iterations is None else iterations
        found = evaluate(compiled, feed, batches, buckets=buckets)
        names = class_names(compiled.shapes, feed)
    if len(buckets.sizes) > 1:
        click.echo(buckets.summary)
    click.echo(f"{found.batches} batches, loss {found.loss:.6g}")
    for line in evaluation_lines(found, "    Test net output"):
        click.echo(line)
    for blob, metrics in found.metrics.items():
        click.echo(f"\n{blob}\n{metrics.table(names[blob])}")


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
        click.echo(buckets.summary, err=True)
    if pairs:
        _say_metrics(found, names)
    if save:
        click.echo(f"{counted(len(results.written), 'label image')} in {results.folder}")


def _say_metrics(found: Evaluation, names: Mapping[str, Sequence[str]]) -> None:
    """The loss, and the metrics of each blob of scores; names: its classes."""
    click.echo(f"{found.batches} batches, loss {found.loss:.6g}")
    for blob, metrics in found.metrics.items():
        click.echo(f"\n{blob}: {metrics.pixels:,} pixels\n{metrics.table(names[blob])}")
