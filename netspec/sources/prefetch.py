"""Prefetching: threads read batches ahead into a short queue while the net computes."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, NamedTuple

from netspec.errors import SourceError, require
from netspec.layers.base import Shape
from netspec.sources.base import Batch, Job, Source


class _BegunBatch(NamedTuple):
    """A batch, made or being made, with the state of its source when it was begun."""

    batch: Future[Batch]
    state: dict[str, Any]
    current: str
    sample: str
    files: tuple[str, ...]


class _ReadAhead:
    """Threads that read a source at most ``depth`` batches ahead of the consumer.

    They begin the batches in turn and make them in parallel. An error takes the place of its batch,
    and no batch is begun after it.
    """

    def __init__(self, source: Source, depth: int, workers: int) -> None:
        self._source = source
        self._slots = threading.Semaphore(depth)
        self._turn = threading.Lock()
        self._queue: SimpleQueue[_BegunBatch] = SimpleQueue()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._run, name="prefetch", daemon=True) for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def take(self) -> _BegunBatch:
        """Wait for the oldest batch begun, and free its slot."""
        read = self._queue.get()
        self._slots.release()
        return read

    def leave(self) -> None:
        """Tell the threads to end after the batches that they are making."""
        self._stopped = True
        self._slots.release(len(self._threads))

    def stop(self) -> None:
        """Tell the threads to end, and wait for them."""
        self.leave()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            batch: Future[Batch] = Future()
            # An error is raised in the thread that takes the batch.
            try:
                job = self._begin(batch)
                if job is None:
                    return
                batch.set_result(job())
            except Exception as error:
                self._stopped = True
                batch.set_exception(error)

    def _begin(self, batch: Future[Batch]) -> Job | None:
        """Step the source when a slot is free; returns its job, or None if threads are to end."""
        self._slots.acquire()
        with self._turn:
            if self._stopped:
                return None
            try:
                return self._source.job()
            finally:
                source = self._source
                self._queue.put(
                    _BegunBatch(batch, source.state(), source.current, source.sample, source.files)
                )


class Prefetch(Source):
    """A source that is read ahead, up to ``depth`` batches, in threads of its own.

    The batches, their order and the states are the source's own, however many threads there are:
    one, or for a `ParallelSource` ``workers``, by default one a core. An error is raised by the
    `next` whose batch it concerns, and by all after it. Until `close`, only the threads may use the
    source.

    Nothing is read from a source of a user's own class before the first `next`: a script may
    configure the object until then.
    """

    def __init__(self, source: Source, depth: int = 2, workers: int | None = None) -> None:
        require(depth > 0, f"reading {depth} batches ahead; needs at least 1", SourceError)
        self._source = source
        self.about = source.about
        self._depth = depth
        # More threads than slots would only wait.
        most = min(depth, workers or cores())
        self._workers = most if source.parallel else 1
        self._start()

    def _start(self) -> None:
        self.current, self.sample = self._source.current, self._source.sample
        self.files = self._source.files
        self._state = self._source.state()
        self._head: _BegunBatch | None = None
        self._closed = False
        self._reader: _ReadAhead | None = None
        if self.user is None:
            self._read()

    def _read(self) -> _ReadAhead:
        self._reader = _ReadAhead(self._source, self._depth, self._workers)
        # A net that is dropped without being closed leaves no threads behind.
        self._dropped = weakref.finalize(self, self._reader.leave)
        return self._reader

    @property
    def tops(self) -> dict[str, Shape]:
        if self._reader is None and not self._closed:
            return self._source.tops
        return {name: array.shape for name, array in self._peek().batch.result().items()}

    def next(self) -> Batch:
        head = self._peek()
        batch = head.batch.result()
        self._head = None
        self.current, self.sample, self.files = head.current, head.sample, head.files
        self._state = head.state
        return batch

    def state(self) -> dict[str, Any]:
        return self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        self._stop()
        self._source.restore(state)
        self._start()

    @property
    def batches(self) -> int:
        return self._source.batches

    @property
    def user(self) -> Any:
        """The object behind the source, which may be some batches ahead."""
        return self._source.user

    def describe(self) -> str:
        return self._source.describe()

    def close(self) -> None:
        self._stop()
        self._closed = True
        self._source.close()

    def _peek(self) -> _BegunBatch:
        if self._head is None:
            if self._closed:
                raise RuntimeError("the source is closed")
            self._head = (self._reader or self._read()).take()
        return self._head

    def _stop(self) -> None:
        if self._reader:
            self._dropped.detach()
            self._reader.stop()
            self._reader = None


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
