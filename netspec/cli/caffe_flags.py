"""Flags as Caffe's tools take them, read by click.

``--flag=value``, ``--flag value`` and the same with one dash, before and after arguments; a boolean
flag is ``--flag``, ``--noflag`` or ``--flag=false``. Dashes in a name stand for underscores, and
after ``--`` there are only arguments. Caffe: gflags, in every tool.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import click

from netspec.reporting import glog

_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")
_HELP = ("h", "help", "helpshort")


def _tell_at_least(ctx: click.Context, _: click.Parameter, severity: int | None) -> None:
    if severity is not None:
        ctx.with_resource(glog.at_least(severity))


def _switch(*spellings: str, **settings: Any) -> click.Option:
    return click.Option(spellings, hidden=True, expose_value=False, **settings)


# The flags of every tool of Caffe's for its log. All but the first change nothing, since all lines
# go to stderr.
_LOGGING = (
    _switch("--minloglevel", type=int, callback=_tell_at_least),
    _switch("--logtostderr/--nologtostderr"),
    _switch("--alsologtostderr/--noalsologtostderr"),
    _switch("--colorlogtostderr/--nocolorlogtostderr"),
    _switch("--stderrthreshold", type=int),
    _switch("--v", type=int),
    _switch("--vmodule"),
)


class Flagged(click.Command):
    """A command whose options are flags, those of glog among them.

    The first spelling of each is its name.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(_LOGGING)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Pass click the flags in the spelling that it knows, and the arguments after them."""
        flags, arguments = split(self, ctx, args)
        return super().parse_args(ctx, [*flags, "--", *arguments])


def split(
    command: click.Command, ctx: click.Context, args: list[str]
) -> tuple[list[str], list[str]]:
    """Separate the flags of ``args``, spelled ``--flag=value``, from the arguments.

    Raises click's UsageError for a flag that the command lacks, and for one without its value.
    """
    known = {str(p.name): p for p in command.params if isinstance(p, click.Option)}
    flags: list[str] = []
    arguments: list[str] = []
    left = iter(args)
    for arg in left:
        if arg == "--":
            arguments.extend(left)
        elif arg.startswith("-") and arg.strip("-"):
            flags.append(_flag(known, ctx, arg, left))
        else:
            arguments.append(arg)
    return flags, arguments


def _flag(known: dict[str, click.Option], ctx: click.Context, arg: str, left: Iterator[str]) -> str:
    """One flag as click spells it; its value may be the first of the arguments ``left``."""
    name, equals, value = arg.removeprefix("-").removeprefix("-").partition("=")
    name = name.replace("-", "_")
    if name in _HELP:
        return "--help"
    option = known.get(name)
    if option is not None and option.is_flag:
        return f"--{name}" if _truth(ctx, name, value or "true") else f"--no{name}"
    if option is not None:
        given = value if equals else next(left, None)
        if given is None:
            raise click.BadOptionUsage(name, f"Option '--{name}' requires an argument.", ctx)
        return f"--{name}={given}"
    positive = known.get(name.removeprefix("no"))
    if positive is not None and positive.is_flag and not equals:
        return f"--{name}"
    near = [f"--{candidate}" for candidate in _near(name, known)]
    raise click.NoSuchOption(f"--{name}", possibilities=near, ctx=ctx)


def _near(name: str, known: dict[str, click.Option]) -> list[str]:
    shown = [candidate for candidate, option in known.items() if not option.hidden]
    return get_close_matches(name, shown, n=1)


def _truth(ctx: click.Context, name: str, value: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise click.BadOptionUsage(name, f"--{name}={value}: write true or false", ctx)
    return value.lower() in _TRUE
