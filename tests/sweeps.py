"""Which rows of a long parametrised test belong to the fast subset (``-m "not slow"``)."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest


def first_of_each(rows: Iterable[Any], kind: Callable[[Any], Hashable] = lambda row: None) -> list:
    """Parameters for a test: the first row of each kind as it is, all others marked slow.

    Without ``kind``, all rows are of one. A plain tuple holds the values of several arguments.
    """
    seen: set[Hashable] = set()
    found = []
    for row in rows:
        values = row if type(row) is tuple else (row,)
        new = kind(row) not in seen
        seen.add(kind(row))
        found.append(row if new else pytest.param(*values, marks=pytest.mark.slow))
    return found
