"""How steps scale over devices: ``python -m benchmarks.scale``.

Each device takes a batch of its own, so that N devices at full efficiency take as many steps a
second as one. On a CPU the devices are virtual: they share the cores, and what is seen there is
what the sharing itself costs, not what more devices bring.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click

from benchmarks.rounds import Rate, Run, rates

NET = """
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
  shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}
  shape {{ dim: 1 dim: 1 dim: {size} dim: {size} }}
  data_filler {{ type: "gaussian" }} data_filler {{ value: 1 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {{
  num_output: {width} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2" convolution_param {{
  num_output: {width} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "score" type: "Convolution" bottom: "conv2" top: "score" convolution_param {{
  num_output: 21 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }}
"""
SOLVER = (
    'train_net: "{net}" base_lr: 1e-9 lr_policy: "fixed" momentum: 0.9 max_iter: 1000000 '
    "snapshot_after_train: false\n"
)


class Row(NamedTuple):
    """Steps a second on so many devices, and the batches that they took.

    efficiency: batches a second of each device, over those of one device alone. cores: that were
    had.
    """

    devices: int
    split: bool
    steps: float
    batches: float
    efficiency: float
    cores: float


def counts(devices: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return [*(1 << i for i in range(devices.bit_length()) if 1 << i < devices), devices]


def measure(size: int, width: int, steps: int, rounds: int) -> list[Row]:
    """A row for each number of devices, whole and in parts; the runs take turns."""
    import jax

    from netspec.solving.loop import Solver
    from netspec.solving.mesh import Mesh

    devices = jax.devices()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="netspec-scale-")))
        net, solver = folder / "net.prototxt", folder / "solver.prototxt"
        net.write_text(NET.format(size=size, width=width))
        solver.write_text(SOLVER.format(net=net))
        runs: dict[str, Run] = {}
        cases = [(n, split) for n in counts(len(devices)) for split in (False, True) if n > split]
        for count, split in cases:
            mesh = Mesh(devices[:count] if count > 1 else (), split)
            run = stack.enter_context(closing(Solver.from_file(solver, mesh=mesh)))
            runs[f"{count} {split}"] = partial(taken, run, steps)
        found = rates(runs, rounds)
    return rows(cases, list(found.values()))


def taken(solver: object, steps: int) -> int:
    """Take steps to their end; returns how many."""
    solver.step(steps)  # type: ignore[attr-defined]
    return steps


def rows(cases: list[tuple[int, bool]], found: list[Rate]) -> list[Row]:
    """What the rates say of (devices, whether in parts); the first is of one device."""
    alone = found[0].things
    return [
        Row(n, split, rate.things, n * rate.things, rate.things / alone, rate.cores)
        for (n, split), rate in zip(cases, found, strict=True)
    ]


def table(found: list[Row], backend: str) -> str:
    """The figures as Markdown."""
    lines = [
        "| devices | learned arrays | steps/s | batches/s | efficiency | cores had |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.devices} | {'in parts' if row.split else 'whole'} | {row.steps:.3g} | "
        f"{row.batches:.3g} | {100 * row.efficiency:.0f} % | {row.cores:.2f} |"
        for row in found
    ]
    if backend == "cpu":
        lines += ["", f"The devices are virtual and share {os.cpu_count()} cores."]
    return "\n".join(lines)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--rounds", default=7, show_default=True, help="Take the median of so many.")
@click.option("--devices", default=8, show_default=True, help="Virtual ones, where there is a CPU.")
@click.option("--size", default=64, show_default=True, help="Height and width of an image.")
@click.option("--width", default=32, show_default=True, help="Channels of a layer.")
@click.option("--steps", default=10, show_default=True, help="Steps a round.")
def main(as_json: bool, rounds: int, devices: int, size: int, width: int, steps: int) -> None:
    """Measure how steps scale over devices."""
    # Read when JAX first looks for devices; of others than CPUs all are taken that there are.
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    )
    import jax

    found = measure(size, width, steps, rounds)
    backend = jax.default_backend()
    if as_json:
        shown = {"backend": backend, "device": jax.devices()[0].device_kind}
        click.echo(json.dumps({**shown, "rows": [row._asdict() for row in found]}, indent=1))
    else:
        click.echo(table(found, backend))


if __name__ == "__main__":
    main()
