"""Layers that the host feeds: inputs and data layers.

Here stand their names, arities and stated shapes; what reads files is in ``netspec.sources``.
"""

from __future__ import annotations

from netspec.errors import fail, require
from netspec.layers.base import Array, Context, Layer, Layout, Shape, register


class Fed(Layer):
    """A layer without arithmetic: its tops are handed in from outside."""

    is_source = True
    layout = Layout.EITHER

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """Known once the data is open, unless the layer states it."""
        return fail("the shapes of its tops are known only once its data is open")

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        """Never called: a run starts from the tops."""
        return fail("is fed from outside")


@register(param="input_param", bottoms=0, tops=(1, None))
class Input(Fed):
    """Blobs that the caller hands in, of the stated shapes. Caffe: ``input_layer.cpp``."""

    formula = "what the caller hands in"

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """One stated shape for all tops, or one for each."""
        shapes = [tuple(shape.dim) for shape in self.param.shape]
        require(shapes, "states no shape; give input_param { shape { dim: ... } }, or shapes=")
        require(
            len(shapes) in (1, self.num_tops),
            f"{len(shapes)} shapes for {self.num_tops} tops; give one for all, or one for each",
        )
        return tuple(shapes if len(shapes) == self.num_tops else shapes * self.num_tops)

    def describe(self) -> str:
        """Nothing more than the tops' shapes tell."""
        return ""


@register(param="python_param", bottoms=0, tops=(1, None))
class Python(Fed):
    """A data layer that a Python class feeds: ``module``, ``layer`` and ``param_str``.

    Caffe: ``python_layer.hpp``.
    """

    formula = "what a Python class reads"

    def describe(self) -> str:
        """The class."""
        return f"{self.param.module}.{self.param.layer}"


@register(param="hdf5_data_param", bottoms=0, tops=(1, None))
class HDF5Data(Fed):
    """Rows of the datasets that the tops are named after. Caffe: ``hdf5_data_layer.cpp``."""

    formula = "rows of HDF5 files"

    def describe(self) -> str:
        """The list of files."""
        return self.param.source
