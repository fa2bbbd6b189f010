"""Data: images, and their labels, of an LMDB or a LevelDB.

Caffe: ``data_layer.cpp``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from netspec.errors import Place, SourceError, fail, require
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Job, register
from netspec.sources.images.batches import MOVED, ImageSource, LazyImage, warn_of_moved
from netspec.sources.images.databases import UnreadValue, open_database
from netspec.sources.images.datum import read_datum


@register("Data")
class DatabaseReader(ImageSource):
    """Feeds ``batch_size`` records a batch in the order of their keys, repeating the database.

    Records hold bytes, floats or image files; ``force_color`` and ``force_gray`` concern the last
    alone. ``rand_skip`` does nothing.

    read_ahead: how many batches are to be read ahead.

    Caffe: ``data_layer.cpp``. Differs: records without the label that a second top asks for are
    refused.
    """

    remedy = "crop_size or batch_size: 1"

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        self._param = spec.data_param
        super().__init__(spec, phase, seed, place, self._param.batch_size)
        moved = {**MOVED, "force_encoded_color": "force_color"}
        warn_of_moved(spec, place, self._param, moved)
        require(self._param.prefetch > 0, "prefetch is 0; must be positive", SourceError)
        self.read_ahead = self._param.prefetch
        require(self._param.source, "source must be given: the database", SourceError)
        path = self.locate(self._param.source)
        self._database = open_database(path, self._param.backend)
        self._records = self._database.unread()
        # The keys of the records read last and handed out last.
        self._read = self._given = b""

    def job(self) -> Job:
        job = super().job()
        self._given = self._read
        return job

    def state(self) -> dict[str, Any]:
        return {**super().state(), "key": self._given.hex()}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        with self.blamed():
            self._seek(bytes.fromhex(state["key"]))

    @property
    def batches(self) -> int:
        return math.ceil(self._database.count / self._size)

    def describe(self) -> str:
        database = self._database
        return f"Data: {database.count} records of {database.path} ({database.kind})"

    def close(self) -> None:
        self._records.close()
        self._database.close()

    def _take(self, position: int) -> LazyImage:
        key, value = next(self._records, None) or self._rewind()
        self._read, name = key, self._name(key)
        return LazyImage(name, lambda: read_datum(value(), self._transform.color, name))

    def _rewind(self) -> UnreadValue:
        """The first record."""
        self._records = self._database.unread()
        first = next(self._records, None)
        return first or fail(
            f"{self._database.path}: has no records; was it copied whole?", SourceError
        )

    def _seek(self, key: bytes) -> None:
        """Continue after the record of a key; from the first record if the key is empty."""
        self._records = self._database.unread(key)
        if key:
            found, _ = next(self._records, (b"", bytes))
            require(
                found == key,
                f"{self._name(key)}: the state goes on behind it, but there is no such record",
                SourceError,
            )
        self._read = self._given = key

    def _name(self, key: bytes) -> str:
        return f'{self._database.path}: record "{key.decode("utf-8", "backslashreplace")}"'
