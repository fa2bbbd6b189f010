"""How fast data comes: ``python -m benchmarks.data``.

Everything is made in a temporary folder: a set of VOC's layout and size (JPEG, palette PNG), and
LMDBs of its images.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import NamedTuple
from unittest.mock import patch

import click
import lmdb
import numpy as np
from PIL import Image

from benchmarks.rounds import Run, on_one_core, rates
from netspec.errors import Place
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TRAIN, DataParameter, Datum
from netspec.segmentation.shapes_set import CLASSES, write_dataset
from netspec.solving.solver import Solver
from netspec.solving.step import StepResult
from netspec.sources import Prefetch, Source, open_source
from netspec.sources.images.databases import write_database
from netspec.sources.images.datum import write_datum, write_encoded
from netspec.sources.prefetch import cores

IMAGES = 24
SIZE = (375, 500)
RECORDS = 64
SQUARE = 256
STEP = 0.010  # seconds that the device takes for a step, as pretended
STEPS = 100
STEPS_AHEAD = 2

MEAN = (104.00699, 116.66877, 122.67892)
MEANS = " ".join(f"mean_value: {value}" for value in MEAN)
LISTED = 'image_folder: "JPEGImages" label_folder: "SegmentationClass"'
AUGMENTED = (
    "crop_size: 321 mirror: true min_scale: 0.5 max_scale: 2 "
    "brightness: 0.3 contrast: 0.3 saturation: 0.3"
)


class Row(NamedTuple):
    """A figure: of what, the number, its unit, what was aimed at, and the cores that were had."""

    subject: str
    value: float
    unit: str
    aim: str = ""
    cores: float | None = None


def voc_layer(folder: Path) -> str:
    """The Python layer of the published FCNs, as prototxt."""
    settings = {"voc_dir": str(folder), "split": "train", "mean": MEAN}
    return (
        'layer { name: "data" type: "Python" top: "data" top: "label" python_param { '
        'module: "voc_layers" layer: "VOCSegDataLayer" '
        f"param_str: {json.dumps(str(settings))} }} }}"
    )


def listed_layer(folder: Path, settings: str = "") -> str:
    """A SegmentationData layer of the same files, as prototxt."""
    return (
        'layer { name: "data" type: "SegmentationData" top: "data" top: "label" '
        f'segmentation_data_param {{ {LISTED} root_folder: "{folder}/" {MEANS} {settings} }} }}'
    )


def opened(layer: str) -> Source:
    """The source of a data layer in phase TRAIN."""
    return open_source(parse_net(layer, "net").message.layer[0], TRAIN, 1, Place("net"))


def drained(source: Source, batches: int) -> int:
    """Take batches; returns how many."""
    for _ in range(batches):
        source.next()
    return batches


def pairs(folder: Path, rounds: int) -> list[Row]:
    """Pairs of an image and its labels a second, on one core."""
    layers = {
        "VOC pairs": voc_layer(folder),
        "SegmentationData": listed_layer(folder),
        "SegmentationData, augmented": listed_layer(folder, AUGMENTED),
    }
    runs = {name: partial(drained, opened(layer), IMAGES) for name, layer in layers.items()}
    with on_one_core():
        found = rates(runs, rounds)
    return [
        Row(f"{name}, one core", rate.things, "pairs/s", "100 or more", rate.cores)
        for name, rate in found.items()
    ]


def workers(folder: Path, rounds: int) -> list[Row]:
    """The same pairs, read ahead by several threads."""
    with ExitStack() as stack:
        runs: dict[str, Run] = {}
        for count in (1, 2, 4, 8):
            if count <= max(2, cores()):
                source = Prefetch(opened(voc_layer(folder)), 2 * count, count)
                stack.callback(source.close)
                name = f"VOC pairs, {count} worker{'s' * (count > 1)}"
                runs[name] = partial(measured_alone, source)
        found = rates(runs, rounds)
    return [Row(name, rate.things, "pairs/s", cores=rate.cores) for name, rate in found.items()]


def measured_alone(source: Prefetch) -> int:
    """Take batches from where the source stands; what was read ahead before does not count."""
    source.restore(source.state())
    return drained(source, 2 * IMAGES)


def databases(folder: Path, rounds: int) -> list[Row]:
    """The time that Data layers take, as a multiple of a bare loop over a copy of their LMDB."""
    return [
        *_database(
            folder, "raw", lambda image: write_datum(np.asarray(image)[:, :, ::-1], 3), rounds
        ),
        *_database(folder, "JPEG", lambda image: write_encoded(_jpeg(image), 3), rounds),
    ]


def _database(
    folder: Path, kind: str, write: Callable[[Image.Image], bytes], rounds: int
) -> list[Row]:
    paths = sorted((folder / "JPEGImages").iterdir())
    values = [write(Image.open(path).resize((SQUARE, SQUARE))) for path in paths]
    records = [(f"{i:08}".encode(), values[i % len(values)]) for i in range(RECORDS)]
    ours, copy = folder / f"{kind}-ours", folder / f"{kind}-copy"
    for path in (ours, copy):
        write_database(path, DataParameter.LMDB, records)
    source = opened(
        'layer { name: "data" type: "Data" top: "data" top: "label" data_param { '
        f'source: "{ours}" backend: LMDB batch_size: {RECORDS} }} transform_param {{ {MEANS} }} }}'
    )
    with (
        closing(source),
        lmdb.open(str(copy), readonly=True, lock=False) as environment,
        on_one_core(),
    ):
        runs: dict[str, Run] = {
            "bare": partial(bare_loop, environment),
            "layer": lambda: RECORDS * drained(source, 1),
        }
        found = rates(runs, rounds)
    bare, layer = found["bare"], found["layer"]
    subject, ratio = f"LMDB of {kind} images", bare.things / layer.things
    return [
        Row(f"{subject}, bare loop, one core", bare.things, "images/s", cores=bare.cores),
        Row(f"{subject}, Data layer, one core", layer.things, "images/s", cores=layer.cores),
        Row(f"{subject}, time of the layer", ratio, "of the loop's", "1.3 or less"),
    ]


def bare_loop(environment: lmdb.Environment) -> int:
    """What one would write by hand: a batch of all records, less the mean."""
    images = np.empty((RECORDS, 3, SQUARE, SQUARE), np.float32)
    labels = np.empty(RECORDS, np.float32)
    with environment.begin() as transaction:
        for i, (_, record) in enumerate(transaction.cursor()):
            datum = Datum.FromString(record)
            if datum.encoded:
                picture = Image.open(BytesIO(datum.data)).convert("RGB")
                images[i] = np.asarray(picture)[:, :, ::-1].transpose(2, 0, 1)
            else:
                images[i] = np.frombuffer(datum.data, np.uint8).reshape(images[i].shape)
            labels[i] = datum.label
    images -= np.array(MEAN, np.float32)[:, None, None]
    return RECORDS


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


class Device:
    """A pretended device: steps take `STEP` seconds each, one after the other, and no core.

    The host may be as many steps ahead of it as a solver is.
    """

    def __init__(self, made: StepResult) -> None:
        self._made = made
        self._ends: deque[float] = deque([0.0] * STEPS_AHEAD, STEPS_AHEAD)
        self.idle = 0.0

    def update(self, _: object) -> StepResult:
        """Take a step; returns when few enough are under way."""
        now, free = perf_counter(), self._ends[-1]
        begin = max(now, free)
        self.idle += begin - free
        first = self._ends.popleft()
        self._ends.append(begin + STEP)
        sleep(max(0.0, first - now))
        return self._made


def waiting(folder: Path, rounds: int) -> list[Row]:
    """The share of a run's time that its device stands idle."""
    with closing(Solver.from_file(write_solver(folder))) as solver:
        solver.step(1)
        batch = solver.trainer.batch(solver.feed.next(), 0, "")
        device = Device(solver.trainer.update([batch]))
        shares = []
        with patch.object(solver.trainer, "update", device.update):
            for _ in range(rounds + 1):
                # Of a first step before which the device did nothing the idle time is not counted.
                solver.step(1)
                start, device.idle = perf_counter(), 0.0
                solver.step(STEPS)
                shares.append(device.idle / (perf_counter() - start))
    subject = f"solve on VOC pairs, steps of {1000 * STEP:g} ms, device idle"
    return [Row(subject, 100 * median(shares[1:]), "% of the time", "less than 2")]


def write_solver(folder: Path) -> Path:
    """A solver of a net with next to nothing to learn, on VOC pairs."""
    net, solver = folder / "net.prototxt", folder / "solver.prototxt"
    net.write_text(
        f"{voc_layer(folder)}\n"
        'layer { name: "score" type: "Convolution" bottom: "data" top: "score" '
        f"convolution_param {{ num_output: {len(CLASSES)} kernel_size: 1 }} }}\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" '
        "loss_param { ignore_label: 255 } }\n"
    )
    solver.write_text(
        f'train_net: "{net}" base_lr: 1e-9 lr_policy: "fixed" max_iter: 1000000 '
        "snapshot_after_train: false\n"
    )
    return solver


def measure(rounds: int) -> list[Row]:
    """Every figure, in the order of the table."""
    with TemporaryDirectory(prefix="netspec-data-") as name:
        folder = write_dataset(name, train=IMAGES, val=1, size=SIZE)
        return [
            row
            for figures in (pairs, workers, databases, waiting)
            for row in figures(folder, rounds)
        ]


def table(rows: list[Row]) -> str:
    """The figures as Markdown."""
    lines = ["| what | measured | cores had | aim |", "|---|---|---|---|"]
    for row in rows:
        had = "" if row.cores is None else f"{row.cores:.2f}"
        value = f"{row.value:.3g}" if row.value < 1000 else f"{row.value:,.0f}"
        lines.append(f"| {row.subject} | {value} {row.unit} | {had} | {row.aim} |")
    return "\n".join(lines)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--rounds", default=7, show_default=True, help="Take the median of so many.")
def main(as_json: bool, rounds: int) -> None:
    """Measure how fast data comes."""
    rows = measure(rounds)
    click.echo(json.dumps([row._asdict() for row in rows], indent=1) if as_json else table(rows))


if __name__ == "__main__":
    main()
