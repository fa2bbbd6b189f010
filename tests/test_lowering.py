"""Every algorithm that windowed arithmetic is lowered to, beside XLA's own, in double precision."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sweeps import first_of_each

from netspec.layers.base import Array, Shape
from netspec.layers.lowering import im2col, windows
from netspec.layers.pooling import pooled_size
from netspec.layers.window import SlidingWindow


class Convolved(NamedTuple):
    """Images (N, H, W, C), weights (O, I, kh, kw), and what is chosen for them on a CPU."""

    x: Shape
    w: Shape
    how: str
    stride: Shape = (1, 1)
    pad: Shape = (0, 0)
    dilation: Shape = (1, 1)
    groups: int = 1

    @property
    def window(self) -> SlidingWindow:
        return SlidingWindow(self.w[2:], self.stride, self.pad, self.dilation)


CONVOLVED = {
    "few windows": Convolved((1, 7, 5, 3), (11, 3, 5, 4), "product"),
    "few windows, stride, pad, dilation": Convolved(
        (2, 7, 5, 3), (23, 3, 3, 2), "product", (3, 2), (2, 1), (1, 2)
    ),
    "pixels": Convolved((2, 7, 5, 3), (11, 3, 1, 1), "direct"),
    "rows that no window sees": Convolved((1, 8, 5, 2), (19, 2, 3, 1), "product", stride=(3, 2)),
    "no image": Convolved((0, 7, 5, 3), (11, 3, 3, 2), "product"),
    "no channels": Convolved((2, 7, 5, 0), (3, 0, 3, 2), "blocks"),
    "many windows": Convolved((2, 11, 13, 3), (5, 3, 3, 2), "blocks", pad=(1, 2)),
    "an image, wide padding": Convolved((1, 5, 7, 3), (2, 3, 3, 3), "blocks", pad=(9, 9)),
    "strides": Convolved((2, 11, 13, 3), (5, 3, 3, 2), "direct", stride=(2, 1)),
    "dilation": Convolved((2, 11, 13, 3), (5, 3, 3, 2), "direct", dilation=(1, 2)),
    "groups": Convolved((2, 11, 13, 6), (4, 3, 3, 2), "direct", groups=2),
}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=first_of_each([300, 1, 1 << 20]), ids="blocks of {} elements".format)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line at a time, some, and all at once."""
    monkeypatch.setattr(im2col, "_BLOCK", request.param)


def largest(array: Array) -> float:
    return float(jnp.abs(array).max(initial=0))


def with_gradients(function: Callable[..., Array], *arrays: Array) -> list[Array]:
    top, back = jax.vjp(function, *arrays)
    diff = jnp.asarray(np.random.default_rng(7).standard_normal(top.shape))
    return [top, *back(diff)]


@pytest.mark.parametrize("case", CONVOLVED.values(), ids=CONVOLVED)
def test_convolutions_are_one_function(case: Convolved, block: None) -> None:
    """Tops, and gradients of images and weights."""
    chosen = windows.choose_convolution(case.x, case.w, case.window, case.groups)
    assert chosen == (case.how if jax.default_backend() == "cpu" else "direct")
    draws = np.random.default_rng(0)
    x, w = (jnp.asarray(draws.standard_normal(shape)) for shape in (case.x, case.w))

    def plain(x: Array, w: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            w,
            case.stride,
            [(p, p) for p in case.pad],
            rhs_dilation=case.dilation,
            feature_group_count=case.groups,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
        )

    def lowered(x: Array, w: Array) -> Array:
        return windows.convolution(x, w, case.window, case.groups, channels_last=True)

    for got, want in zip(with_gradients(lowered, x, w), with_gradients(plain, x, w), strict=True):
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * largest(want))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["product", "blocks"])
def test_narrow_products_are_summed_up_in_full(how: str) -> None:
    """A thousand ones in bfloat16 would stop at 256."""
    x = jnp.ones((1, 40, 25, 1), jnp.bfloat16)
    kernel, one = (40, 25) if how == "product" else (1, 1), (1, 1)
    window = SlidingWindow(kernel, one, (0, 0), one)
    if how == "product":
        got = im2col.product(x, jnp.ones((1, 1, *kernel), x.dtype), window)
    else:
        got = im2col.weight_gradient(x, jnp.ones((1, 40, 25, 1), x.dtype), window)
    assert got.dtype == jnp.bfloat16
    assert float(got.ravel()[0]) == 1000


@pytest.mark.parametrize(
    ("shape", "weights", "window"),
    first_of_each(
        [
            ((2, 3, 5, 4), (4, 3, 4, 4), SlidingWindow((4, 4), (2, 2), (1, 1), (1, 1))),
            ((1, 5, 3, 2), (2, 3, 5, 3), SlidingWindow((5, 3), (3, 2), (0, 1), (1, 1))),
            ((1, 4, 4, 3), (3, 3, 2, 2), SlidingWindow((2, 2), (3, 3), (0, 0), (1, 1))),
        ]
    ),
)
def test_deconvolutions_are_one_function(
    shape: Shape, weights: Shape, window: SlidingWindow
) -> None:
    """By phases, beside the gradient of a convolution, whose transpose they are."""
    assert windows.choose_deconvolution(window, 1) == "phases"
    draws = np.random.default_rng(0)
    x, w = (jnp.asarray(draws.standard_normal(s)) for s in (shape, weights))

    def plain(x: Array, w: Array) -> Array:
        out = jnp.zeros((shape[0], *window.deconvolved(shape[1:3]), weights[1]))
        convolve = jax.vjp(lambda y: windows.direct(y, w, window, 1, channels_last=True), out)[1]
        return convolve(x)[0]

    def lowered(x: Array, w: Array) -> Array:
        return windows.deconvolution(x, w, window, 1, channels_last=True)

    for got, want in zip(with_gradients(lowered, x, w), with_gradients(plain, x, w), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * largest(want))


@pytest.mark.parametrize(
    "window",
    first_of_each(
        [
            SlidingWindow((2, 2), (2, 2), (0, 0), (1, 1)),
            SlidingWindow((3, 2), (2, 1), (1, 0), (1, 1)),
            SlidingWindow((3, 3), (2, 2), (0, 0), (1, 1)),
        ]
    ),
)
def test_maxima_are_one_function(window: SlidingWindow) -> None:
    """Unrolled into shifted slices, and in one pass over indices; images with many equal maxima."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 9, 7, 3)), jnp.float64)
    out = pooled_size(window, x.shape[1:3], ceil=True)
    unrolled = with_gradients(lambda x: windows._max_of_taps(x, window, out, True)[0], x)
    by_index = with_gradients(lambda x: windows._max_by_index(x, window, out, True)[0], x)
    for got, want in zip(unrolled, by_index, strict=True):
        np.testing.assert_array_equal(got, want)
