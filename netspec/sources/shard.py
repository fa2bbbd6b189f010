"""Shard a source: the batches that one of several processes reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netspec.layers.base import Shape
from netspec.sources.base import Job, LayerSource, ParallelSource


class Share(ParallelSource):
    """One process's share of a source: of every ``of`` batches, ``count`` from ``first`` on.

    It steps over the batches of other processes, which a `ParallelSource` does without reading
    them. `state` is that of the whole source at the last multiple of ``of``, the same in all
    processes, so that a run may continue with another number of them.
    """

    def __init__(self, source: LayerSource, first: int, count: int, of: int) -> None:
        super().__init__(source.spec, source.phase, source.seed, source.place)
        self._source = source
        self._first = first
        self._count = count
        self._of = of
        self.about, self.read_ahead = source.about, source.read_ahead
        self._begin()

    def _begin(self) -> None:
        self._note()
        self._state = self._source.state()
        # How many batches of this group of ``of`` were stepped over or handed out.
        self._position = 0

    @property
    def tops(self) -> dict[str, Shape]:
        self._step_to(self._first)
        return self._source.tops

    def job(self) -> Job:
        self._step_to(self._first)
        job = self._source.job()
        self._note()
        self._position += 1
        if self._position == self._first + self._count:
            self._step_to(self._of)
            self._position = 0
            self._state = self._source.state()
        return job

    def state(self) -> dict[str, Any]:
        return self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        self._source.restore(state)
        self._begin()

    @property
    def user(self) -> Any:
        return self._source.user

    @property
    def batches(self) -> int:
        return self._source.batches

    def describe(self) -> str:
        return self._source.describe()

    def close(self) -> None:
        self._source.close()

    def _note(self) -> None:
        """Copy what the source says of its current batch."""
        self.current, self.sample = self._source.current, self._source.sample
        self.files = self._source.files

    def _step_to(self, position: int) -> None:
        while self._position < position:
            self._source.job()
            self._position += 1
