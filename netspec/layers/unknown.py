"""Stand-ins for layers of a type that netspec does not know, in nets that are only looked at."""

from __future__ import annotations

from netspec.errors import fail
from netspec.layers.base import REGISTRY, Layer, Shape, create, unknown_type
from netspec.proto.layers_pb2 import LayerParameter


class Unknown(Layer):
    """A layer of any type: it has the bottoms and tops that its prototxt names.

    What it makes of them nobody knows.
    """

    known = False

    @property
    def learns(self) -> bool:
        """It may, unless nothing goes into it."""
        return not self.is_source

    def shape(self, *bottoms: Shape) -> Shape:
        """Never known."""
        return fail(unknown_type(self.spec.type))


class UnknownSource(Unknown):
    """A layer of any type without bottoms: the host feeds it."""

    is_source = True


def create_or_stand_in(spec: LayerParameter, phase: int) -> Layer:
    """The layer that a LayerParameter asks for, or a stand-in if its type is not known."""
    if not spec.type or spec.type in REGISTRY:
        return create(spec, phase)
    return (Unknown if spec.bottom else UnknownSource)(spec, phase)
