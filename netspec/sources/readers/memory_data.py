"""MemoryData: arrays that the caller hands in, a batch after the other.

Caffe: ``memory_data_layer.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netspec.errors import Place, SourceError, fail, require
from netspec.layers.base import Shape, text
from netspec.layers.data import MemoryData
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Batch, LayerSource, register, require_keys


@register("MemoryData")
class MemoryReader(LayerSource):
    """Feeds images (N, C, H, W) and labels (N) from arrays, ``batch_size`` rows at a time.

    After the last rows come the first. `set_arrays` may be called again at any time.
    Caffe: ``memory_data_layer.cpp``.
    """

    # The caller may hand in arrays, or write into them, between two batches.
    read_ahead = 0
    takes_arrays = True

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        require(
            not spec.HasField("transform_param"),
            "does not transform arrays: transform_param has no meaning here",
            SourceError,
        )
        self._shapes = dict(zip(spec.top, MemoryData(spec, phase).shape(), strict=True))
        self._arrays: list[NDArray[np.float32]] = []
        self._position = 0

    def set_arrays(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Feed these from now on, beginning with the first rows.

        data: (n, C, H, W), n a multiple of ``batch_size``; labels: (n) or (n, 1, 1, 1). Arrays of
        float32 are not copied: what is written into them later is fed. Raises SourceError.
        """
        with self.blamed():
            images, classes = _floats("data", data), _floats("labels", labels)
            image, _ = self._shapes.values()
            require(
                images.ndim == 4 and images.shape[1:] == image[1:],
                f"data is {text(images.shape)}; needs n x {text(image[1:])}",
                SourceError,
            )
            require(
                classes.shape in (images.shape[:1], (len(images), 1, 1, 1)),
                f"labels are {text(classes.shape)}; data has {len(images)} rows, "
                f"so they must be {len(images)}",
                SourceError,
            )
            require(
                len(images) and len(images) % image[0] == 0,
                f"data has {len(images)} rows; needs a multiple of batch_size, {image[0]}",
                SourceError,
            )
        self._arrays, self._position = [images, classes.reshape(-1)], 0

    @property
    def tops(self) -> dict[str, Shape]:
        return dict(self._shapes)

    def next(self) -> Batch:
        rows, size = self._rows(), self._batch_size
        taken = slice(self._position, self._position + size)
        self._position = (self._position + size) % rows
        return {
            name: array[taken].copy()
            for name, array in zip(self._shapes, self._arrays, strict=True)
        }

    def state(self) -> dict[str, Any]:
        return {"rows": len(self._arrays[0]) if self._arrays else 0, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
            rows = self.state()["rows"]
            require(
                state["rows"] == rows,
                f"the state is of arrays with {state['rows']} rows, but there are {rows}",
                SourceError,
            )
        self._position = state["position"]

    @property
    def batches(self) -> int:
        return self._rows() // self._batch_size

    def describe(self) -> str:
        rows = self.state()["rows"]
        return f"MemoryData: {rows} rows in memory" if rows else "MemoryData: no arrays yet"

    @property
    def _batch_size(self) -> int:
        return int(self.spec.memory_data_param.batch_size)

    def _rows(self) -> int:
        """How many rows the arrays have; raises SourceError before there are any."""
        with self.blamed():
            require(
                self._arrays,
                "has no arrays yet; hand them in first: net.set_input_arrays(data, labels)",
                SourceError,
            )
        return len(self._arrays[0])


def _floats(name: str, values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        fail(f"{name} holds {array.dtype} values; numbers expected", SourceError)
    return np.asarray(array, np.float32)
