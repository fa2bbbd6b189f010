"""The command line: a function a verb, each a few lines.

JAX takes seconds to import, so verbs import what they need when they run.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from netspec.cli_data import data
from netspec.errors import NetSpecError, SourceError, fail, require

if TYPE_CHECKING:
    from netspec.shapes import KnownShapes


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
@click.version_option(package_name="netspec")
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
@click.option("--skip-corrupt", is_flag=True, help="Go on without what cannot be read.")
@click.option("--debug-nans", is_flag=True, help="Find the first number that is not finite.")
@click.option("--devices", metavar="N|all", help="Train on so many devices; 1 by default.")
@click.option("--batch-per-device", type=int, help="Set the batch_size of the train net's data.")
@click.option("--shard-params", is_flag=True, help="Keep a part of all weights on each device.")
@click.option("--coordinator", metavar="HOST:PORT", help="Where processes find process 0.")
@click.option("--processes", metavar="P|auto", help="How many there are, or ask the cluster.")
@click.option("--process", type=int, help="Which one this is, from 0.")
def solve(solver: str, **options: Any) -> None:
    """Train the net of SOLVER, a solver prototxt."""
    from netspec.session import Options, run
    from netspec.solving.cluster import Scale

    _keep_programs()
    scale = Scale(**{name: options.pop(name) for name in Scale.__dataclass_fields__})
    run(solver, Options(**options, scale=scale))


@main.command()
@click.argument("net")
@click.argument("weights", required=False)
@click.option("--iterations", type=int, help="Batches to run; by default, the data once.")
def test(net: str, weights: str | None, iterations: int | None) -> None:
    """Run NET on its test data: the mean of its outputs, and metrics where it segments."""
    from netspec.build import compile_net, graph
    from netspec.frames import Frames
    from netspec.report import evaluation_lines
    from netspec.solving.evaluation import evaluate
    from netspec.sources.feed import Feed
    from netspec.weights import copy_into, read_weights

    _keep_programs()
    connected = graph(net)
    require(
        not connected.inputs,
        f"{net}: no data layer feeds {', '.join(connected.inputs)}, which an Input layer makes; "
        "test a net that has data layers",
        SourceError,
    )
    with Feed(connected) as feed:
        compiled = compile_net(connected, feed.tops)
        if weights:
            click.echo(copy_into(compiled, read_weights(weights)))
        frames = Frames(compiled, click.echo)
        batches = feed.batches if iterations is None else iterations
        found = evaluate(compiled, feed, batches, frames=frames)
    if len(frames.sizes) > 1:
        click.echo(frames.told)
    click.echo(f"{found.batches} batches, loss {found.loss:.6g}")
    for line in evaluation_lines(found, "    Test net output"):
        click.echo(line)
    for blob, metrics in found.metrics.items():
        click.echo(f"\n{blob}\n{metrics.table()}")


@main.command()
@click.argument("net")
@click.argument("weights")
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--out", default="segmented", show_default=True, help="The folder to write to.")
def segment(net: str, weights: str, images: tuple[str, ...], out: str) -> None:
    """Label every pixel of IMAGES: a palette PNG and an overlay for each."""
    from netspec.build import load
    from netspec.segmentation.predict import segment as segment_images

    _keep_programs()
    for path in segment_images(load(net, weights), images, out, say=partial(click.echo, err=True)):
        click.echo(path)


def _keep_programs() -> None:
    """Let what is compiled serve the next start, too."""
    from netspec.compiling import keep_programs

    keep_programs(lambda why: click.echo(f"netspec: warning: {why}", err=True))


@main.command()
@click.argument("net")
@click.option("-o", "--out", required=True, help="net.svg, net.png or net.dot.")
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--shape", "shapes", multiple=True, help="An input's shape: data=1,3,500,500.")
def draw(net: str, out: str, phase: str, shapes: tuple[str, ...]) -> None:
    """Draw NET: its layers, their windows, the shapes between them."""
    from netspec.build import look_at
    from netspec.inspect.draw import draw as draw_net

    known = look_at(net, phase, dict(map(_shape, shapes)))
    draw_net(known, out)
    _say_what_is_unknown(known)
    click.echo(out)


@main.command()
@click.argument("net")
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--shape", "shapes", multiple=True, help="An input's shape: data=1,3,500,500.")
def summary(net: str, phase: str, shapes: tuple[str, ...]) -> None:
    """List the layers of NET: their shapes, what they learn, what training takes."""
    from netspec.build import look_at
    from netspec.inspect.summary import summarise, table

    known = look_at(net, phase, dict(map(_shape, shapes)))
    _say_what_is_unknown(known)
    click.echo(table(summarise(known)))


def _say_what_is_unknown(known: KnownShapes) -> None:
    """A line for each reason for which a layer is not known, and one for data that is not here."""
    unknown = [node for node in known.graph.nodes if not node.layer.known]
    first = {node.layer.missing(): node for node in reversed(unknown)}
    for node in reversed(first.values()):
        click.echo(f"{node.place}: {node.who}: {node.layer.missing()}")
    missing = [
        known.graph.values[top].name
        for node in known.graph.sources
        for top in node.tops
        if known.values[top] is None
    ]
    if missing:
        click.echo(
            f"without the shapes that hang on {', '.join(missing)}, as the data is not here; "
            f"give --shape {missing[0]}=1,3,500,500"
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
    from netspec.inspect.plot import plot as plot_logs

    plot_logs(logs, out)
    click.echo(out)


@main.command()
def layers() -> None:
    """List the layer types: what they take, make, learn and compute."""
    from netspec.inspect.catalogue import table

    click.echo(table())


@main.command()
@click.argument("old")
@click.argument("new")
def upgrade(old: str, new: str) -> None:
    """Write net (or solver) OLD in the current schema to NEW."""
    from netspec.upgrade import upgrade_file

    upgrade_file(old, new)
    click.echo(new)


main.add_command(data)

if __name__ == "__main__":
    main()
