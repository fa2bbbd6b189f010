"""Sources whose batches are made side by side: order, bounds, and errors in their turn."""

import gc
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from netspec.errors import Place, SourceError
from netspec.proto.layers_pb2 import TEST, LayerParameter
from netspec.sources import Source
from netspec.sources.base import Batch, Job, ParallelSource
from netspec.sources.prefetch import Prefetch


class Numbers(ParallelSource):
    """Batches 0, 1, 2, ..., each held back until `release` names it; some cannot be made.

    begun, refused: how many jobs were handed out, and were not. running: how many batches are
    being made. most: how many were at once.
    """

    def __init__(self, damaged: tuple[int, ...] = (), missing: int = -1) -> None:
        super().__init__(LayerParameter(), TEST, None, Place("net"))
        self.damaged = damaged
        self.missing = missing
        self.begun = self.running = self.most = self.refused = 0
        self.free: set[int] | None = None
        self.changed = threading.Condition()

    def job(self) -> Job:
        with self.changed:
            number = self.begun
            if number == self.missing:
                self.refused += 1
                raise SourceError(f"{number}: missing")
            self.begun += 1
            self.current = f"{number}.png"
            self.changed.notify_all()
        return lambda: self._make(number)

    def _make(self, number: int) -> Batch:
        with self.changed:
            self.running += 1
            self.most = max(self.most, self.running)
            self.changed.notify_all()
            free = self.changed.wait_for(lambda: self.free is None or number in self.free, 10)
            self.running -= 1
        assert free, f"{number} was never let go"
        if number in self.damaged:
            raise SourceError(f"{number}.png: damaged")
        return {"n": np.full(1, number, np.float32)}

    def release(self, *numbers: int) -> None:
        with self.changed:
            self.free = {*(self.free or ()), *numbers}
            self.changed.notify_all()

    def wait_for(self, what: str, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: getattr(self, what) >= count, 10), what

    @property
    def tops(self) -> dict[str, tuple[int, ...]]:
        return {"n": (1,)}

    def state(self) -> dict[str, Any]:
        return {"begun": self.begun}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.begun = state["begun"]

    @property
    def batches(self) -> int:
        return 9

    def describe(self) -> str:
        return "numbers"


def number(source: Source) -> int:
    return int(source.next()["n"][0])


@pytest.mark.parametrize(
    ("depth", "workers", "expected"), [(3, 1, 1), (3, 2, 2), (3, 9, 3), (1, 4, 1)]
)
def test_batches_are_made_side_by_side(depth: int, workers: int, expected: int) -> None:
    """By as many threads as asked for, never more than there are places."""
    numbers = Numbers()
    numbers.free = set()
    before = threading.active_count()
    with Prefetch(numbers, depth, workers) as source:
        assert threading.active_count() == before + expected
        numbers.wait_for("running", expected)
        assert numbers.begun == expected
        numbers.release(*range(100))
        assert [number(source) for _ in range(9)] == [*range(9)]
    assert numbers.most <= expected
    assert threading.active_count() == before


def test_what_is_made_last_first_comes_in_turn() -> None:
    numbers = Numbers()
    numbers.free = set()
    with Prefetch(numbers, 3, 3) as source:
        numbers.wait_for("running", 3)
        numbers.release(2)
        numbers.release(1)
        numbers.release(*range(100))
        for i in range(6):
            assert source.state() == {"begun": i}
            assert number(source) == i
            assert source.current == f"{i}.png"
        assert source.state() == {"begun": 6}
        state = source.state()
        assert number(source) == 6
        source.restore(state)
        assert number(source) == 6


def test_memory_is_bounded() -> None:
    """While the first batch is in the making no more than the depth are begun behind it."""
    numbers = Numbers()
    numbers.free = set(range(1, 100))
    with Prefetch(numbers, 4, 2) as source:
        numbers.wait_for("begun", 4)
        assert numbers.begun == 4
        numbers.release(0)
        assert number(source) == 0
        numbers.wait_for("begun", 5)
        assert numbers.begun == 5


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(
    ("damaged", "missing", "good", "message"),
    [
        ((3,), -1, 3, "^3.png: damaged$"),
        ((5, 3, 4), -1, 3, "^3.png: damaged$"),
        ((3,), 2, 2, "^2: missing$"),
        ((0,), -1, 0, "^0.png: damaged$"),
    ],
)
def test_an_error_comes_in_its_turn(
    workers: int, damaged: tuple[int, ...], missing: int, good: int, message: str
) -> None:
    numbers = Numbers(damaged, missing)
    with Prefetch(numbers, 4, workers) as source:
        assert [number(source) for _ in range(good)] == [*range(good)]
        for _ in range(2):
            with pytest.raises(SourceError, match=message):
                source.next()
        assert source.state() == {"begun": good}
        # Nobody asks again, but who asked at the same time.
        assert numbers.refused <= workers
        # Where the state was taken it goes on, once the file is there.
        numbers.damaged, numbers.missing = (), -1
        source.restore(source.state())
        assert number(source) == good


def test_a_damaged_batch_is_stepped_over() -> None:
    """Without threads too; nobody then asks for more."""
    source = Numbers((1,))
    source.next()
    with pytest.raises(SourceError, match=r"^1.png: damaged$"):
        source.next()
    assert source.next()["n"] == [2]


def test_threads_end_with_a_source_that_was_dropped() -> None:
    before = threading.active_count()
    prefetch = Prefetch(Numbers(), workers=2)
    assert number(prefetch) == 0
    assert threading.active_count() > before
    del prefetch
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


# One batch after another, ahead of its reader


class Counter(Source):
    """Batches 0, 1, 2, ...; batch ``bad`` cannot be read."""

    def __init__(self, bad: int = -1) -> None:
        self.count = 0
        self.bad = bad
        self.closed = False
        self.read = threading.Condition()

    @property
    def tops(self) -> dict[str, tuple[int, ...]]:
        return {"n": (self.count + 1,)}

    def next(self) -> Batch:
        if self.count == self.bad:
            raise SourceError(f"{self.count}.png: damaged")
        with self.read:
            batch = {"n": np.full(self.count + 1, self.count, np.float32)}
            self.current = f"{self.count}.png"
            self.count += 1
            self.read.notify_all()
        return batch

    def wait_for(self, count: int) -> None:
        with self.read:
            assert self.read.wait_for(lambda: self.count >= count, timeout=10)

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    @property
    def batches(self) -> int:
        return 9

    def describe(self) -> str:
        return "numbers"

    def close(self) -> None:
        self.closed = True


def test_prefetch_hands_out_what_the_source_would() -> None:
    with Prefetch(Counter(), depth=3) as source:
        assert source.describe() == "numbers"
        assert source.batches == 9
        assert source.current == ""
        assert source.state() == {"count": 0}
        for i in range(20):
            assert source.tops == {"n": (i + 1,)}
            assert source.state() == {"count": i}
            assert number(source) == i
            assert source.current == f"{i}.png"
            assert source.state() == {"count": i + 1}


def test_prefetch_reads_ahead_but_not_more_than_asked() -> None:
    counter = Counter()
    with Prefetch(counter, depth=3) as source:
        counter.wait_for(3)
        assert number(source) == 0
        counter.wait_for(4)
        assert counter.count == 4
        assert source.state() == {"count": 1}


def test_prefetch_goes_on_where_its_state_was_taken() -> None:
    with Prefetch(Counter()) as source:
        for _ in range(5):
            source.next()
        state = source.state()
        assert [number(source) for _ in range(4)] == [5, 6, 7, 8]
        source.restore(state)
        assert source.state() == state
        assert [number(source) for _ in range(4)] == [5, 6, 7, 8]


def test_prefetch_raises_where_the_batch_would_be() -> None:
    counter = Counter(bad=2)
    with Prefetch(counter, depth=3) as source:
        assert [number(source), number(source)] == [0, 1]
        for _ in range(2):
            with pytest.raises(SourceError, match=r"^2.png: damaged$"):
                source.next()
        counter.bad = -1
        source.restore({"count": 7})
        assert number(source) == 7


def test_prefetch_ends_its_thread() -> None:
    counter = Counter()
    before = threading.active_count()
    source = Prefetch(counter)
    assert threading.active_count() == before + 1
    source.close()
    source.close()
    assert threading.active_count() == before
    assert counter.closed
    with pytest.raises(SourceError, match=r"reading 0 batches ahead; needs at least 1"):
        Prefetch(counter, 0)
