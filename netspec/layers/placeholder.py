"""Stand-ins for layers that cannot be run here, in nets that are only looked at."""

from __future__ import annotations

from netspec.errors import fail
from netspec.layers.base import REGISTRY, Layer, Shape, create, unknown_type
from netspec.proto.layers_pb2 import LayerParameter


class Unknown(Layer):
    """A layer of any type: it has the bottoms and tops that its prototxt names.

    What it makes of them nobody knows; ``why`` says why.
    """

    known = False

    def __init__(self, spec: LayerParameter, phase: int, why: str) -> None:
        super().__init__(spec, phase)
        self.why = why

    def missing(self) -> str:
        """Why nothing is known of it."""
        return self.why

    @property
    def learns(self) -> bool:
        """It may, unless nothing goes into it."""
        return not self.is_source

    def shape(self, *bottoms: Shape) -> Shape:
        """Never known."""
        return fail(self.why)


class UnknownSource(Unknown):
    """A layer of any type without bottoms: the host feeds it."""

    is_source = True


def create_or_stand_in(spec: LayerParameter, phase: int) -> Layer:
    """The layer that a LayerParameter asks for, or a stand-in if it cannot be run here."""
    if not spec.type or spec.type in REGISTRY:
        layer = create(spec, phase)
        why = layer.missing()
        if not why:
            return layer
    else:
        why = unknown_type(spec.type)
    return (Unknown if spec.bottom else UnknownSource)(spec, phase, why)
