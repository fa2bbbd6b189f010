"""Carried state to and from a manifest: what recurrent layers hand from one batch to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from netspec.errors import WeightsError, require
from netspec.frontend.shapes import ParamKey
from netspec.runtime.module import Net


def carried_lists(net: Net) -> dict[str, dict[str, Any]]:
    """The carried state of a net, for a manifest: layer -> name -> nested lists."""
    return {
        layer: {name: np.asarray(held[...]).tolist() for name, held in arrays.items()}
        for layer, arrays in net.carried.items()
    }


def set_carried(net: Net, lists: Mapping[str, Mapping[str, Any]]) -> None:
    """Set what `carried_lists` gave; raises WeightsError where the net carries no such state."""
    for layer, arrays in lists.items():
        for name, values in arrays.items():
            key = ParamKey(layer, name)
            require(
                key in net.shapes.carried,
                f"remembers {key}, which the net does not have",
                WeightsError,
            )
            net.assign({key: jnp.asarray(values, jnp.float32)})
