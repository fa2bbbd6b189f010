"""Arrays before training: Caffe's fillers, drawn from JAX's random numbers.

Caffe: ``filler.hpp``. Differs: one filler more, ``bilinear_diagonal``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from netspec.errors import fail, nearest, require
from netspec.layers.shape import Array, Shape, count, text
from netspec.proto.layers_pb2 import FillerParameter

Filler = Callable[[FillerParameter, Shape, Array], Array]


def fill(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """A float32 array of ``shape`` as ``filler`` asks, drawn with ``key``; raises LayerError."""
    if filler.type not in FILLERS:
        fail(f'unknown filler "{filler.type}"{nearest(filler.type, FILLERS)}')
    require(
        filler.sparse == -1 or filler.type == "gaussian",
        f'sparse means nothing to a "{filler.type}" filler',
    )
    return FILLERS[filler.type](filler, shape, key)


def constant(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """``value`` everywhere."""
    return jnp.full(shape, filler.value, jnp.float32)


def uniform(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """Uniform in [``min``, ``max``)."""
    require(filler.min <= filler.max, f"min {filler.min:g} > max {filler.max:g}")
    return _uniform(key, shape, filler.min, filler.max)


def gaussian(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """Normal with ``mean`` and ``std``.

    ``sparse: n`` keeps each number with probability n / shape[0] and zeroes the others.
    """
    require(filler.std > 0, f"std {filler.std:g} must be positive")
    require(filler.sparse >= -1, f"sparse {filler.sparse} must be 0 or more")
    draw, keep = jax.random.split(key)
    values = filler.mean + filler.std * _normal(draw, shape)
    if filler.sparse < 0:
        return values
    require(shape, "sparse needs at least one axis")
    return values * jax.random.bernoulli(keep, min(1.0, filler.sparse / shape[0]), shape)


def positive_unitball(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """Uniform in [0, 1), scaled so that each row of the first axis sums to 1."""
    values = _uniform(key, shape, 0, 1)
    return values / jnp.sum(values, axis=tuple(range(1, len(shape))), keepdims=True)


def xavier(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """Uniform in [-a, a) with a = sqrt(3 / n); n is fan-in, fan-out or their mean."""
    limit = math.sqrt(3 / _fan(filler, shape))
    return _uniform(key, shape, -limit, limit)


def msra(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """Normal with std sqrt(2 / n); n is fan-in, fan-out or their mean."""
    return math.sqrt(2 / _fan(filler, shape)) * _normal(key, shape)


def bilinear(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """The kernel of bilinear interpolation for every pair of channels, as Caffe fills it.

    Meant for weights (C, 1, K, K) of a Deconvolution with ``group: C``. Without groups it mixes
    all channels; `bilinear_diagonal` does not.
    """
    return jnp.broadcast_to(_tent(shape)[None, None], shape)


def bilinear_diagonal(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """Bilinear interpolation of channel i into channel i, zero between channels.

    For weights (C, C, K, K) of a Deconvolution without groups, as published FCN weights have
    them. Caffe has no such filler: there a script sets these weights.
    """
    tent = _tent(shape)
    require(shape[0] == shape[1], f"weights {text(shape)} have no diagonal: channels differ")
    return jnp.eye(shape[0], dtype=jnp.float32)[:, :, None, None] * tent[None, None]


def _tent(shape: Shape) -> Array:
    require(
        len(shape) == 4 and shape[2] == shape[3],
        f"bilinear weights are (C, c, K, K), but these are {text(shape)}",
    )
    size = shape[-1]
    factor = (size + 1) // 2
    centre = (size - 1) / (2 * factor)
    ramp = 1 - jnp.abs(jnp.arange(size, dtype=jnp.float32) / factor - centre)
    return jnp.outer(ramp, ramp)


# Drawn along one axis: the numbers are the same, and XLA compiles them four times sooner.
def _normal(key: Array, shape: Shape) -> Array:
    return jax.random.normal(key, (count(shape),), jnp.float32).reshape(shape)


def _uniform(key: Array, shape: Shape, least: float, most: float) -> Array:
    return jax.random.uniform(key, (count(shape),), jnp.float32, least, most).reshape(shape)


def _fan(filler: FillerParameter, shape: Shape) -> float:
    """How many numbers a filler's variance is divided by."""
    require(
        shape and count(shape),
        f'a "{filler.type}" filler counts inputs and outputs, but the blob is {text(shape)}',
    )
    fan_in = count(shape) // shape[0]
    fan_out = count(shape) // shape[1] if len(shape) > 1 else count(shape)
    return {
        FillerParameter.FAN_IN: fan_in,
        FillerParameter.FAN_OUT: fan_out,
        FillerParameter.AVERAGE: (fan_in + fan_out) / 2,
    }[filler.variance_norm]


FILLERS: dict[str, Filler] = {
    f.__name__: f
    for f in (
        constant,
        uniform,
        gaussian,
        positive_unitball,
        xavier,
        msra,
        bilinear,
        bilinear_diagonal,
    )
}
