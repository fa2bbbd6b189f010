"""The table of rules, and the loops that they share."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


Rule = Callable[..., list[Array]]


RULES: dict[str, Rule] = {}


def rule(layer_type: str) -> Callable[[Rule], Rule]:
    """Enter a function (layer, blobs, *bottoms) -> tops as the rule of a layer type."""

    def enter(function: Rule) -> Rule:
        RULES[layer_type] = function
        return function

    return enter


def positions(shape: Sequence[int]) -> Any:
    """Every index into an array of a shape."""
    return itertools.product(*map(range, shape))


def logistic(v: float) -> float:
    return 1 / (1 + math.exp(-v)) if v > 0 else math.exp(v) / (1 + math.exp(v))


def log_of_one_plus_power(v: float) -> float:
    return v + math.log(1 + math.exp(-v)) if v > 0 else math.log(1 + math.exp(v))


def elementwise(x: Array, function: Callable[[float], float]) -> Array:
    top = np.zeros_like(x)
    for at in positions(x.shape):
        top[at] = function(x[at])
    return top


def off_axis(shape: Sequence[int], axis: int) -> Any:
    """Index of every row along an axis: a slice there, a number on all other axes."""
    for at in positions([*shape[:axis], *shape[axis + 1 :]]):
        yield (*at[:axis], slice(None), *at[axis:])


def softmaxed(row: Array) -> Array:
    powers = [math.exp(v - max(row)) for v in row]
    return np.array([v / sum(powers) for v in powers])
