"""What a snapshot costs: ``python -m benchmarks.snapshot``.

FCN-8s at full size (134 M learned numbers, momentum for each) on images of a made-up set, in a
temporary folder with 1.1 GB for the snapshot. Memory is what the process holds of its own, without
files that are mapped into it; Linux alone says it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import NamedTuple
from unittest.mock import patch

import click

from netspec.segmentation.shapes_set import write_dataset
from netspec.solving.solver import Solver

ROOT = Path(__file__).resolve().parents[1]
NET = ROOT / "nets" / "voc-fcn8s" / "train.prototxt"
MIB = 2**20


class Row(NamedTuple):
    """What was done: its seconds, and how much more memory than before it took at most, in MiB."""

    subject: str
    seconds: float | None
    memory: float | None = None


def held() -> int:
    """The memory that this process has of its own, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


@contextmanager
def watched() -> Iterator[Callable[[], int]]:
    """A function that says how much more memory than at first was held at most so far."""
    first = most = held()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, held())
            sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: most - first
    finally:
        done.set()
        watcher.join()


def timed(subject: str, run: Callable[[], object]) -> Row:
    """Run something once."""
    start = perf_counter()
    with watched() as more:
        run()
        return Row(subject, perf_counter() - start, more() / MIB)


def write_solver(folder: Path, size: int) -> Path:
    """A solver of FCN-8s on images of ``size`` x ``size``, that writes only when told to."""
    data = write_dataset(folder / "data", train=2, val=1, size=(size, size))
    net, solver = folder / "net.prototxt", folder / "solver.prototxt"
    text = NET.read_text().replace("SBDDSegDataLayer", "VOCSegDataLayer")
    net.write_text(text.replace("sbdd_dir", "voc_dir").replace("./data/sbdd/dataset", str(data)))
    solver.write_text(
        f'train_net: "{net}" base_lr: 1e-14 lr_policy: "fixed" momentum: 0.99 '
        f'max_iter: 1000000 snapshot_prefix: "{folder}/fcn8s" snapshot_after_train: false\n'
    )
    return solver


def beside(solver: Solver) -> Iterator[Row]:
    """Write a snapshot beside the run, as one that falls due is."""
    with patch.object(solver.store, "write") as write:
        solver.snapshot()
    start = perf_counter()
    with watched() as more:
        solver.store.begin(write.call_args.args[0])
        yield Row("one beside the run, until the run goes on", perf_counter() - start)
        solver.store.settle(wait=True)
        yield Row("the same, until it is on the disk", perf_counter() - start, more() / MIB)


def measure(size: int) -> list[Row]:
    """Every figure, in the order of the table."""
    with TemporaryDirectory(prefix="netspec-snapshot-") as name, redirect_stdout(StringIO()):
        path = write_solver(Path(name), size)
        with closing(Solver.from_file(path)) as solver:
            solver.step(2)
            arrays = [*solver.net.arrays().values(), *solver.trainer.history()]
            sizes = [array.nbytes / MIB for array in arrays]
            del arrays
            rows = [
                Row("parameters and history", None, sum(sizes)),
                Row("the largest of them", None, max(sizes)),
                timed("a training step", lambda: solver.step(1)),
                timed("a snapshot that the run waits for", solver.snapshot),
                *beside(solver),
            ]
            state = next(Path(name).glob("*.solverstate"))
            return [*rows, timed("going on from a snapshot", lambda: solver.restore(state))]


def table(rows: list[Row]) -> str:
    """The figures as Markdown."""
    lines = ["| what | seconds | memory, MiB |", "|---|---|---|"]
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        memory = "" if row.memory is None else f"{row.memory:,.0f}"
        lines.append(f"| {row.subject} | {seconds} | {memory} |")
    return "\n".join(lines)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--size", default=224, show_default=True, help="Height and width of the images.")
def main(as_json: bool, size: int) -> None:
    """Measure what a snapshot of FCN-8s costs."""
    rows = measure(size)
    click.echo(json.dumps([row._asdict() for row in rows], indent=1) if as_json else table(rows))


if __name__ == "__main__":
    main()
