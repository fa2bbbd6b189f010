"""FCN-8s here and elsewhere: ``python -m benchmarks.fcn8s``.

The published net on one image: forward, and a training step with its update. Contenders take turns
on the same weights, after it was looked at that they compute the same scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from tempfile import TemporaryDirectory
from time import perf_counter

import click
import numpy as np

from benchmarks.contenders import Absent, Child, Work
from benchmarks.figures import Row, machine, tell
from benchmarks.rounds import Run, rates

OURS = "netspec"
CONTENDERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    OURS: ("benchmarks.ours:Netspec", {}),
    "PyTorch": ("benchmarks.peers:PyTorch", {}),
    "PyTorch, compiled": ("benchmarks.peers:PyTorch", {"compile": True}),
    "Caffe": ("benchmarks.peers:Caffe", {}),
    "OpenCV": ("benchmarks.peers:OpenCV", {}),
}
# How far scores may be apart, as a share of the largest.
_APART = {"f32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}


def measure(work: Work, names: list[str], rounds: int) -> Iterator[Row]:
    """A row for each contender and kind of work: time, beside netspec's, and memory."""
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for name in names:
            where, options = CONTENDERS[name]
            try:
                children[name] = Child(where, Work(**{**vars(work), "options": options}))
                stack.callback(children[name].close)
            except Absent as absent:
                click.echo(f"without {name}: {absent}")
        ours = children.get(OURS)
        rate = ours.ask("matrix_rate") if ours else None
        for method, what in (("forward", "forward"), ("step", "training step")):
            operations = ours.ask(f"work_of_{method}") if ours else None
            first = firsts(children, method)
            if method == "forward":
                children = agreeing({name: children[name] for name in first}, _APART[work.dtype])
                first = {name: first[name] for name in children}
            runs: dict[str, Run] = {name: partial(_asked, children[name], method) for name in first}
            seconds = {name: 1 / found.things for name, found in rates(runs, rounds).items()}
            for name in runs:
                share = operations / seconds[name] / rate if operations and rate else None
                yield {
                    "work": what,
                    "by": name,
                    "s": seconds[name],
                    "times netspec's": seconds[name] / seconds[OURS] if OURS in seconds else None,
                    "% of the matrix rate": share and 100 * share,
                    "peak MiB": children[name].ask("memory") / 2**20,
                    "first, s": first[name],
                }


def agreeing(children: Mapping[str, Child], apart: float) -> dict[str, Child]:
    """Those contenders whose scores are those of the first; says who is left out, and why."""
    kept: dict[str, Child] = {}
    reference: np.ndarray | None = None
    for name, child in children.items():
        try:
            scores = child.ask("scores")
        except Absent as absent:
            click.echo(f"without {name}: {absent}")
            continue
        reference = scores if reference is None else reference
        distance = float(np.abs(scores - reference).max() / np.abs(reference).max())
        if distance < apart:
            kept[name] = child
        else:
            click.echo(f"without {name}: its scores are {distance:.2g} from those of the first")
    return kept


def firsts(children: Mapping[str, Child], method: str) -> dict[str, float]:
    """Seconds of each contender's first run, of those that can."""
    found = {}
    for name, child in children.items():
        start = perf_counter()
        try:
            child.ask(method)
            found[name] = perf_counter() - start
        except Absent as absent:
            click.echo(f"{method} without {name}: {absent}")
    return found


def _asked(child: Child, method: str) -> int:
    child.ask(method)
    return 1


@click.command()
@click.option("--size", default=250, show_default=True, help="Height and width of the image.")
@click.option(
    "--dtype", type=click.Choice(list(_APART)), default="f32", show_default=True, help="To compute."
)
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compare with torch.compile, too.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(CONTENDERS)), help="Netspec and these."
)
@click.option("--rounds", default=5, show_default=True, help="Take the median of so many.")
@click.option("--json", "path", metavar="FILE", help="Write the figures there, too.")
def main(
    size: int,
    dtype: str,
    device: str,
    compiled: bool,
    only: tuple[str, ...],
    rounds: int,
    path: str | None,
) -> None:
    """Measure FCN-8s, one image at a time, in netspec and in what else is installed."""
    # Netspec makes the weights that all take.
    names = [name for name in CONTENDERS if name == OURS or name in only or not only]
    names = [name for name in names if compiled or name in only or "compiled" not in name]
    with TemporaryDirectory(prefix="netspec-fcn8s-") as folder:
        rows = list(measure(Work(size, dtype, device, folder), names, rounds))
    about = machine("jax", "torch", "opencv-python-headless")
    tell([rows], {"image": f"{size}x{size}", "dtype": dtype, "device": device, **about}, path)


if __name__ == "__main__":
    main()
