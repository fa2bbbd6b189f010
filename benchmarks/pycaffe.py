"""What pycaffe's face costs: ``python -m benchmarks.pycaffe``.

A forward pass through `netspec.caffe` beside a call of the compiled net, on the same arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import numpy as np

from benchmarks.rounds import rates
from netspec import caffe

NETS = Path(__file__).resolve().parents[1] / "nets"
# Small, deep, and with large outputs.
SUBJECTS = ("lenet/deploy", "squeezenet/deploy", "resnet50/deploy", "voc-fcn-alexnet/deploy")


class Row(NamedTuple):
    """A net, a way to run it, and its milliseconds: all of them, and beyond a direct call."""

    net: str
    way: str
    ms: float
    more: float


def ways(net: caffe.Net) -> dict[str, Callable[[], Any]]:
    """Ways to run a net once, each until its outputs are there."""
    draw = np.random.default_rng(0)
    inputs: Any = {
        name: draw.standard_normal(net.blobs[name].shape, np.float32) for name in net.inputs
    }
    held = {name: net.blobs[name].data for name in net.inputs}

    def done() -> None:
        jax.block_until_ready([net.blobs[name].data_mirror.device for name in net.outputs])

    def direct() -> None:
        jax.block_until_ready(net.module(**inputs))

    def read() -> None:
        made = net.module(**inputs)
        for name in net.outputs:
            np.asarray(made[name])

    def forward() -> None:
        net.forward(**inputs)
        done()

    def written() -> None:
        for name, array in inputs.items():
            held[name][...] = array
        net.forward()
        done()

    def forward_read() -> None:
        list(net.forward(**inputs).values())

    return {
        "direct call": direct,
        "net.forward(data=x)": forward,
        "data[...] = x; net.forward()": written,
        "direct call, outputs read": read,
        "net.forward(data=x), outputs read": forward_read,
    }


def measure(subject: str, rounds: int) -> list[Row]:
    """Every way of one net, in turns."""
    os.environ.setdefault("GLOG_minloglevel", "1")
    net = caffe.Net(str(NETS / f"{subject}.prototxt"), caffe.TEST)
    found = rates({way: partial(_once, run) for way, run in ways(net).items()}, rounds)
    rows: list[Row] = []
    base = 0.0
    for way, rate in found.items():
        ms = 1000 / rate.things
        base = ms if way.startswith("direct") else base
        rows.append(Row(subject.partition("/")[0], way, ms, ms - base))
    return rows


def table(rows: list[Row]) -> str:
    """Rows as Markdown."""
    lines = ["| net | | ms | more than the direct call |", "|---|---|---|---|"]
    for row in rows:
        more = "" if row.way.startswith("direct") else f"{row.more:+.2f} ms"
        lines.append(f"| {row.net} | {row.way} | {row.ms:.2f} | {more} |")
    return "\n".join(lines)


def _once(run: Callable[[], Any]) -> int:
    run()
    return 1


@click.command()
@click.option("--rounds", default=51, show_default=True, help="The median of so many counts.")
@click.argument("subjects", nargs=-1)
def main(subjects: tuple[str, ...], rounds: int) -> None:
    """Measure SUBJECTS, folders and files of nets/ as in lenet/deploy; some of them by default."""
    rows = [row for subject in subjects or SUBJECTS for row in measure(subject, rounds)]
    click.echo(table(rows))


if __name__ == "__main__":
    main()
