"""Gradients in float32 and float64, and why they differ: ``python -m benchmarks.kinks``.

FCN-8s of PASCAL-Context on random images: the gradient of each in both types, how many units have
another sign, and the gradient of float64 made to take the decisions of float32. Takes a minute an
image on two cores.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net, read_net, write
from netspec.frontend.shapes import Shapes, infer
from netspec.layers.base import Array, Shape
from netspec.runtime.run import value_gradients

ROOT = Path(__file__).parents[1]
NET = ROOT / "nets" / "pascalcontext-fcn8s" / "train.prototxt"
SIZE = (40, 56)
CLASSES, IGNORED = 60, 255
INPUT = (
    'layer {{ name: "{0}" type: "Input" top: "{0}" '
    "input_param {{ shape {{ dim: [1, {1}, {2}, {3}] }} }} }}\n"
)


def shapes_of_net() -> Shapes:
    """The net for training, as in phase TEST, fed by hand."""
    message = read_net(NET).message
    del message.layer[0]
    inputs = INPUT.format("data", 3, *SIZE) + INPUT.format("label", 1, *SIZE)
    return infer(connect(parse_net(f"state {{ phase: TEST }}\n{inputs}{write(message)}")))


def weights(layer: str, blob: str, shape: Shape) -> np.ndarray:
    """The numbers of a learned array, the same on any machine: activations keep their size."""
    index = ("weight", "bias").index(blob)
    draws = np.random.default_rng(zlib.crc32(f"{layer}/{index}".encode()))
    values = draws.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        return 0.1 * values
    if layer.startswith("up"):
        side = shape[2]
        tent = 1 - abs(np.arange(side) - (side - 1) / 2) / ((side + 1) // 2)
        return (np.eye(shape[0])[:, :, None, None] * np.outer(tent, tent)).astype(np.float32)
    return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels, some of them ignored."""
    draws = np.random.default_rng(seed)
    image = (2 * draws.standard_normal((1, 3, *SIZE))).astype(np.float32)
    label = draws.integers(0, CLASSES, (1, 1, *SIZE)).astype(np.float32)
    label[draws.random(label.shape) < 0.05] = IGNORED
    return image, label


def apart(a: Any, b: Any) -> float:
    """The greatest difference of two arrays, relative to the second's largest number."""
    return float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())


class Gradients:
    """The image's gradient in one type, and the tops of all convolutions."""

    def __init__(self, shapes: Shapes) -> None:
        graph = shapes.graph
        self.convolutions = [i for n in graph.nodes if n.type == "Convolution" for i in n.tops]
        self.inputs = [graph.first_blobs[name] for name in ("data", "label")]
        self.arrays = {key: weights(*key, blob.shape) for key, blob in shapes.params.items()}
        self.names = {i: graph.values[i].name for i in self.convolutions}

        @jax.jit
        def compiled(params: Any, given: Any, replacements: Any) -> tuple[Array, Any]:
            _, tops, _, diffs = value_gradients(
                shapes,
                range(len(graph.nodes)),
                params,
                given,
                lambda made: (made.loss(), {i: made.value(i) for i in self.convolutions}),
                [],
                self.inputs[:1],
                replacements=replacements,
            )
            return diffs[self.inputs[0]], tops

        self._compiled = compiled

    def of(
        self,
        example: tuple[np.ndarray, np.ndarray],
        dtype: type,
        tops: Any = None,
        shift: float = 0,
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Compute both. tops: taken for those of convolutions. shift: perturbs the weights."""
        draws = np.random.default_rng(1)
        params = {
            key: jnp.asarray(array * (1 + shift * draws.standard_normal(array.shape)), dtype)
            for key, array in self.arrays.items()
        }
        given = {
            i: jnp.asarray(array, dtype) for i, array in zip(self.inputs, example, strict=True)
        }
        replacements = {i: jnp.asarray(top, dtype) for i, top in (tops or {}).items()}
        gradient, found = self._compiled(params, given, replacements)
        return np.asarray(gradient), {i: np.asarray(top) for i, top in found.items()}


@click.command()
@click.argument("seeds", nargs=-1, type=int)
def main(seeds: tuple[int, ...]) -> None:
    """Compare the gradients of images drawn with SEEDS, 1 to 12 without any."""
    gradients = Gradients(shapes_of_net())
    for seed in seeds or range(1, 13):
        pair = example(seed)
        short, tops = gradients.of(pair, np.float32)
        with jax.enable_x64(True):
            true, true_tops = gradients.of(pair, np.float64)
            forced, _ = gradients.of(pair, np.float64, tops)
            shifted, _ = gradients.of(pair, np.float64, shift=1e-6)
        flips = {
            gradients.names[i]: count
            for i in tops
            if (count := int((np.sign(tops[i]) != np.sign(true_tops[i])).sum()))
        }
        click.echo(
            f"image {seed}: float32 {apart(short, true):.1e} from float64, "
            f"{apart(short, forced):.1e} with its decisions; weights perturbed "
            f"{apart(shifted, true):.1e}; other signs {flips}"
        )


if __name__ == "__main__":
    main()
