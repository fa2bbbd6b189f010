"""The group ``netspec caffe``: which module has each of Caffe's commands, and their flags."""

from __future__ import annotations

import click

from netspec.cli.caffe_flags import Flagged, split
from netspec.cli.lazy import add_lazily

_VERBS = {
    "caffe_commands": {
        "train": "Train the net of a solver, or go on from a snapshot.",
        "test": "Score a net on its test data.",
        "time": "Measure how long each layer of a net takes, forward and backward.",
        "device_query": "Say what devices there are.",
    },
    "caffe_predict": {
        "classify": "Classify an image, the images of a folder, or arrays (N, H, W, K) of a .npy.",
        "detect": "Run a net on windows of images; the results go to OUTPUT_FILE, a .csv or HDF5.",
    },
    "caffe_tools": {
        "compute_image_mean": (
            "Print the mean of each channel of a database; write the mean image, too."
        ),
        "convert_imageset": "Write the images that a list names to a new database.",
        "draw_net": "Draw NET to OUT: net.svg, net.png or net.dot.",
        "extract_features": (
            "Write what NET makes of its test data: a database of floats for each BLOB."
        ),
    },
    "caffe_upgrade": {
        "upgrade_net_proto_binary": "Write .caffemodel OLD in the current schema to NEW.",
        "upgrade_net_proto_text": "Write net prototxt OLD in the current schema to NEW.",
        "upgrade_solver_proto_text": "Write solver prototxt OLD in the current schema to NEW.",
    },
}

_EFFECTS = click.Choice(["snapshot", "stop", "none"])

# What train, test, time and device_query take, each of them all.
FLAGS = [
    click.Option(["--solver"], default="", help="The solver prototxt to train by."),
    click.Option(["--model"], default="", help="The net prototxt to test or to time."),
    click.Option(["--weights"], default="", help="Start from these .caffemodel files: a[,b...]."),
    click.Option(["--snapshot"], default="", help="Go on from this .solverstate."),
    click.Option(
        ["--iterations"], default=50, show_default=True, help="Batches to test or to time."
    ),
    click.Option(["--gpu"], default="", help="Devices by number: 0, or 0,1, or all; else the CPU."),
    click.Option(
        ["--phase"],
        type=click.Choice(["", "TRAIN", "TEST"]),
        default="",
        help="Of the net to time.",
    ),
    click.Option(["--level"], default=0, show_default=True, help="The level of the net."),
    click.Option(["--stage"], default="", help="The stages of the net: a[,b...]."),
    click.Option(["--sigint_effect"], type=_EFFECTS, default="stop", show_default=True),
    click.Option(["--sighup_effect"], type=_EFFECTS, default="snapshot", show_default=True),
    click.Option(["--log_dir"], default="", envvar="GLOG_log_dir", help="Write lines there, too."),
]

_HELP = ("-h", "--help")


class _FlagsFirst(click.Group):
    """Commands whose flags may stand before their name. Caffe: ``caffe.cpp``, by gflags."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move flags behind the command."""
        if args and args[0].startswith("-") and args[0] not in _HELP:
            flags, arguments = split(Flagged(None, params=[*FLAGS]), ctx, args)
            args = [*arguments, *flags]
        return super().parse_args(ctx, args)


@click.group(cls=_FlagsFirst)
def caffe() -> None:
    """Caffe's command line and its tools, with the flags and the lines that scripts know."""


add_lazily(caffe, _VERBS)
