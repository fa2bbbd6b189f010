"""Every layer type that netspec knows; importing this module fills the registry."""

from netspec.layers import (
    activation,
    common,
    data,
    loss,
    normalization,
    pooling,
    utility,
    vision,
)
from netspec.layers.base import REGISTRY, Layer, create

FAMILIES = (vision, pooling, activation, normalization, common, utility, loss, data)

__all__ = ["FAMILIES", "REGISTRY", "Layer", "create"]
