"""``netspec run``: scripts written for pycaffe."""

from __future__ import annotations

import re
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
    if not as_module:
        _check(Path(script), script)
    install()
    sys.argv = [script, *args]
    with _uncaught():
        if as_module:
            sys.path.insert(0, "")
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(script).resolve().parent))
            runpy.run_path(script, run_name="__main__")


def _check(path: Path, script: str) -> None:
    """Raise NetSpecError unless there is something to run."""
    require(script, "the name of the script is empty", NetSpecError)
    require(path.exists(), f"{script}: no such file", NetSpecError)
    require(
        not path.is_dir() or (path / "__main__.py").exists(),
        f"{script}: a folder without __main__.py; name the script in it",
        NetSpecError,
    )


@contextmanager
def _uncaught() -> Iterator[None]:
    """Print a script's exception without the frames of this runner, and exit with status 1."""
    try:
        yield
    except Exception as error:
        frames = _its_own(error.__traceback__)
        traceback.print_exception(type(error), error, frames)
        if _is_python_2(error):
            click.echo(_PYTHON_2, err=True)
        sys.exit(1)


# What Python 2 has and 3 lacks: names, modules, methods of dicts.
_OLD_NAMES = (
    "xrange raw_input unicode basestring long unichr reduce execfile cmp reload file".split()
)
_OLD_MODULES = "cPickle StringIO cStringIO ConfigParser Queue urllib2 urlparse Tkinter".split()
_OLD_METHODS = "iteritems iterkeys itervalues has_key".split()
# What Python 3 says of Python 2's syntax, and of its lists that became views; and lines of which it
# says less.
_OLD_ERRORS = re.compile(
    r"Missing parentheses in call to|multiple exception types must be parenthesized"
    r"|for >>: 'builtin_function_or_method'"
    r"|leading zeros in decimal integer|inconsistent use of tabs"
    r"|'(map|filter|zip|dict_keys|dict_values|dict_items)' object is not subscriptable"
)
_OLD_LINES = re.compile(r"<>|`|\b\d+L\b|\braise [\w.]+\s*,|\bprint\s*>>")
_PYTHON_2 = (
    "this looks like a Python 2 script, and netspec runs Python 3: convert it, by 2to3 -w (Python "
    "3.12 and before) or by futurize -w (of the package future)"
)


def _is_python_2(error: Exception) -> bool:
    """Whether a script failed at something that Python 2 has and Python 3 lacks."""
    if isinstance(error, SyntaxError | TypeError) and _OLD_ERRORS.search(str(error)):
        return True
    if isinstance(error, SyntaxError):
        return bool(_OLD_LINES.search(error.text or ""))
    for kind, old in (
        (AttributeError, _OLD_METHODS),
        (ImportError, _OLD_MODULES),
        (NameError, _OLD_NAMES),
    ):
        if isinstance(error, kind):
            return error.name in old
    return False


def _its_own(frames: TracebackType | None) -> TracebackType | None:
    """The frames of a traceback that are the script's own."""
    runners = (__file__, runpy.__file__, "<frozen runpy>")
    rest = frames
    while rest is not None and rest.tb_frame.f_code.co_filename in runners:
        rest = rest.tb_next
    return rest
