"""``netspec run``: scripts written for pycaffe."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import click

from netspec.errors import NetSpecError, require
from netspec.layers.import_hook import install


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[-m]",
)
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is the name of a module.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(script: str, args: tuple[str, ...], as_module: bool) -> None:
    """Run SCRIPT, as python does, with `import caffe` meaning netspec.

    All that follows SCRIPT is its own. What it raises is shown as python shows it.
    """
    require(as_module or Path(script).exists(), f"{script}: no such file", NetSpecError)
    install()
    sys.argv = [script, *args]
    with _uncaught():
        if as_module:
            sys.path.insert(0, "")
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(script).resolve().parent))
            runpy.run_path(script, run_name="__main__")


@contextmanager
def _uncaught() -> Iterator[None]:
    """Print a script's exception without the frames of this runner, and exit with status 1."""
    try:
        yield
    except Exception as error:
        frames = _its_own(error.__traceback__)
        traceback.print_exception(type(error), error, frames)
        sys.exit(1)


def _its_own(frames: TracebackType | None) -> TracebackType | None:
    """The frames of a traceback that are the script's own."""
    runners = (__file__, runpy.__file__, "<frozen runpy>")
    rest = frames
    while rest is not None and rest.tb_frame.f_code.co_filename in runners:
        rest = rest.tb_next
    return rest
