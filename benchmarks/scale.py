"""How steps scale over devices: ``python -m benchmarks.scale``.

Each device takes a batch of its own, so that N devices at full efficiency take as many steps a
second as one. On a CPU the devices are virtual: they share the cores, and what is seen there is
what the sharing itself costs, not what more devices bring.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from benchmarks.figures import Row, machine, tell
from benchmarks.rounds import Rate, Run, rates

if TYPE_CHECKING:
    from netspec.solving.solver import Solver

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


def counts(devices: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return [*(1 << i for i in range(devices.bit_length()) if 1 << i < devices), devices]


def measure(size: int, width: int, steps: int, rounds: int) -> list[Row]:
    """A row for each number of devices, whole and in parts; the runs take turns."""
    import jax

    from netspec.solving.distributed.mesh import Mesh
    from netspec.solving.options import SolverOptions
    from netspec.solving.solver import Solver

    devices = jax.devices()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="netspec-scale-")))
        net, solver = folder / "net.prototxt", folder / "solver.prototxt"
        net.write_text(NET.format(size=size, width=width))
        solver.write_text(SOLVER.format(net=net))
        cases = [(n, split) for n in counts(len(devices)) for split in (False, True) if n > split]
        solvers = [
            stack.enter_context(
                closing(Solver.from_file(solver, SolverOptions(mesh=Mesh(devices[:n], split))))
            )
            for n, split in cases
        ]
        runs: dict[str, Run] = {
            f"{case}": partial(taken, each, steps)
            for case, each in zip(cases, solvers, strict=True)
        }
        found = rates(runs, rounds)
        taking = [each.trainer.program_bytes() for each in solvers]
    return rows(cases, list(found.values()), taking)


def taken(solver: Solver, steps: int) -> int:
    """Take steps to their end; returns how many."""
    solver.step(steps)
    return steps


def rows(
    cases: Sequence[tuple[int, bool]], found: Sequence[Rate], taking: Sequence[int | None]
) -> list[Row]:
    """A row for each case, (devices, whether in parts); the first is one device.

    found: steps a second. taking: the bytes that a step takes on each device, if XLA says.
    """
    alone = found[0].things
    return [
        {
            "devices": f"{n}",
            "learned arrays": "in parts" if split else "whole",
            "steps/s": rate.things,
            "batches/s": n * rate.things,
            "efficiency": rate.things / alone,
            "MiB a device": None if took is None else took / 2**20,
            "cores had": rate.cores,
        }
        for (n, split), rate, took in zip(cases, found, taking, strict=True)
    ]


@click.command()
@click.option("--json", "path", metavar="FILE", help="Write the figures there, too.")
@click.option("--rounds", default=7, show_default=True, help="Take the median of so many.")
@click.option("--devices", default=8, show_default=True, help="Virtual ones, where there is a CPU.")
@click.option("--size", default=64, show_default=True, help="Height and width of an image.")
@click.option("--width", default=32, show_default=True, help="Channels of a layer.")
@click.option("--steps", default=10, show_default=True, help="Steps a round.")
def main(path: str | None, rounds: int, devices: int, size: int, width: int, steps: int) -> None:
    """Measure how steps scale over devices."""
    # Read when JAX first looks for devices; of others than CPUs all are taken that there are.
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    )
    import jax

    found = measure(size, width, steps, rounds)
    kind = jax.devices()[0].device_kind
    tell([found], {**machine("jax", "jaxlib"), "device": kind}, path)
    if jax.default_backend() == "cpu":
        click.echo(
            "\nThe devices are virtual and share the cores. Batches a second below those of one "
            "device\nare what sharing costs; what more devices bring cannot be seen here."
        )


if __name__ == "__main__":
    main()
