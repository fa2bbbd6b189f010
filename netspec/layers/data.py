"""Inputs and data layers, which the host feeds: their arities and stated shapes.

What reads their files is in ``netspec.sources``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from netspec.errors import LayerError, counted, fail, require
from netspec.formats.hdf5 import add_rows
from netspec.layers.base import Layer
from netspec.layers.context import Context
from netspec.layers.host_errors import report
from netspec.layers.numerics import MemoryLayout, Numerics
from netspec.layers.records import Traits
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, text


class Fed(Layer):
    """A layer without arithmetic: its tops are fed from outside."""

    traits = Traits(is_source=True)
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """Raise LayerError, for types that know shapes only once the data is open."""
        return fail("the shapes of its tops are known only once its data is open")

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        """Raise LayerError: a run starts from the tops."""
        return fail("is fed from outside")


@register(param="input_param", bottoms=0, tops=(1, None))
class Input(Fed):
    """Blobs that the caller hands in, of the stated shapes. Caffe: ``input_layer.cpp``."""

    formula = "what the caller hands in"
    traits = Traits(is_source=True, is_input=True, states_shapes=True)

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """One stated shape for all tops, or one for each."""
        shapes = [tuple(shape.dim) for shape in self.param.shape]
        require(shapes, "states no shape; give input_param { shape { dim: ... } }, or shapes=")
        require(
            len(shapes) in (1, self.num_tops),
            f"{len(shapes)} shapes for {self.num_tops} tops; give one for all, or one for each",
        )
        return tuple(shapes if len(shapes) == self.num_tops else shapes * self.num_tops)


@register(param="hdf5_data_param", bottoms=0, tops=(1, None))
class HDF5Data(Fed):
    """Rows of the datasets that the tops are named after. Caffe: ``hdf5_data_layer.cpp``."""

    formula = "rows of HDF5 files"

    def describe(self) -> str:
        return self.param.source


@register(param="data_param", bottoms=0, tops=(1, 2))
class Data(Fed):
    """Images, and labels (N), of a database: LevelDB or LMDB. Caffe: ``data_layer.cpp``."""

    formula = "images and labels of a database"

    def describe(self) -> str:
        return self.param.source


@register(param="image_data_param", bottoms=0, tops=2)
class ImageData(Fed):
    """Images, and labels (N), of the files that a list names. Caffe: ``image_data_layer.cpp``."""

    formula = "images and labels that a list names"

    def describe(self) -> str:
        return self.param.source


@register(param="segmentation_data_param", bottoms=0, tops=2)
class SegmentationData(Fed):
    """Images (N, 3, H, W), and their pixels' classes (N, 1, H, W), of a list or of two folders.

    Not in Caffe.
    """

    formula = "images and label images, cut, scaled and mirrored alike"

    def describe(self) -> str:
        return self.param.source or self.param.image_folder


@register(param="window_data_param", bottoms=0, tops=2)
class WindowData(Fed):
    """Windows of images, and labels (N): objects and background, as R-CNN trains on them.

    Caffe: ``window_data_layer.cpp``.
    """

    formula = "windows of images, and labels"

    def describe(self) -> str:
        return self.param.source


@register(param="memory_data_param", bottoms=0, tops=2)
class MemoryData(Fed):
    """Images (N, C, H, W) and labels (N) that the caller hands in.

    Caffe: ``memory_data_layer.cpp``.
    """

    formula = "images and labels that the caller hands in"
    traits = Traits(is_source=True, states_shapes=True)

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """(N, C, H, W) and (N)."""
        p = self.param
        image = (p.batch_size, p.channels, p.height, p.width)
        require(
            min(image) > 0,
            f"batch_size, channels, height and width are {text(image)}; all must be positive",
        )
        return image, image[:1]


@register(param="dummy_data_param", bottoms=0, tops=(1, None))
class DummyData(Fed):
    """Blobs of the stated shapes from a ``data_filler``, or zeros without one.

    Shapes: ``shape``, or the older ``num``, ``channels``, ``height`` and ``width``; one for all
    tops or one for each, as with ``data_filler``. Caffe: ``dummy_data_layer.cpp``.
    """

    formula = "what a filler makes"
    traits = Traits(is_source=True, states_shapes=True)

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """One stated shape for all tops, or one for each."""
        self.each("data_filler", optional=True)
        names = ("num", "channels", "height", "width")
        older = [name for name in names if getattr(self.param, name)]
        if not older:
            return tuple(tuple(shape.dim) for shape in self.each("shape"))
        require(not self.param.shape, f"give shape or {' '.join(older)}, not both")
        return tuple(zip(*(self.each(name) for name in names), strict=True))

    def each(self, name: str, optional: bool = False) -> list[Any]:
        """A repeated setting, once for each top; raises LayerError."""
        given = list(getattr(self.param, name))
        require(
            len(given) in (1, self.num_tops) or (optional and not given),
            f"{len(given)} {name} for {counted(self.num_tops, 'top')}; "
            "give one for all, or one for each",
        )
        return given if len(given) == self.num_tops else given * self.num_tops

    def describe(self) -> str:
        return ", ".join(filler.type for filler in self.param.data_filler)


@register(param="hdf5_output_param", bottoms=2, tops=0)
class HDF5Output(Layer):
    """Add the rows of ``data`` and ``label`` to an HDF5 file at each forward.

    (N, ...), (N, ...) -> its data sets ``data`` and ``label``, of 4 axes at least: (N) is stored
    as (N, 1, 1, 1). The first forward begins the file anew; after each the file is closed.
    Nothing flows back.

    Caffe: ``hdf5_output_layer.cpp``. Differs: Caffe begins the file when the net is built, and
    stops at a second forward.
    """

    formula = "nothing; writes an HDF5 file"
    traits = Traits(on_host=True)
    _begun = False

    def shape(self, data: Shape, labels: Shape) -> tuple[Shape, ...]:
        require(self.param.file_name, "file_name must be given")
        require(data and labels, "a bottom is one number; rows expected")
        require(data[0] == labels[0], f"data has {data[0]} rows, but label has {labels[0]}")
        return ()

    def apply(self, ctx: Context, data: Array, labels: Array) -> tuple[Array, ...]:
        """Call the host once a run, in the order of runs."""
        # A callback with an effect has no derivative.
        rows = jax.lax.stop_gradient((data, labels))
        io_callback(self._write, None, *rows, ordered=True)
        return ()

    def describe(self) -> str:
        return self.param.file_name

    def _write(self, *arrays: Any) -> None:
        rows = [np.asarray(a, np.float32).reshape(a.shape + (1,) * (4 - a.ndim)) for a in arrays]
        try:
            add_rows(
                Path(self.param.file_name),
                dict(zip(("data", "label"), rows, strict=True)),
                afresh=not self._begun,
            )
        except LayerError as error:
            report(self, error)
            raise
        self._begun = True
