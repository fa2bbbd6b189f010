"""One class a layer type; importing this package fills the registry.

Imports nothing of netspec but `errors`, `formats` and `proto`: a layer knows shapes and arrays, and
no graph.
"""

from netspec.layers import (
    activation,
    common,
    data,
    distance_loss,
    likelihood_loss,
    normalization,
    pooling,
    python,
    recurrent,
    reshaping,
    softmax_loss,
    utility,
    vision,
)
from netspec.layers.base import Layer
from netspec.layers.registry import REGISTRY, create

FAMILIES = (
    vision,
    pooling,
    activation,
    normalization,
    common,
    utility,
    reshaping,
    recurrent,
    softmax_loss,
    likelihood_loss,
    distance_loss,
    python,
    data,
)

__all__ = ["FAMILIES", "REGISTRY", "Layer", "create"]
