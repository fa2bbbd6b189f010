"""How long calls take whose arrays a device computes.

JAX returns before arrays are there, so that a call is timed by waiting for them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax

_Made = TypeVar("_Made")


def timed(function: Callable[..., _Made], *args: Any) -> tuple[float, _Made]:
    """Seconds until the arrays that a function returns are there, and what it returns."""
    start = time.perf_counter()
    made = jax.block_until_ready(function(*args))
    return time.perf_counter() - start, made


def median_seconds(function: Callable[..., Any], *args: Any, repeats: int) -> float:
    """The median over ``repeats`` calls, after one that is left out because it compiles."""
    timed(function, *args)
    return statistics.median(timed(function, *args)[0] for _ in range(repeats))
