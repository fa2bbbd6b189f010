"""Layers that draw: how often, when anew, and with which gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import layer_text
from layer_runs import close, forward
from numpy.typing import NDArray

from netspec.errors import LayerError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.runtime import layer_pass
from netspec.runtime.run import run

# A right generator is blamed for one test in a million; keys are fixed, so none of these is.
SIGNIFICANCE = 1e-6


DROPOUT = """layer { name: "y" type: "Dropout" bottom: "a" top: "y"
    dropout_param { dropout_ratio: 0.3 } }"""
STOCHASTIC = """layer { name: "y" type: "Pooling" bottom: "a" top: "y"
    pooling_param { pool: STOCHASTIC %s } }"""


def binomial(successes: int, trials: int, probability: float) -> None:
    """Assert that a count is one that `SIGNIFICANCE` lets pass."""
    test = scipy.stats.binomtest(successes, trials, probability)
    assert test.pvalue > SIGNIFICANCE


def test_dropout_keeps_each_element_by_chance() -> None:
    x = np.full((2, 10, 100, 50), 2.0)
    (top,) = forward(DROPOUT, x, phase="TRAIN", key=jax.random.key(1))
    kept = np.asarray(top) > 0
    close(np.asarray(top)[kept], np.full(kept.sum(), 2 / 0.7), 1e-6)
    assert not np.asarray(top)[~kept].any()
    binomial(kept.sum(), kept.size, 0.7)
    for axis in range(4):  # neighbours know nothing of each other
        first, second = (np.take(kept, range(i, kept.shape[axis] - 1 + i), axis) for i in (0, 1))
        # Disjoint pairs, so that the trials are independent.
        both = np.take(first & second, range(0, first.shape[axis], 2), axis)
        binomial(both.sum(), both.size, 0.49)


@pytest.mark.differs("random-numbers")
def test_random_layers_draw_anew_by_run_and_by_layer() -> None:
    twice = DROPOUT + DROPOUT.replace('"y"', '"z"')
    shapes = infer(
        connect(
            parse_net(
                'state { phase: TRAIN } layer { name: "a" type: "Input" top: "a" '
                f"input_param {{ shape {{ dim: 1000 }} }} }} {twice}"
            )
        )
    )

    def masks(seed: int) -> tuple[NDArray, NDArray]:
        made = run(shapes, {}, {0: jnp.ones(1000)}, jax.random.key(seed))
        return np.asarray(made.value(1)) > 0, np.asarray(made.value(2)) > 0

    (first, second), (other, _), (again, _) = masks(1), masks(2), masks(1)
    assert (first == again).all()
    for mask in (second, other):
        binomial((first == mask).sum(), 1000, 0.7**2 + 0.3**2)


def test_dropout_has_the_gradient_of_its_mask() -> None:
    x = jnp.arange(1.0, 101)
    key = jax.random.key(5)
    top, pull = jax.vjp(lambda x: forward(DROPOUT, x, phase="TRAIN", key=key)[0], x)
    close(pull(jnp.ones(100))[0], top / x, 1e-6)


def test_random_layers_need_a_key() -> None:
    with pytest.raises(LayerError) as caught:
        forward(DROPOUT, [1.0], phase="TRAIN")
    assert str(caught.value) == (
        'net:3: layer "y" (Dropout): draws random numbers, but this run was given no key'
    )


def test_each_level_of_a_pyramid_draws_anew() -> None:
    x = np.arange(1.0, 1 + 3000 * 4).reshape(3000, 1, 2, 2)
    layer = layer_text("SPP", "pool: STOCHASTIC pyramid_height: 2", ["a"])
    (top,) = forward(layer, np.ones_like(x), phase="TRAIN", key=jax.random.key(1))
    assert (np.asarray(top) == 1).all()
    x = np.tile([1.0, 2.0] * 4, (3000, 1)).reshape(3000, 1, 2, 4)
    first = forward(layer, x, phase="TRAIN", key=jax.random.key(1))[0]
    whole, bins = first[:, 0] == 2, first[:, 1:] == 2
    binomial(int(whole.sum()), 3000, 2 / 3)
    for i in range(4):
        binomial(int((whole == bins[:, i]).sum()), 3000, 5 / 9)


@pytest.mark.differs("stochastic-cpu")
@pytest.mark.parametrize("channels_last", [True, False])
def test_stochastic_pooling_picks_in_proportion(
    channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not channels_last:
        monkeypatch.setattr(layer_pass, "computes_channels_last", lambda node, bottoms: False)
    x = np.tile([[1.0, 0], [2, 5]], (100, 50)).reshape(2, 5, 20, 100)
    layer = STOCHASTIC % "kernel_size: 2 stride: 2"
    (top,) = forward(layer, x, phase="TRAIN", key=jax.random.key(2))
    values, counts = np.unique(top, return_counts=True)
    assert values.tolist() == [1, 2, 5]
    test = scipy.stats.chisquare(counts, np.array([1, 2, 5]) / 8 * top.size)
    assert test.pvalue > SIGNIFICANCE


def test_stochastic_pooling_picks_inside_the_image_and_passes_gradients_to_the_pick() -> None:
    x = jnp.arange(1.0, 1 + 6 * 8).reshape(1, 1, 6, 8)
    layer = STOCHASTIC % "kernel_size: 3 stride: 2"
    key = jax.random.key(4)
    top, pull = jax.vjp(lambda x: forward(layer, x, phase="TRAIN", key=key)[0], x)
    assert top.shape == (1, 1, 3, 4)
    for h in range(3):
        for w in range(4):
            assert top[0, 0, h, w] in np.asarray(x)[0, 0, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
    (gradient,) = pull(jnp.ones(top.shape))
    picks, times = np.unique(top, return_counts=True)
    expected = dict(zip(picks.tolist(), times.tolist(), strict=True))
    assert {
        float(value): int(g) for value, g in zip(x.ravel(), gradient.ravel(), strict=True) if g
    } == expected


@pytest.mark.differs("spp-stochastic")
def test_a_pyramid_takes_the_weighted_mean_in_test() -> None:
    layer = layer_text("SPP", "pool: STOCHASTIC pyramid_height: 1", ["a"])
    (top,) = forward(layer, [[[[1.0, 3.0], [0.0, 4.0]]]])
    np.testing.assert_allclose(top, [[[[26 / 8]]]], rtol=1e-6)
