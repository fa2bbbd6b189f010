"""Skip corrupt data: go on with the next batch where a file cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from netspec.errors import SourceError, require
from netspec.layers.base import Shape
from netspec.sources.base import Batch, Job, LayerSource, ParallelSource, Source

_LOG = logging.getLogger(__name__)


class Skipping(ParallelSource):
    """A source that makes an empty batch of one that cannot be read; `step_over` skips those.

    The content and the order of other batches stay the same. A batch with one bad sample is skipped
    whole. skipped: error message -> how many batches it concerned.
    """

    def __init__(self, source: LayerSource) -> None:
        super().__init__(source.spec, source.phase, source.seed, source.place)
        self._source = source
        self.current, self.sample, self.about = source.current, source.sample, source.about
        self.read_ahead = source.read_ahead
        self.skipped: dict[str, int] = {}

    @property
    def tops(self) -> dict[str, Shape]:
        return self._source.tops

    def job(self) -> Job:
        try:
            job = self._source.job()
        except SourceError as error:
            return self._skip(error)
        finally:
            self.current, self.sample = self._source.current, self._source.sample
            self.files = self._source.files

        def attempt() -> Batch:
            try:
                return job()
            except SourceError as error:
                return self._skip(error)()

        return attempt

    def state(self) -> dict[str, Any]:
        return self._source.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._source.restore(state)

    @property
    def batches(self) -> int:
        return self._source.batches

    def describe(self) -> str:
        return f"{self._source.describe()}, without what cannot be read"

    def close(self) -> None:
        self._source.close()

    def _skip(self, error: SourceError) -> Job:
        """Count a batch that cannot be made; returns a function that makes an empty one."""
        said = str(error)
        if said not in self.skipped:
            _LOG.warning("%s; skipped", said)
        self.skipped[said] = self.skipped.get(said, 0) + 1
        return dict


def step_over(source: Source) -> None:
    """Bring a source to its next batch that is not empty; raises SourceError if none comes."""
    left = source.batches
    while not source.tops:
        require(
            left > 0,
            f"no batch can be read: each of {source.batches} in a row holds something that cannot; "
            f"the last was {source.current}",
            SourceError,
        )
        source.next()
        left -= 1
