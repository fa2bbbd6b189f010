"""The group ``netspec data``: which module has each of its verbs."""

from __future__ import annotations

import click

from netspec.cli.lazy import add_lazily

_DATABASE = "Write the images of LIST, a line `path label` each, to a new {} database DIR."
_VERBS = {
    "data_shapes": {
        "shapes": "Make a small set of textured shapes in PASCAL VOC's layout in FOLDER.",
    },
    "data_convert": {
        "lmdb": _DATABASE.format("LMDB"),
        "leveldb": _DATABASE.format("LevelDB"),
        "mean": "Print the mean of each channel of a database or of a LIST of images.",
    },
    "data_show": {
        "show": "Draw what NET really gets: images, their mean added back, and labels.",
    },
    "data_prepare": {
        "prepare": "Say whether a set is ready for the published nets, and what it lacks.",
    },
}


@click.group()
def data() -> None:
    """Make and look at data sets."""


add_lazily(data, _VERBS)
