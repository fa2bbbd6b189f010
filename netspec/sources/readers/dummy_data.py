"""DummyData: blobs filled by fillers.

Caffe: ``dummy_data_layer.cpp``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, counted
from netspec.layers.base import Shape
from netspec.layers.data import DummyData
from netspec.layers.fillers import fill
from netspec.proto.layers_pb2 import FillerParameter, LayerParameter
from netspec.sources.base import Batch, LayerSource, register, require_keys
from netspec.sources.sampling import settle_seed


@register("DummyData")
class DummyReader(LayerSource):
    """Feeds each top from its filler, or zeros if there is none; random ones differ each batch.

    The seed, the name of the top and the number of the batch determine its values.

    Caffe: ``dummy_data_layer.cpp``.
    """

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        layer = DummyData(spec, phase)
        self._shapes = dict(zip(spec.top, layer.shape(), strict=True))
        fillers = layer.each("data_filler", optional=True) or [FillerParameter()] * layer.num_tops
        self._fillers: list[FillerParameter] = fillers
        self._seed, self._position = settle_seed(seed), 0
        self._constants = {
            i: self._fill(i) for i, filler in enumerate(fillers) if filler.type == "constant"
        }
        # A filler that cannot work is reported now, not at the first batch.
        self._read()

    @property
    def tops(self) -> dict[str, Shape]:
        return dict(self._shapes)

    def next(self) -> Batch:
        batch = self._read()
        self._position += 1
        return batch

    def state(self) -> dict[str, Any]:
        return {"seed": self._seed, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
            self._seed, self._position = state["seed"], state["position"]

    @property
    def batches(self) -> int:
        return 1

    def describe(self) -> str:
        kinds = ", ".join(dict.fromkeys(filler.type for filler in self._fillers))
        return f"DummyData: {counted(len(self._fillers), 'top')} filled with {kinds}"

    def _read(self) -> Batch:
        filled = [
            self._constants[i].copy() if i in self._constants else self._fill(i)
            for i in range(len(self._fillers))
        ]
        return dict(zip(self._shapes, filled, strict=True))

    def _fill(self, i: int) -> NDArray[np.float32]:
        """Top ``i`` of the present batch."""
        top = self.spec.top[i]
        # By its name, so that two layers do not make the same numbers.
        key = jax.random.fold_in(jax.random.key(self._seed), zlib.crc32(top.encode()))
        drawn = fill(self._fillers[i], self._shapes[top], jax.random.fold_in(key, self._position))
        return np.array(drawn)
