"""Figures of a noisy machine: what is compared takes turns, and the median counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

Run = Callable[[], int]


class Rate(NamedTuple):
    """Things a second, and how many cores they took: seconds of all cores together, a second."""

    things: float
    cores: float


def rates(runs: Mapping[str, Run], rounds: int) -> dict[str, Rate]:
    """What each run does in a second, the medians of ``rounds`` in which they take turns.

    A run does its work once and returns how many things it did; one more before the first round
    is not counted.
    """
    found: dict[str, list[Rate]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start, used = perf_counter(), process_time()
            done = run()
            seconds = perf_counter() - start
            if number:
                found[name].append(Rate(done / seconds, (process_time() - used) / seconds))
    return {
        name: Rate(*(median(values) for values in zip(*each, strict=True)))
        for name, each in found.items()
    }


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this thread, and those it starts meanwhile, on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
