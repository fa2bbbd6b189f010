"""What can go wrong, and where.

::

    NetSpecError
    ├── ParseError     a prototxt that is not in the language
    ├── GraphError     layers that cannot be connected
    ├── LayerError     a layer whose settings or bottoms cannot work
    ├── WeightsError   a weight file that is damaged or does not fit
    ├── SourceError    data that is missing, damaged or out of range
    └── SolverError    a training regime that cannot run

A message says where, who, and what is wrong with the numbers::

    nets/fcn8s/train.prototxt:410: layer "score" (Crop): axis 2: offset 31 + size 500 > 512

Code that finds a mistake says only the last part; `blame` adds the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

# Longer names are nobody's typing mistakes.
_LONGEST_COMPARED = 200


class Place(NamedTuple):
    """A line of a file, printed ``file:line``; line 0 means the file as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class NetSpecError(RuntimeError):
    """A user's mistake; ``str(error)`` is the whole message.

    A RuntimeError, as scripts for pycaffe expect.
    """

    def __init__(self, message: str, place: Place | None = None, who: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.who = who

    def __str__(self) -> str:
        parts = (str(self.place or ""), self.who, self.message)
        # A path may hold a NUL, which a terminal would swallow.
        return ": ".join(part for part in parts if part).replace("\0", "\\0")


class ParseError(NetSpecError):
    """A prototxt that is not in the language."""


class GraphError(NetSpecError):
    """Layers that cannot be connected."""


class LayerError(NetSpecError):
    """A layer whose settings or bottoms cannot work."""


class WeightsError(NetSpecError):
    """A weight file that is damaged or does not fit the net."""


class SourceError(NetSpecError):
    """Data that is missing, damaged or out of range."""


class DamagedDataError(SourceError):
    """Data that is there, but is damaged or must not be read."""


class SolverError(NetSpecError):
    """A training regime that cannot run."""


@contextmanager
def blame(place: Place | None, who: str = "") -> Iterator[None]:
    """Add ``place`` and ``who`` to an error raised inside, unless it already knows them."""
    try:
        yield
    except NetSpecError as error:
        error.place = error.place or place
        error.who = error.who or who
        raise


def require(condition: object, message: str, error: type[NetSpecError] = LayerError) -> None:
    """Raise ``error(message)`` unless ``condition`` holds."""
    if not condition:
        raise error(message)


def fail(message: str, error: type[NetSpecError] = LayerError) -> NoReturn:
    """Raise ``error(message)``."""
    raise error(message)


def counted(count: int, noun: str) -> str:
    """A number and what it counts: ``1 top``, ``2 tops``, ``2 batches``."""
    end = "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{count} {noun}{'' if count == 1 else end}"


def nearest(name: str, known: Iterable[str]) -> str:
    """``'; did you mean "conv1"?'`` for the known name nearest to a mistyped one, or nothing."""
    # The comparison takes the square of their lengths.
    known = [candidate for candidate in known if len(candidate) <= _LONGEST_COMPARED]
    if len(name) > _LONGEST_COMPARED:
        return ""
    folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1)
    return f'; did you mean "{folded[found[0]]}"?' if found else ""


def unreadable(path: object, error: OSError) -> str:
    """The message for a file that the system would not open, e.g. ``a.txt: no such file``."""
    if not str(path):
        return "the name of a file is empty"
    reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or error)
    return f"{path}: {str(reason).lower()}"
