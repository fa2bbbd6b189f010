"""Placeholders for layers that cannot run here, or must not, in nets that are only looked at."""

from __future__ import annotations

from netspec.errors import fail
from netspec.layers.base import Layer
from netspec.layers.python_class import class_name, not_imported
from netspec.layers.records import Traits
from netspec.layers.registry import REGISTRY, create, unknown_type
from netspec.layers.shape import Shape
from netspec.proto.layers_pb2 import LayerParameter


class Unknown(Layer):
    """A placeholder for a layer of any type, with the bottoms and tops that its prototxt names.

    why: the reason why its shapes and arithmetic are not known.
    """

    traits = Traits(known=False)

    def __init__(self, spec: LayerParameter, phase: int, why: str) -> None:
        super().__init__(spec, phase)
        self.why = why

    def missing(self) -> str:
        return self.why

    def describe(self) -> str:
        """The class that a Python layer would run, as its name is what people judge."""
        return self.runs_class()

    def runs_class(self) -> str:
        return class_name(self.spec.python_param) if self.spec.HasField("python_param") else ""

    @property
    def learns(self) -> bool:
        """It may, unless it is a source."""
        return not self.traits.is_source

    def shape(self, *bottoms: Shape) -> Shape:
        """Raise LayerError: it is not known."""
        return fail(self.why)


class UnknownSource(Unknown):
    """A placeholder for a layer without bottoms, which the host feeds."""

    traits = Traits(known=False, is_source=True)


def create_unimported(spec: LayerParameter, phase: int) -> Layer:
    """The layer that a LayerParameter asks for, or a placeholder if it would run users' code.

    That is a Python layer with bottoms; one without is read by a source, see `open_source`. Raises
    LayerError.
    """
    layer = create(spec, phase)
    return Unknown(spec, phase, not_imported(layer.param)) if layer.traits.runs_module else layer


def create_or_stand_in(spec: LayerParameter, phase: int, run_python: bool = False) -> Layer:
    """The layer that a LayerParameter asks for, or a placeholder if it cannot run here.

    run_python: whether modules that the prototxt names are imported. Raises LayerError.
    """
    if not spec.type or spec.type in REGISTRY:
        layer = (create if run_python else create_unimported)(spec, phase)
        why = layer.missing()
        if not why:
            return layer
    else:
        why = unknown_type(spec.type)
    return (Unknown if spec.bottom else UnknownSource)(spec, phase, why)
