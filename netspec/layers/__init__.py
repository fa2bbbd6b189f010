"""Every layer type that netspec knows; importing this module fills the registry."""

from netspec.layers import (
    activation,
    arrangement,
    common,
    data,
    distance,
    likelihood,
    loss,
    normalization,
    pooling,
    python,
    recurrent,
    utility,
    vision,
)
from netspec.layers.base import REGISTRY, Layer, create

FAMILIES = (
    vision,
    pooling,
    activation,
    normalization,
    common,
    utility,
    arrangement,
    recurrent,
    loss,
    likelihood,
    distance,
    python,
    data,
)

__all__ = ["FAMILIES", "REGISTRY", "Layer", "create"]
