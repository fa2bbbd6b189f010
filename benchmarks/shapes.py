"""What images of many sizes cost: ``python -m benchmarks.shapes``.

An FCN-8s, narrow unless said otherwise, trains on random images of VOC's sizes: the long side is
500 pixels, the other 281 to 500, some upright and some lying.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple
from unittest.mock import patch

import click
import jax
import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Row, machine, tell
from benchmarks.rounds import rates
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import write
from netspec.layers.base import count
from netspec.proto.solver_pb2 import SolverParameter
from netspec.runtime.compile_cache import Compiles
from netspec.runtime.masked_shapes import rounded
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import SizeBuckets
from netspec.solving.trainer import Trainer
from netspec.sources.fed_net import compile_net

IMAGES = 200
DIFFERENT = 120
LONG = 500
SHORT = range(281, 501)
CLASSES = 21
GENERATOR = Path(__file__).resolve().parents[1] / "nets" / "voc-fcn8s" / "net.py"

Size = tuple[int, int]


class Passed(NamedTuple):
    """What training on some images took.

    seconds: of each step. programs: compiled. compiling: seconds of all that went into them.
    """

    losses: list[float]
    seconds: list[float]
    programs: int
    compiling: float


def sizes(images: int = IMAGES, different: int = DIFFERENT) -> list[Size]:
    """Heights and widths, each of the ``different`` ones at least once; always the same."""
    draw = np.random.default_rng(0)
    all_sizes = [size for n in SHORT for size in ((n, LONG), (LONG, n))]
    chosen = draw.choice(len(all_sizes) - 1, different, replace=False)
    again = draw.choice(chosen, images - different)
    return [all_sizes[i] for i in draw.permutation([*chosen, *again])]


def narrow_net(width: float, first: Size) -> Net:
    """FCN-8s with so many channels as a share of its own, for a first image of this size."""
    with TemporaryDirectory(prefix="netspec-shapes-") as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(write(runpy.run_path(str(GENERATOR))["net"]("train", width).to_proto()))
        graph = read_graph(path, "train")
    return compile_net(graph, {"data": (1, 3, *first), "label": (1, 1, *first)})


def batch(size: Size) -> dict[str, NDArray[np.float32]]:
    """A random image, and labels."""
    draw = np.random.default_rng(size)
    image = draw.normal(0, 50, (1, 3, *size)).astype(np.float32)
    return {"data": image, "label": draw.integers(0, CLASSES, (1, 1, *size)).astype(np.float32)}


def trainer(width: float, first: Size) -> Trainer:
    """What takes steps; the rate is 0, so that losses do not hang on the steps before."""
    settings = SolverParameter(base_lr=0, lr_policy="fixed", type="SGD", momentum=0.9)
    return Trainer(narrow_net(width, first), settings, seed=0)


def step(made: Trainer, size: Size) -> float:
    """One step; returns the loss once all is computed."""
    micro = made.update([made.batch(batch(size), 0, "")])
    jax.block_until_ready((micro, made.state))
    return float(micro.loss)


@contextmanager
def apart() -> Iterator[None]:
    """A program for each size."""
    with patch.object(SizeBuckets, "_room_for", lambda self, given, exact: None):
        yield


def train(made: Trainer, images: Iterable[Size]) -> Passed:
    """A step on each image."""
    losses, seconds = [], []
    with Compiles() as compiles:
        for size in images:
            start = perf_counter()
            losses.append(step(made, size))
            seconds.append(perf_counter() - start)
    return Passed(losses, seconds, len(made.buckets.programs), compiles.seconds)


def pixels_added(images: Iterable[Size], home: Size) -> float:
    """The share of pixels that arrays have besides the images' own."""
    pairs = [(count(s), count(s if s == home else [*map(rounded, s)])) for s in images]
    own, room = (sum(each) for each in zip(*pairs, strict=True))
    return room / own - 1


def measure(width: float, alone: int, rounds: int) -> list[Row]:
    """Every figure, in the order of the table. alone: sizes that get a program of their own."""
    images = sizes()
    home, *others = dict.fromkeys(images)
    few = trainer(width, home)
    together = train(few, images)
    each = trainer(width, home)
    with apart():
        lonely = train(each, others[:alone])
    by_size = dict(zip(images, together.losses, strict=True))
    differences = [
        abs(by_size[size] / loss - 1) for size, loss in zip(others, lonely.losses, strict=False)
    ]
    ratio = mask_cost(few, each, others[0], rounds)
    new = median(lonely.seconds)
    return [
        row("images", len(images), f"of {len(set(images))} sizes"),
        row("programs compiled", together.programs, "", "8 or fewer"),
        row("pixels added", 100 * pixels_added(images, home), "%", "15 or less"),
        row("training on all images", sum(together.seconds), "s"),
        row("of which compiling", together.compiling, "s"),
        row("a program for each size: one of them, and its step", new, "s"),
        row("as much for every size, reckoned", new * len(set(images)), "s"),
        row("a step in larger arrays", ratio, "times one in its own"),
        row("greatest difference of a loss", max(differences), "of the loss", "1e-5 or less"),
    ]


def row(what: str, measured: float, unit: str, aim: str = "") -> Row:
    """A line of the table."""
    return {"what": what, "measured": measured, "unit": unit, "aim": aim}


def mask_cost(few: Trainer, each: Trainer, size: Size, rounds: int) -> float:
    """The time of a step on an image in larger arrays, as a multiple of that in its own."""

    def alone() -> int:
        with apart():
            step(each, size)
        return 1

    def together() -> int:
        step(few, size)
        return 1

    found = rates({"together": together, "alone": alone}, rounds)
    return found["alone"].things / found["together"].things


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Take the median of so many.")
@click.option("--width", default=1 / 16, show_default=True, help="Channels, as a share of FCN-8s'.")
@click.option("--alone", default=6, show_default=True, help="Compile so many sizes one by one.")
@click.option("--json", "path", metavar="FILE", help="Write the figures there, too.")
def main(rounds: int, width: float, alone: int, path: str | None) -> None:
    """Measure what images of many sizes cost."""
    # What was compiled before would be read back.
    jax.config.update("jax_enable_compilation_cache", False)
    rows = measure(width, alone, rounds)
    tell([rows], {"width": f"{width:g}", **machine("jax")}, path)


if __name__ == "__main__":
    main()
