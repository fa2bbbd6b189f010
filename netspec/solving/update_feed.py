"""What the updates of a run are fed: batches of its data layers, and arrays from the caller."""

from __future__ import annotations

from collections.abc import Mapping

from netspec.errors import SolverError, fail
from netspec.layers.base import Array
from netspec.solving.distributed.mesh import PassFeed
from netspec.solving.step import Batch
from netspec.solving.trainer import Trainer
from netspec.sources.feed import Feed


class UpdateFeed:
    """Reads the batches of each update, and sends them to the devices."""

    def __init__(self, feed: Feed, trainer: Trainer) -> None:
        """feed: the data layers of the trainer's net."""
        self._feed = feed
        self._trainer = trainer
        self._inputs: Mapping[str, Array] = {}

    def set_inputs(self, arrays: Mapping[str, Array]) -> None:
        """Feed these to the blobs of Input layers from now on, by name."""
        self._inputs = arrays

    def batches(self, iteration: int, wanted: Mapping[str, bool]) -> list[Batch]:
        """The batches of an update that this process takes; raises LayerError and SourceError.

        iteration: the updates made before it. wanted: see `Mesh.feed`.
        """
        trainer = self._trainer
        fed = trainer.mesh.feed(self._read, trainer.param.iter_size, wanted)
        return [self._batch(iteration, each) for each in fed]

    def one(self, iteration: int) -> Batch:
        """One batch, as the first of an update; raises as `batches` does."""
        return self._batch(iteration, self._read(0))

    def _read(self, micro: int) -> PassFeed:
        arrays = self._feed.next(self._trainer.net.shapes)
        return PassFeed(micro, {**arrays, **self._given()}, self._feed.current)

    def _batch(self, iteration: int, fed: PassFeed) -> Batch:
        moment = iteration * self._trainer.param.iter_size + fed.micro
        return self._trainer.batch(fed.feeds, moment, fed.files, fed.beside)

    def _given(self) -> Mapping[str, Array]:
        graph = self._trainer.net.graph
        missing = [name for name in graph.inputs if name not in self._inputs]
        if missing:
            fail(
                f"{graph.file}: nothing feeds the Input blobs {', '.join(missing)}; train on a "
                "data layer (one for TRAIN may stand beside the Input layer for TEST)",
                SolverError,
            )
        return {name: self._inputs[name] for name in graph.inputs}
