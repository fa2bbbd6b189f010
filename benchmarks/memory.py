"""Memory and time of a training step: ``python -m benchmarks.memory``.

FCN-8s on one image, with each of some compute policies: memory predicted from shapes, that of XLA's
program, and the peak of the process. Each policy has a process of its own, so that its memory can
be measured; they take turns.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import jax

from benchmarks.contenders import Child, Work, resident
from benchmarks.figures import Row, machine, tell
from benchmarks.rounds import Run, rates
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import read_solver, write
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.memory import predict
from netspec.solving.trainer import Trainer
from netspec.sources.fed_net import compile_net

ROOT = Path(__file__).parents[1]
GENERATOR = ROOT / "nets" / "voc-fcn8s" / "net.py"
SOLVER = ROOT / "solvers" / "voc-fcn8s.prototxt"
POLICIES = {
    "f32": ComputePolicy(),
    "f32, --remat": ComputePolicy(remat=True),
    "bf16": ComputePolicy("bf16"),
    "bf16, --remat": ComputePolicy("bf16", remat=True),
}


class Stepper:
    """Takes training steps with one compute policy, in a contender's process."""

    def __init__(self, work: Work) -> None:
        """Make the net: of so many channels, at a height and width, with a compute policy."""
        # The generators import from `nets`, which this makes importable.
        runpy.run_path(str(ROOT / "tools" / "nets.py"))
        net = runpy.run_path(str(GENERATOR))["net"]("train", work.options["width"])
        path = Path(work.folder) / f"{work.options['policy']}.prototxt"
        path.write_text(write(net.to_proto()), encoding="utf-8")
        self.size = work.options["size"]
        shapes = {"data": (1, 3, *self.size), "label": (1, 1, *self.size)}
        self.net = compile_net(read_graph(path, "train"), shapes)
        self.net.policy = POLICIES[work.options["policy"]]
        self.trainer = Trainer(self.net, read_solver(SOLVER).message, 0)
        height, width = self.size
        self.feeds = {
            "data": Work(max(self.size), "f32", "", "").image()[:, :, :height, :width],
            "label": Work(max(self.size), "f32", "", "").label()[:, :, :height, :width],
        }

    def step(self) -> None:
        """One step, to its end."""
        micro = self.trainer.update([self.trainer.batch(self.feeds, 0, "")])
        jax.block_until_ready((micro.loss, self.net.arrays()))

    def predicted(self) -> int:
        """Bytes of a step, as its shapes tell."""
        return predict(self.net.shapes, self.net.policy, slots=1).total

    def compiled(self) -> int | None:
        """Bytes of a step, as XLA tells after it."""
        return self.trainer.program_bytes()

    def peak(self) -> float:
        """Bytes that the process held at most."""
        return resident()


def measure(
    work: Mapping[str, object], policies: list[str], device: str, rounds: int
) -> Iterator[Row]:
    """A row for each compute policy."""
    with TemporaryDirectory(prefix="netspec-memory-") as folder, ExitStack() as stack:
        steppers: dict[str, Child] = {}
        for policy in policies:
            options = {**work, "policy": policy}
            where = Work(0, "f32", device, folder, options)
            steppers[policy] = Child("benchmarks.memory:Stepper", where)
            stack.callback(steppers[policy].close)
        runs: dict[str, Run] = {name: partial(_step, child) for name, child in steppers.items()}
        seconds = {name: 1 / rate.things for name, rate in rates(runs, rounds).items()}
        first = next(iter(seconds))
        for name, child in steppers.items():
            predicted, compiled = child.ask("predicted"), child.ask("compiled")
            yield {
                "policy": name,
                "predicted, MiB": predicted / 2**20,
                "XLA's program, MiB": compiled and compiled / 2**20,
                "XLA's / predicted": compiled and compiled / predicted,
                "process at most, MiB": child.ask("peak") / 2**20,
                "step, s": seconds[name],
                f"times {first}": seconds[name] / seconds[first],
            }


def _step(child: Child) -> int:
    child.ask("step")
    return 1


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise click.BadParameter(f"{text}: write it as HEIGHTxWIDTH, 500x500") from None


@click.command()
@click.option("--size", default="500x500", show_default=True, help="HEIGHTxWIDTH of the image.")
@click.option("--width", default=1.0, show_default=True, help="Channels, as a share of FCN-8s'.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(POLICIES)), help="These compute policies only."
)
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--rounds", default=1, show_default=True, help="Take the median of so many steps.")
@click.option("--json", "path", metavar="FILE", help="Write the figures there, too.")
def main(
    size: str, width: float, only: tuple[str, ...], device: str, rounds: int, path: str | None
) -> None:
    """Measure what a step takes; one more before the first round is not counted."""
    work = {"size": _size(size), "width": width}
    rows = list(measure(work, list(only or POLICIES), device, rounds))
    tell([rows], {"image": size, "width": f"{width:g}", "device": device, **machine("jax")}, path)


if __name__ == "__main__":
    main()
