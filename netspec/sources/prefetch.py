"""Reading ahead: a thread fills a short queue while the net computes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple

from netspec.errors import SourceError, require
from netspec.layers.base import Shape
from netspec.sources.base import Batch, Source


class _Read(NamedTuple):
    """A batch with what its source said right after reading it, or the error in its place."""

    batch: Batch
    state: dict[str, Any]
    current: str
    error: Exception | None = None


class _Reader:
    """A thread that reads a source, at most ``depth`` batches ahead of who takes them."""

    def __init__(self, source: Source, depth: int) -> None:
        self._source = source
        self._slots = threading.Semaphore(depth)
        self._queue: SimpleQueue[_Read] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def take(self) -> _Read:
        """The oldest batch read, waited for; its place is free again."""
        read = self._queue.get()
        self._slots.release()
        return read

    def stop(self) -> None:
        """End the thread, once the batch that it is reading is read."""
        self._stopped = True
        self._slots.release()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._slots.acquire()
            if self._stopped:
                return
            try:
                batch = self._source.next()
            # Whatever it is, it belongs to the thread that takes the batch.
            except Exception as error:
                self._queue.put(_Read({}, {}, self._source.current, error))
                return
            self._queue.put(_Read(batch, self._source.state(), self._source.current))


class Prefetch(Source):
    """A source that is read ahead, up to ``depth`` batches, in a thread of its own.

    The batches, their order and the states are the source's own; an error is raised by the `next`
    whose batch it spoils, and by all after it. Until `close`, the source belongs to the thread.
    """

    def __init__(self, source: Source, depth: int = 2) -> None:
        require(depth > 0, f"reading {depth} batches ahead; needs at least 1", SourceError)
        self._source = source
        self._depth = depth
        self._start()

    def _start(self) -> None:
        self.current = self._source.current
        self._state = self._source.state()
        self._head: _Read | None = None
        self._reader: _Reader | None = _Reader(self._source, self._depth)

    @property
    def tops(self) -> dict[str, Shape]:
        return {name: array.shape for name, array in self._peek().batch.items()}

    def next(self) -> Batch:
        head = self._peek()
        self._head = None
        self.current, self._state = head.current, head.state
        return head.batch

    def state(self) -> dict[str, Any]:
        return self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        self._stop()
        self._source.restore(state)
        self._start()

    @property
    def batches(self) -> int:
        return self._source.batches

    def describe(self) -> str:
        return self._source.describe()

    def close(self) -> None:
        self._stop()
        self._source.close()

    def _peek(self) -> _Read:
        if self._head is None:
            if self._reader is None:
                raise RuntimeError("the source is closed")
            self._head = self._reader.take()
        if self._head.error:
            raise self._head.error
        return self._head

    def _stop(self) -> None:
        if self._reader:
            self._reader.stop()
            self._reader = None
