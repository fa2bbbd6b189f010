"""Faults that are known and being mended: what is found of these kinds is counted apart.

A kind goes when its fault has gone: a test of the fuzzer's own tells that it is no longer met.
"""

from collections.abc import Callable

from .drafts import Draft
from .face import Face

Kind = Callable[[Face, str, str], bool]

KINDS: dict[str, Kind] = {}


def kind(draft: Draft, face: Face, check: str, what: str) -> str | None:
    """The known fault that a failure is of, if any."""
    return next((name for name, fits in KINDS.items() if fits(face, check, what)), None)
