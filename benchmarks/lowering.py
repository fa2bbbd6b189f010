"""Layers in XLA's own way and in netspec's: ``python -m benchmarks.lowering``.

Layers of FCN-8s at 250x250 pixels, one after another: forward, and forward with both gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.figures import Row, machine, tell
from benchmarks.rounds import Run, rates
from netspec.layers.base import Array, Shape, text
from netspec.layers.lowering import windows
from netspec.layers.pooling import pooled_size
from netspec.layers.window import SlidingWindow

Function = Callable[..., Array]


class Work(NamedTuple):
    """A layer: its image (N, H, W, C), its weights if it has any, and both ways to compute it."""

    image: Shape
    weights: Shape | None
    ours: Function
    own: Function


def square(kernel: int, stride: int = 1, pad: int = 0) -> SlidingWindow:
    """A window as high as it is wide."""
    return SlidingWindow(*((n, n) for n in (kernel, stride, pad, 1)))


def convolution(image: Shape, outputs: int, window: SlidingWindow) -> Work:
    """A convolution of an image."""
    return Work(
        image,
        (outputs, image[-1], *window.kernel),
        lambda x, w: windows.convolution(x, w, window, 1, channels_last=True),
        lambda x, w: windows.direct(x, w, window, 1, channels_last=True),
    )


def upsampling(image: Shape, window: SlidingWindow) -> Work:
    """A transposed convolution with as many outputs as inputs."""
    return Work(
        image,
        (image[-1], image[-1], *window.kernel),
        lambda x, w: windows.deconvolution(x, w, window, 1, channels_last=True),
        lambda x, w: windows.direct_transposed(x, w, window, 1, channels_last=True),
    )


def pooling(image: Shape, window: SlidingWindow) -> Work:
    """Maxima of windows."""
    out = pooled_size(window, image[1:3], ceil=True)
    sizes, strides = (1, *window.kernel, 1), (1, *window.stride, 1)
    return Work(
        image,
        None,
        lambda x: windows.max_pool(x, window, out, True)[0],
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, "VALID"),
    )


WORKS: Mapping[str, Work] = {
    "conv1_1, padded by 100": convolution((1, 250, 250, 3), 64, square(3, pad=100)),
    "conv1_2": convolution((1, 448, 448, 64), 64, square(3, pad=1)),
    "pool1": pooling((1, 448, 448, 64), square(2, 2)),
    "conv2_2": convolution((1, 224, 224, 128), 128, square(3, pad=1)),
    "conv3_2": convolution((1, 112, 112, 256), 256, square(3, pad=1)),
    "conv4_2": convolution((1, 56, 56, 512), 512, square(3, pad=1)),
    "conv5_2": convolution((1, 28, 28, 512), 512, square(3, pad=1)),
    "fc6": convolution((1, 14, 14, 512), 4096, square(7)),
    "fc7": convolution((1, 8, 8, 4096), 4096, square(1)),
    "upscore8": upsampling((1, 34, 34, 21), square(16, 8)),
}


def measure(name: str, rounds: int) -> Iterator[Row]:
    """Milliseconds of a layer: forward, and forward with its gradients, in both ways."""
    work = WORKS[name]
    draws = np.random.default_rng(0)
    shapes = [work.image] if work.weights is None else [work.image, work.weights]
    arrays = [jnp.asarray(draws.standard_normal(shape, np.float32)) for shape in shapes]
    ways = {"netspec": work.ours, "XLA": work.own}
    for what in ("forward", "with gradients"):
        made = {
            way: jax.jit(function if what == "forward" else trained(function))
            for way, function in ways.items()
        }
        runs: dict[str, Run] = {way: partial(_done, step, arrays) for way, step in made.items()}
        ms = {way: 1000 / found.things for way, found in rates(runs, rounds).items()}
        yield {
            "layer": name,
            "image": text(work.image),
            "work": what,
            "XLA's own, ms": ms["XLA"],
            "netspec's, ms": ms["netspec"],
            "times": ms["XLA"] / ms["netspec"],
        }


def trained(function: Function) -> Callable[..., tuple[Array, ...]]:
    """A top and the gradients of all arrays, the diff being the top itself."""

    def step(*arrays: Array) -> tuple[Array, ...]:
        top, back = jax.vjp(function, *arrays)
        return (top, *back(top))

    return step


def _done(step: Callable[..., object], arrays: list[Array]) -> int:
    jax.block_until_ready(step(*arrays))
    return 1


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(WORKS)), help="These layers.")
@click.option("--rounds", default=5, show_default=True, help="Take the median of so many.")
@click.option("--json", "path", metavar="FILE", help="Write the figures there, too.")
def main(only: tuple[str, ...], rounds: int, path: str | None) -> None:
    """Measure layers in XLA's own way and in netspec's."""
    rows = [row for name in only or WORKS for row in measure(name, rounds)]
    tell([rows], {"device": jax.devices()[0].device_kind, **machine("jax")}, path)


if __name__ == "__main__":
    main()
