"""The command line: a function a verb, each a few lines.

JAX takes seconds to import, so verbs import what they need when they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from netspec import __version__
from netspec.cli.caffe import caffe
from netspec.cli.data import data
from netspec.cli.options import dtype_option, keep_programs
from netspec.cli.run_script import run
from netspec.cli.segmentation import score, segment
from netspec.errors import NetSpecError, fail, require

if TYPE_CHECKING:
    from netspec.frontend.shapes import KnownShapes


class Verbs(click.Group):
    """Commands whose mistakes are told in one message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except NetSpecError as error:
            click.echo(f"netspec: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Compile Caffe's nets to JAX: train them, test them, use them, look at them."""


@main.command()
@click.argument("solver")
@click.option("--weights", help="Start from these .caffemodel files, by layer name: a[,b...].")
@click.option("--fc-to-conv", is_flag=True, help="Take fully connected weights for convolutions.")
@click.option("--skip-misfits", is_flag=True, help="Leave layers whose weights do not fit.")
@click.option("--snapshot", help="Go on from this .solverstate.")
@click.option("--resume", is_flag=True, help="Go on from the newest snapshot, if there is one.")
@click.option("--max-iter", type=int, help="Stop here instead of the solver's max_iter.")
@click.option("--keep", type=int, help="Keep only so many snapshots, the newest.")
@click.option("--tensorboard", metavar="DIR", help="Log for TensorBoard, too.")
@click.option("--glog", is_flag=True, help="Begin lines as Caffe's logs do, for their parsers.")
@click.option(
    "--skip-corrupt", is_flag=True, help="Leave out batches that hold a file that cannot be read."
)
@click.option("--debug-nans", is_flag=True, help="Find the first number that is not finite.")
@dtype_option
@click.option("--remat", is_flag=True, help="Compute blobs again on the way back: less memory.")
@click.option("--devices", metavar="N|all", help="Train on so many devices; 1 by default.")
@click.option("--batch-per-device", type=int, help="Set the batch_size of the train net's data.")
@click.option("--shard-params", is_flag=True, help="Keep a part of all weights on each device.")
@click.option("--coordinator", metavar="HOST:PORT", help="Where processes find process 0.")
@click.option("--processes", metavar="P|auto", help="How many there are, or ask the cluster.")
@click.option("--process", type=int, help="Which one this is, from 0.")
def solve(solver: str, **options: Any) -> None:
    """Train the net of SOLVER, a solver prototxt."""
    from netspec.cli.train import Options, run
    from netspec.solving.distributed.launch import Scale

    keep_programs()
    scale = Scale(**{name: options.pop(name) for name in Scale.__dataclass_fields__})
    run(solver, Options(**options, scale=scale))


@main.command()
@click.argument("net")
@click.argument("weights", required=False)
@click.option("--iterations", type=int, help="Batches to run; by default, the data once.")
@dtype_option
def test(net: str, weights: str | None, iterations: int | None, dtype: str | None) -> None:
    """Run NET on its test data: the mean of its outputs, and metrics where it segments."""
    from netspec.reporting.console import evaluation_lines
    from netspec.runtime.compute_policy import ComputePolicy
    from netspec.runtime.size_buckets import SizeBuckets
    from netspec.solving.evaluation import class_names, evaluate
    from netspec.solving.testing import opened

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
        click.echo(buckets.told)
    click.echo(f"{found.batches} batches, loss {found.loss:.6g}")
    for line in evaluation_lines(found, "    Test net output"):
        click.echo(line)
    for blob, metrics in found.metrics.items():
        click.echo(f"\n{blob}\n{metrics.table(names[blob])}")


_shapes = click.option(
    "--shape", "shapes", multiple=True, help="An input's shape: data=1,3,500,500."
)
_look_phase = click.option(
    "--phase",
    type=click.Choice(["train", "test"]),
    help="By default train, or test for a net without a loss.",
)


@main.command()
@click.argument("net")
@click.option("-o", "--out", required=True, help="net.svg, net.png or net.dot.")
@_look_phase
@_shapes
def draw(net: str, out: str, phase: str | None, shapes: tuple[str, ...]) -> None:
    """Draw NET: its layers, their windows, the shapes between them."""
    from netspec.build import look_at
    from netspec.inspect.draw import draw as draw_net

    known = look_at(net, phase, dict(map(_shape, shapes)))
    draw_net(known, out)
    _say_what_is_unknown(known)
    click.echo(out)


@main.command()
@click.argument("net")
@_look_phase
@_shapes
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table",
    show_default=True,
)  # fmt: skip
def summary(net: str, phase: str | None, shapes: tuple[str, ...], form: str) -> None:
    """List the layers of NET: shapes, parameters, multiply-adds, activations, what is frozen."""
    from netspec.build import look_at
    from netspec.inspect.summary import summarise
    from netspec.inspect.summary_text import FORMATS

    known = look_at(net, phase, dict(map(_shape, shapes)))
    _say_what_is_unknown(known, err=form != "table")
    click.echo(FORMATS[form](summarise(known)))


@main.command()
@click.argument("net")
@click.argument("blob", required=False)
@click.option("--phase", type=click.Choice(["train", "test"]), default="test", show_default=True)
@_shapes
def rf(net: str, blob: str | None, phase: str, shapes: tuple[str, ...]) -> None:
    """Tell what the pixels of NET's blobs see: stride, receptive field, offset, least pad."""
    from netspec.build import look_at_inputs, misfit
    from netspec.inspect.receptive_field_text import table

    known = look_at_inputs(net, phase, dict(map(_shape, shapes)))
    click.echo(table(known, blob))
    if why := misfit(known):
        click.echo(f"with the pads that it has it cannot run: {why}", err=True)


def _say_what_is_unknown(known: KnownShapes, err: bool = False) -> None:
    """A line for each reason for which a layer is not known, and one for data that is not here."""
    unknown = [node for node in known.graph.nodes if not node.layer.known]
    first = {node.layer.missing(): node for node in reversed(unknown)}
    for node in reversed(first.values()):
        click.echo(f"{node.place}: {node.who}: {node.layer.missing()}", err=err)
    missing = [
        known.graph.values[top].name
        for node in known.graph.sources
        for top in node.tops
        if known.values[top] is None
    ]
    if missing:
        click.echo(
            f"without the shapes that hang on {', '.join(missing)}, as the data is not here; "
            f"give --shape {missing[0]}=1,3,500,500",
            err=err,
        )


def _shape(option: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = option.partition("=")
    try:
        return name, tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        return fail(f"--shape {option}: write it as data=1,3,500,500", NetSpecError)


@main.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option("-o", "--out", required=True, help="curves.svg or curves.png.")
def plot(logs: tuple[str, ...], out: str) -> None:
    """Draw what LOGs tell of training: loss, learning rate and tests over iterations.

    A LOG is a PREFIX.log.jsonl, or the text that netspec or Caffe printed.
    """
    from netspec.inspect.plot_logs import plot as plot_logs

    plot_logs(logs, out)
    click.echo(out)


@main.command()
@click.argument("solver")
@click.option("-o", "--out", required=True, help="The solver prototxt to write.")
@click.option("--accum", is_flag=True, help="20 batches a step.")
@click.option("--heavy", is_flag=True, help="1 batch a step, as much memory of images.")
@click.option("--online", is_flag=True, help="1 batch a step, momentum 0.9.")
@click.option("--iter-size", type=int, help="So many batches a step.")
@click.option("--batch", type=int, nargs=2, metavar="OLD NEW", help="Images in the net's batches.")
@click.option("--momentum", type=float, help="Take this one rather than the equivalent one.")
@click.option(
    "--keep",
    type=click.Choice(["step", "way"]),
    default="step",
    show_default=True,
    help="What stays of an image: its weight in a step, or how far it moves the weights in all.",
)
def regime(solver: str, out: str, accum: bool, heavy: bool, online: bool, **options: Any) -> None:
    """Turn the regime of SOLVER into its equivalent with other images a step.

    Momentum p over k images becomes p' over k' by p^(1/k) = p'^(1/k'), as the FCN papers have it.
    """
    from netspec.solving.equivalence import convert, target

    asked = {"accum": accum, "heavy": heavy, "online": online}
    names = [name for name, wanted in asked.items() if wanted]
    for line in convert(solver, out, target(names, **options)):
        click.echo(line)
    click.echo(out)


@main.command()
@click.argument("net")
@click.argument("weights", nargs=-1)
@click.option("-o", "--out", required=True, help="The .caffemodel or .caffemodel.h5 to write.")
@click.option("--fc-to-conv", is_flag=True, help="Take fully connected weights for convolutions.")
@click.option("--skip-misfits", is_flag=True, help="Leave layers whose weights do not fit.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="A layer of WEIGHTS is NET's NEW.")
@click.option("--suffix", "suffixes", multiple=True, help="What NET's layer names end in besides.")
@click.option("--bilinear", multiple=True, metavar="LAYER", help="Interpolates: 'upscore*'.")
@click.option("--more-classes", multiple=True, metavar="LAYER", help="Has more outputs.")
@click.option("--more-channels", multiple=True, metavar="LAYER", help="Has more inputs.")
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", show_default=True)
@_shapes
def surgery(
    net: str,
    weights: tuple[str, ...],
    out: str,
    rename: tuple[str, ...],
    phase: str,
    shapes: tuple[str, ...],
    **options: Any,
) -> None:
    """Make weights for NET out of other nets' WEIGHTS, layer by layer of the same name.

    Of classes and channels that WEIGHTS lack, classes are as NET's fillers begin them, and input
    channels the mean of the others. A --suffix for each of WEIGHTS, or several for the only one,
    make trunks of one net.
    """
    from netspec.build import load
    from netspec.weights.surgery import Plan, transplant

    plan = Plan(rename=dict(map(_rename, rename)), **options)
    compiled = load(net, phase=phase, shapes=dict(map(_shape, shapes)))
    click.echo(transplant(compiled, weights, plan, out))
    click.echo(out)


def _rename(option: str) -> tuple[str, str]:
    old, _, new = option.partition("=")
    require(old and new, f"--rename {option}: write it as OLD=NEW", NetSpecError)
    return old, new


@main.command()
def layers() -> None:
    """List the layer types: what they take, make, learn and compute."""
    from netspec.inspect.layer_catalogue import table

    click.echo(table())


@main.command()
@click.argument("old")
@click.argument("new")
def upgrade(old: str, new: str) -> None:
    """Write net (or solver) OLD in the current schema to NEW."""
    from netspec.frontend.upgrade import upgrade_file

    upgrade_file(old, new)
    click.echo(new)


main.add_command(caffe)
main.add_command(data)
main.add_command(run)
main.add_command(score)
main.add_command(segment)

if __name__ == "__main__":
    main()
