"""HDF5Data: rows of HDF5 files that a text file lists.

Caffe: ``hdf5_data_layer.cpp``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, fail, require, unreadable
from netspec.formats.hdf5_rows import RowFile, RowReader, inspect
from netspec.formats.text import read_text
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Batch, LayerSource, locate, register, require_keys
from netspec.sources.checks import require_blob
from netspec.sources.sampling import require_same_kind, settle_seed

# 8 bytes a row.
_MOST_SHUFFLED = 1 << 28


@register("HDF5Data")
class HDF5ListReader(LayerSource):
    """Feeds each top from the data set of its name: ``batch_size`` rows a batch, files in turn.

    A batch may end one file and begin the next; after the last file comes the first. ``shuffle``
    reorders the files in each pass, and the rows whenever a file is begun. Rows are (n, ...) of
    any numbers; a top is (batch_size, ...).

    Caffe: ``hdf5_data_layer.cpp``. Differs: all files are looked at on opening, so that rows of
    another shape are refused; names that are not found from the current folder are tried beside
    the file that holds them.
    """

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        self._param = spec.hdf5_data_param
        require(
            not spec.HasField("transform_param"),
            "does not transform data: transform_param has no meaning here",
            SourceError,
        )
        require(self._param.batch_size > 0, "batch_size must be given and positive", SourceError)
        self._list = self.locate(self._param.source)
        self._files = [inspect(path, list(spec.top)) for path in _read_list(self._list)]
        for file in self._files[1:]:
            _require_same_rows(file, self._files[0])
        for name, top in self.tops.items():
            require_blob(top, f'blob "{name}"')
        if self._param.shuffle:
            for file in self._files:
                _require_order(file)
        self._seed = settle_seed(seed) if self._param.shuffle else None
        self._reader: RowReader | None = None
        self._start(0, 0, 0)

    @property
    def tops(self) -> dict[str, Shape]:
        shapes = self._files[0].row_shapes
        return {name: (self._param.batch_size, *shape) for name, shape in shapes.items()}

    def next(self) -> Batch:
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.spec.top}
        files: dict[str, None] = {}
        missing = self._param.batch_size
        with self.blamed():
            while missing:
                if self._row >= self._file.rows:
                    self._next_file()
                rows = self._next_rows(missing)
                if self._reader is None:
                    self._reader = RowReader(self._file)
                for name in parts:
                    parts[name].append(self._reader.take(name, rows))
                files[str(self._file.path)] = None
                missing -= len(rows)
                self._row += len(rows)
        self.current = ", ".join(files)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def state(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "pass": self._pass,
            "file": self._turn,
            "row": self._row,
            "rows": [file.rows for file in self._files],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
            rows = [file.rows for file in self._files]
            require(
                state["rows"] == rows,
                f"the state is of files with {_counts(state['rows'])} rows, "
                f"but they have {_counts(rows)}",
                SourceError,
            )
            require_same_kind(state["seed"], self._seed)
            self._seed = state["seed"]
            self._start(state["pass"], state["file"], state["row"])

    @property
    def batches(self) -> int:
        rows = sum(file.rows for file in self._files)
        return math.ceil(rows / self._param.batch_size)

    def describe(self) -> str:
        rows = sum(file.rows for file in self._files)
        order = "shuffled" if self._param.shuffle else "in order"
        files = "1 file" if len(self._files) == 1 else f"{len(self._files)} files"
        return f"HDF5Data: {rows} rows in {files} that {self._list} lists, {order}"

    def _start(self, pass_: int, turn: int, row: int) -> None:
        """Begin the ``turn``-th file of a pass at one of its rows."""
        self.close()
        self._pass, self._turn, self._row = pass_, turn, row
        self._file = self._files[self._permutation(len(self._files), pass_)[turn]]
        self._order = self._order_of_rows()

    def _next_file(self) -> None:
        last = self._turn + 1 == len(self._files)
        pass_, turn = (self._pass + 1, 0) if last else (self._pass, self._turn + 1)
        if len(self._files) == 1:
            # It is open already.
            self._pass, self._row = pass_, 0
            self._order = self._order_of_rows()
        else:
            self._start(pass_, turn, 0)

    def _order_of_rows(self) -> NDArray[np.intp] | None:
        """The order of the file's rows in this pass; None: as they are stored."""
        if self._seed is None:
            return None
        return self._permutation(self._file.rows, self._pass, self._turn)

    def _next_rows(self, most: int) -> NDArray[np.intp]:
        """The numbers of the file's next rows."""
        end = min(self._row + most, self._file.rows)
        if self._order is None:
            return np.arange(self._row, end)
        return self._order[self._row : end]

    def close(self) -> None:
        """Close the file; the next batch opens it again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _permutation(self, count: int, *moment: int) -> NDArray[np.intp]:
        """The order of files or rows at a moment: a function of the seed, hence resumable."""
        if self._seed is None:
            return np.arange(count)
        return np.random.default_rng((abs(self._seed), *moment)).permutation(count)


def _counts(rows: list[int]) -> str:
    return ", ".join(map(str, rows))


def _read_list(path: Path) -> list[Path]:
    """The files that a list names, separated by white space."""
    try:
        names = read_text(path).split()
    except OSError as error:
        fail(f"source: {unreadable(path, error)}", SourceError)
    except UnicodeDecodeError:
        fail(f"{path}: not a text file; source lists HDF5 files, one on a line", SourceError)
    require(names, f"{path}: lists no files", SourceError)
    return [locate(name, str(path)) for name in names]


def _require_same_rows(file: RowFile, first: RowFile) -> None:
    for name, shape in file.row_shapes.items():
        require(
            shape == first.row_shapes[name],
            f'{file.path}: a row of "{name}" is {text(shape)}, '
            f"but in {first.path} it is {text(first.row_shapes[name])}",
            SourceError,
        )


def _require_order(file: RowFile) -> None:
    """Raise SourceError for a file with more rows than can be shuffled in memory."""
    require(
        file.rows <= _MOST_SHUFFLED,
        f"{file.path}: {file.rows:,} rows; shuffle: true takes files of at most "
        f"{_MOST_SHUFFLED:,}: split it into several",
        SourceError,
    )
