"""Options that several verbs share, and how they are read."""

from __future__ import annotations

import click

from netspec.errors import NetSpecError, fail
from netspec.runtime import compile_cache

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["f32", "tf32", "bf16"]),
    help="What products are computed in; f32 by default.",
)

shape_option = click.option(
    "--shape", "shapes", multiple=True, help="An input's shape: data=1,3,500,500."
)

run_python_option = click.option(
    "--run-python",
    is_flag=True,
    help="Import and run the modules of NET's Python layers; without it they are left unknown.",
)


def parse_shapes(options: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Input blob -> its shape, of each ``--shape``; raises NetSpecError."""
    return dict(map(_parse_shape, options))


def _parse_shape(option: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = option.partition("=")
    try:
        return name, tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        return fail(f"--shape {option}: write it as data=1,3,500,500", NetSpecError)


def keep_programs() -> None:
    """Keep compiled programs on disk for later starts; a warning says why that cannot be."""
    compile_cache.keep_programs(lambda why: click.echo(f"netspec: warning: {why}", err=True))
