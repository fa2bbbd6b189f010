"""A hook that sees items pass, for progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes items on, given how many there are, and may show how many of them are done."""


def unwatched(items: Iterable[Any], total: int) -> Iterable[Any]:
    """The items; nothing is shown."""
    return items
