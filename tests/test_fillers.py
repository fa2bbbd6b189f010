"""What fillers draw, and what they refuse.

Draws are tested at a fixed key and a significance of one in a million: a right filler passes, and
a spread that is a tenth too wide does not.
"""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats
from cases import input_text
from numpy.typing import NDArray
from refusals import reached, sites

from netspec.errors import LayerError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.layers import fillers
from netspec.layers.fillers import FILLERS, fill
from netspec.proto.layers_pb2 import FillerParameter
from netspec.runtime.module import initial

SIGNIFICANCE = 1e-6
# 39,600 numbers; fan-in 1,980, fan-out 660, their mean 1,320.
WEIGHT = (20, 60, 3, 11)
FAN = {"FAN_IN": 1980, "FAN_OUT": 660, "AVERAGE": 1320}


def filled(shape: tuple[int, ...], seed: int = 0, **settings: Any) -> NDArray:
    array = fill(FillerParameter(**settings), shape, jax.random.key(seed))
    assert array.shape == shape
    assert array.dtype == np.float32
    return np.asarray(array)


def follows(sample: NDArray, distribution: Any) -> None:
    """Assert that numbers are draws from a distribution (Kolmogorov and Smirnov's test)."""
    assert scipy.stats.kstest(sample.ravel(), distribution.cdf).pvalue > SIGNIFICANCE


def between(least: float, most: float) -> Any:
    return scipy.stats.uniform(least, most - least)


def test_constant_is_the_default() -> None:
    assert (filled((2, 3)) == 0).all()
    assert (filled((2, 3, 5), type="constant", value=-1.5) == -1.5).all()
    assert filled((), value=7) == 7


def test_uniform() -> None:
    sample = filled(WEIGHT, type="uniform", min=-0.5, max=2)
    follows(sample, between(-0.5, 2))
    assert sample.min() >= -0.5
    assert sample.max() < 2
    follows(filled(WEIGHT, type="uniform"), between(0, 1))
    assert (filled((2, 3), type="uniform", min=3, max=3) == 3).all()


def test_gaussian() -> None:
    follows(filled(WEIGHT, type="gaussian", mean=3, std=0.25), scipy.stats.norm(3, 0.25))
    follows(filled(WEIGHT, type="gaussian"), scipy.stats.norm(0, 1))


def test_sparse_gaussian() -> None:
    """Of shape[0] outputs, each input has ``sparse`` nonzero ones on average."""
    sample = filled(WEIGHT, type="gaussian", std=2, sparse=3)
    kept = sample[sample != 0]
    assert scipy.stats.binomtest(kept.size, sample.size, 3 / 20).pvalue > SIGNIFICANCE
    follows(kept, scipy.stats.norm(0, 2))
    assert filled(WEIGHT, type="gaussian", sparse=50).all()
    assert not filled(WEIGHT, type="gaussian", sparse=0).any()


def test_positive_unitball() -> None:
    """Uniform numbers, each row divided by its sum, which is about half the row's length."""
    sample = filled((7, 10, 25, 40), type="positive_unitball")
    assert sample.min() >= 0
    np.testing.assert_allclose(sample.sum((1, 2, 3)), 1, rtol=1e-5)
    follows(sample[0] * 5_000, between(0, 1))
    assert (filled((5,), type="positive_unitball") == 1).all()


@pytest.mark.parametrize("norm", FAN)
def test_xavier(norm: str) -> None:
    limit = math.sqrt(3 / FAN[norm])
    sample = filled(WEIGHT, type="xavier", variance_norm=norm)
    follows(sample, between(-limit, limit))
    assert np.abs(sample).max() <= limit


@pytest.mark.parametrize("norm", FAN)
def test_msra(norm: str) -> None:
    sample = filled(WEIGHT, type="msra", variance_norm=norm)
    follows(sample, scipy.stats.norm(0, math.sqrt(2 / FAN[norm])))


@pytest.mark.parametrize(("norm", "fan"), [("FAN_IN", 1), ("FAN_OUT", 5000), ("AVERAGE", 2500.5)])
def test_the_fans_of_a_blob_of_one_axis(norm: str, fan: float) -> None:
    sample = filled((5000,), type="xavier", variance_norm=norm)
    follows(sample, between(-math.sqrt(3 / fan), math.sqrt(3 / fan)))


@pytest.mark.parametrize(
    "name", sorted(set(FILLERS) - {"constant", "bilinear", "bilinear_diagonal"})
)
def test_the_key_alone_decides(name: str) -> None:
    first, again, other = (filled((5, 7, 3), seed, type=name) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()


def tent(size: int) -> NDArray:
    """The weights that spread one pixel over ``size`` x ``size``, by Caffe's rule."""
    weights = np.zeros((size, size))
    factor = math.ceil(size / 2)
    centre = (size - 1) / (2 * factor)
    for y in range(size):
        for x in range(size):
            weights[y, x] = (1 - abs(x / factor - centre)) * (1 - abs(y / factor - centre))
    return weights


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16])
def test_bilinear(size: int) -> None:
    for channels in ((3, 1), (2, 5)):
        weights = filled((*channels, size, size), type="bilinear")
        for each in weights.reshape(-1, size, size):
            np.testing.assert_allclose(each, tent(size), rtol=1e-6)


@pytest.mark.differs("bilinear-diagonal")
@pytest.mark.parametrize("size", [1, 4, 5])
def test_bilinear_diagonal(size: int) -> None:
    weights = filled((3, 3, size, size), type="bilinear_diagonal")
    for i in range(3):
        for j in range(3):
            np.testing.assert_allclose(weights[i, j], tent(size) * (i == j), rtol=1e-6)


def test_bilinear_numbers() -> None:
    """The kernel of 2x upsampling, as every published FCN has it."""
    row = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_array_equal(filled((1, 1, 4, 4), type="bilinear")[0, 0], np.outer(row, row))
    row = np.array([1, 2, 1]) / 2
    np.testing.assert_array_equal(filled((1, 1, 3, 3), type="bilinear")[0, 0], np.outer(row, row))


MISTAKES = [
    ((2, 3), {"type": "xaiver"}, 'unknown filler "xaiver"; did you mean "xavier"?'),
    ((2, 3), {"type": "blinear"}, 'unknown filler "blinear"; did you mean "bilinear"?'),
    ((2, 3), {"type": "orthogonal"}, 'unknown filler "orthogonal"'),
    ((2, 3), {"type": "xavier", "sparse": 2}, 'sparse means nothing to a "xavier" filler'),
    ((2, 3), {"type": "uniform", "min": 2, "max": 1.5}, "min 2 > max 1.5"),
    ((2, 3), {"type": "gaussian", "std": 0}, "std 0 must be positive"),
    ((2, 3), {"type": "gaussian", "std": -1}, "std -1 must be positive"),
    ((2, 3), {"type": "gaussian", "sparse": -2}, "sparse -2 must be 0 or more"),
    ((), {"type": "gaussian", "sparse": 1}, "sparse needs at least one axis"),
    *(
        (
            shape,
            {"type": name},
            f'a "{name}" filler counts inputs and outputs, but the blob is {said}',
        )
        for name in ("xavier", "msra")
        for shape, said in (((), "scalar"), ((2, 0), "2x0"))
    ),
    *(
        (shape, {"type": name}, f"bilinear weights are (C, c, K, K), but these are {said}")
        for name in ("bilinear", "bilinear_diagonal")
        for shape, said in (((2, 3), "2x3"), ((2, 2, 4, 3), "2x2x4x3"), ((2, 3, 3), "2x3x3"))
    ),
    (
        (3, 1, 4, 4),
        {"type": "bilinear_diagonal"},
        "weights 3x1x4x4 have no diagonal: channels differ",
    ),
]


def refusal(shape: tuple[int, ...], settings: dict[str, Any]) -> LayerError:
    with pytest.raises(LayerError) as caught:
        fill(FillerParameter(**settings), shape, jax.random.key(0))
    return caught.value


@pytest.mark.parametrize(("shape", "settings", "message"), MISTAKES)
def test_a_mistake_is_named(shape: tuple[int, ...], settings: dict[str, Any], message: str) -> None:
    assert str(refusal(shape, settings)) == message


def test_every_refusal_has_a_row() -> None:
    known = sites([Path(fillers.__file__)])
    errors = [refusal(shape, settings) for shape, settings, _ in MISTAKES]
    assert known == reached(errors, known)


def net(filler: str) -> Any:
    text = f"""{input_text({"x": (2, 3, 7, 5)})}
        layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{
            num_output: 4 kernel_size: 3 weight_filler {{ {filler} }}
            bias_filler {{ value: 2 }} }} }}
        layer {{ name: "d" type: "Convolution" bottom: "x" top: "d" convolution_param {{
            num_output: 4 kernel_size: 3 weight_filler {{ {filler} }} }} }}"""
    return infer(connect(parse_net(text, "net")))


def test_a_net_fills_each_array_by_a_draw_of_its_own() -> None:
    arrays = {str(key): array for key, array in initial(net('type: "msra"'), seed=3).items()}
    assert list(arrays) == ["c.weight", "c.bias", "d.weight", "d.bias"]
    assert (arrays["c.bias"] == 2).all()
    assert (arrays["d.bias"] == 0).all()
    assert (arrays["c.weight"] != arrays["d.weight"]).all()


def test_a_net_says_whose_filler_is_wrong() -> None:
    with pytest.raises(LayerError) as caught:
        initial(net('type: "xavir"'), seed=0)
    assert str(caught.value) == (
        'net:2: layer "c" (Convolution): weight filler: unknown filler "xavir"; '
        'did you mean "xavier"?'
    )
