"""The command ``netspec``: which module has each verb, and how errors are printed.

Verbs are imported when they run, see `netspec.cli.lazy`. The first sentence of each one's docstring
is repeated here, so that ``--help`` imports none of them.
"""

from __future__ import annotations

import errno
import warnings
from typing import Any

import click

from netspec.cli.caffe import caffe
from netspec.cli.data import data
from netspec.cli.lazy import add_lazily
from netspec.errors import NetSpecError, unreadable
from netspec.reporting.version import __version__

_VERBS = {
    "train": {"solve": "Train the net of SOLVER, a solver prototxt."},
    "regime": {
        "regime": "Turn the regime of SOLVER into its equivalent with other images a step.",
    },
    "surgery": {
        "surgery": (
            "Make weights for NET out of other nets' WEIGHTS, layer by layer of the same name."
        ),
    },
    "evaluate": {
        "test": (
            "Run NET on its test data: the mean of its outputs, and metrics where it segments."
        ),
        "score": "Score NET with WEIGHTS on its test data, all of it once.",
    },
    "segment": {
        "segment": "Label every pixel of images: of each a palette PNG and an overlay.",
    },
    "inspect": {
        "draw": "Draw NET: its layers, their windows, the shapes between them.",
        "summary": (
            "List the layers of NET: shapes, parameters, multiply-adds, activations, "
            "what is frozen."
        ),
        "rf": (
            "Tell what the pixels of NET's blobs see: stride, receptive field, offset, least pad."
        ),
        "layers": "List the layer types: what they take, make, learn and compute.",
    },
    "plot": {
        "plot": "Draw what LOGs tell of training: loss, learning rate and tests over iterations.",
    },
    "upgrade": {"upgrade": "Write net (or solver) OLD in the current schema to NEW."},
    "run_script": {"run": "Run SCRIPT, as python does, with `import caffe` meaning netspec."},
}


class Verbs(click.Group):
    """Commands that print a NetSpecError as one message and exit with status 1.

    So they do where the system refuses a file, or memory.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; exit with 1 if it raises a NetSpecError, or the system refuses."""
        # Our own limit says so in a message, see `netspec.sources.images.decode`.
        warnings.filterwarnings("ignore", message="Image size .* decompression bomb")
        try:
            return super().invoke(ctx)
        except NetSpecError as error:
            click.echo(f"netspec: {error}", err=True)
            ctx.exit(1)
        except MemoryError as error:
            click.echo(f"netspec: there is not enough memory ({error})", err=True)
            ctx.exit(1)
        except OSError as error:
            # A pipe that closes early is no mistake: click ends quietly.
            if error.errno == errno.EPIPE or error.filename is None:
                raise
            click.echo(f"netspec: {unreadable(error.filename, error)}", err=True)
            ctx.exit(1)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Compile Caffe's nets to JAX: train them, test them, use them, look at them."""


add_lazily(main, _VERBS)
main.add_command(caffe)
main.add_command(data)
