"""Caffe's tools as verbs of ``netspec caffe``, for databases, features and drawings.

Log lines go to stderr, as glog's do. Caffe: ``tools/*.cpp``, ``python/draw_net.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from netspec.cli.caffe_features import extract
from netspec.cli.caffe_flags import Flagged
from netspec.cli.options import run_python_option
from netspec.cli.unknown_layers import say_unknown_layers
from netspec.errors import NetSpecError, SourceError, require
from netspec.frontend.net_graph import read_graph
from netspec.inspect.draw import draw
from netspec.inspect.look import look_at
from netspec.layers.placeholder import create_or_stand_in
from netspec.proto.layers_pb2 import DataParameter
from netspec.reporting.glog import GlogWriter
from netspec.runtime import devices
from netspec.sources.convert import (
    Listed,
    backend_of,
    list_to_database,
    mean_image,
    samples_of_database,
    write_mean,
)
from netspec.sources.fed_net import with_data
from netspec.sources.images.databases import BACKENDS
from netspec.weights.caffemodel import copy_into, read_weights

_BACKENDS = click.Choice(["lmdb", "leveldb"])

# convert_imageset and compute_image_mean log a line after this many images.
_SOME, _MANY = 1000, 10_000


@click.command("convert_imageset", cls=Flagged)
@click.argument("root", metavar="ROOTFOLDER/")
@click.argument("listed", metavar="LISTFILE")
@click.argument("database", metavar="DB_NAME")
@click.option("--gray/--nogray", help="Store one channel of grey.")
@click.option("--shuffle/--noshuffle", help="Store them in another order than the list's.")
@click.option("--backend", type=_BACKENDS, default="lmdb", show_default=True)
@click.option("--resize_width", default=0, help="Make all images so wide.")
@click.option("--resize_height", default=0, help="Make all images so high.")
@click.option("--check_size/--nocheck_size", help="Refuse images of several sizes.")
@click.option("--encoded/--noencoded", help="Store image files.")
@click.option("--encode_type", default="", help="Of which kind, say png or jpg.")
def convert_imageset(root: str, listed: str, database: str, encoded: bool, **flags: Any) -> None:
    """Write the images that a list names to a new database.

    ROOTFOLDER is put before every path as it is.
    """
    with GlogWriter() as log:
        list_to_database(
            Listed(
                Path(listed),
                root,
                color=not flags["gray"],
                height=flags["resize_height"],
                width=flags["resize_width"],
                seed=0 if flags["shuffle"] else None,
            ),
            Path(database),
            DataParameter.DB.Value(flags["backend"].upper()),
            flags["encode_type"] if encoded or flags["encode_type"] else None,
            flags["check_size"],
            _counted(log, _SOME, "A total of {} images."),
        )


@click.command("compute_image_mean", cls=Flagged)
@click.argument("database", metavar="INPUT_DB")
@click.argument("out", metavar="[OUTPUT_FILE]", required=False)
@click.option("--backend", type=_BACKENDS, default="lmdb", show_default=True)
def compute_image_mean(database: str, out: str | None, backend: str) -> None:
    """Print the mean of each channel of a database; write the mean image, too."""
    with GlogWriter() as log:
        found = backend_of(Path(database))
        kind = BACKENDS[found].kind.lower()
        require(
            kind == backend, f"{database}: a {kind} database; give --backend={kind}", SourceError
        )
        log.say("Starting iteration")
        mean = mean_image(samples_of_database(Path(database), found, _counted(log, _MANY)))
        if out:
            log.say(f"Write to {out}")
            write_mean(Path(out), mean)
        log.say(f"Number of channels: {len(mean)}")
        for i, value in enumerate(mean.mean((1, 2), dtype=float)):
            log.say(f"mean_value channel [{i}]: {value:.6g}")


def _counted(
    log: GlogWriter, every: int, first: str = ""
) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """A function that passes items on and logs how many are done."""

    def watch(items: Iterable[Any], total: int) -> Iterable[Any]:
        if first:
            log.say(first.format(total))
        for i, item in enumerate(items, 1):
            yield item
            if i % every == 0 or i == total:
                log.say(f"Processed {i} files.")

    return watch


@click.command("extract_features")
@click.argument("weights", metavar="WEIGHTS")
@click.argument("net", metavar="NET")
@click.argument("blobs", metavar="BLOB[,BLOB...]")
@click.argument("databases", metavar="DB[,DB...]")
@click.argument("batches", metavar="BATCHES", type=int)
@click.argument("backend", metavar="lmdb|leveldb", type=_BACKENDS)
@click.argument("mode", metavar="[CPU|GPU]", type=click.Choice(["CPU", "GPU"]), default="CPU")
@click.argument("device", metavar="[DEVICE_ID]", default=0)
def extract_features(
    weights: str, net: str, blobs: str, databases: str, batches: int, **rest: Any
) -> None:
    """Write what NET makes of its test data: a database of floats for each BLOB."""
    names, paths = blobs.split(","), databases.split(",")
    require(
        len(names) == len(paths) == len(set(names)) == len(set(paths)),
        f"{len(names)} blobs ({blobs}) and {len(paths)} databases ({databases}); give a database "
        "for each blob, and each once",
        NetSpecError,
    )
    with GlogWriter() as log:
        devices.use(devices.chosen(str(rest["device"]) if rest["mode"] == "GPU" else ""))
        log.say(f"Using {rest['mode']}")
        with with_data(read_graph(net)) as (compiled, feed):
            log.say(str(copy_into(compiled, read_weights(weights))))
            log.say("Extracting Features")
            extract(
                compiled,
                feed,
                dict(zip(names, map(Path, paths), strict=True)),
                batches,
                DataParameter.DB.Value(rest["backend"].upper()),
                lambda blob, done: log.say(
                    f"Extracted features of {done} query images for feature blob {blob}"
                ),
            )
        log.say("Successfully extracted the features!")


@click.command("draw_net")
@click.argument("net")
@click.argument("out")
@click.option("--rankdir", help="Changes nothing: a drawing is laid out as it fits best.")
@click.option(
    "--phase",
    type=click.Choice(["TRAIN", "TEST", "ALL"]),
    default="ALL",
    show_default=True,
    help="ALL draws TRAIN, and names the layers that only TEST has.",
)
@click.option("--display_lrm", is_flag=True, help="Changes nothing: frozen layers are marked.")
@run_python_option
def draw_net(
    net: str, out: str, rankdir: str | None, phase: str, display_lrm: bool, run_python: bool
) -> None:
    """Draw NET to OUT: net.svg, net.png or net.dot."""
    click.echo(f"Drawing net to {out}")
    known = look_at(net, "test" if phase == "TEST" else "train", run_python=run_python)
    draw(known, out)
    say_unknown_layers(known, run_python)
    if rankdir:
        click.echo(f"--rankdir {rankdir}: a drawing is laid out as it fits best")
    if display_lrm:
        click.echo("--display_lrm: layers with lr_mult: 0 are marked, others are not")
    if phase == "ALL":
        _say_left_out(net)


def _say_left_out(net: str) -> None:
    """Print the layers that phase TEST alone has."""
    drawn, other = (
        read_graph(net, phase, create=create_or_stand_in) for phase in ("train", "test")
    )
    kept = {(node.name, node.place) for node in drawn.nodes}
    names = [node.name for node in other.nodes if (node.name, node.place) not in kept]
    if names:
        click.echo(f"without what phase TEST alone has (--phase TEST): {', '.join(names)}")
