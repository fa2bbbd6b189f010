"""FCN-8s in netspec, as `netspec solve` and `netspec segment` run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import Work, resident
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import read_solver
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import count
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.module import Net
from netspec.solving.trainer import Trainer
from netspec.sources.fed_net import compile_net

ROOT = Path(__file__).parents[1]
NETS = ROOT / "nets" / "voc-fcn8s"
SOLVER = ROOT / "solvers" / "voc-fcn8s.prototxt"


class Netspec:
    """The published net and its solver."""

    def __init__(self, work: Work) -> None:
        """Make the net, and weights for all."""
        self.work = work
        self.feeds = {"data": work.image(), "label": work.label()}
        self.net = self._net("deploy", "data")
        self.arrays = dict(_weights(self.net.shapes))
        np.savez(work.weights, allow_pickle=False, **_numbered(self.net.shapes, self.arrays))
        self.net.assign(self.arrays)
        self.image = jax.device_put(self.feeds["data"])
        self.trainer: Trainer | None = None

    def forward(self) -> None:
        """Compute the scores of the image."""
        jax.block_until_ready(self.net.forward({"data": self.image}, ("score",)))

    def step(self) -> None:
        """One step of the solver; the first makes its net."""
        if self.trainer is None:
            self.net = self._net("train", "data", "label")
            self.net.assign(self.arrays)
            self.trainer = Trainer(self.net, read_solver(SOLVER).message, 0)
        micro = self.trainer.update([self.trainer.batch(self.feeds, 0, "")])
        jax.block_until_ready((micro.loss, self.net.arrays()))

    def scores(self) -> np.ndarray:
        """(1, 21, size, size)."""
        return np.asarray(self.net.forward({"data": self.image}, ("score",))["score"])

    def memory(self) -> float:
        """Bytes on the device, or of the process where that has the same memory."""
        statistics = jax.devices()[0].memory_stats() or {}
        return float(statistics.get("peak_bytes_in_use", 0)) or resident()

    def work_of_forward(self) -> float:
        """Floating-point operations of the products in a forward pass."""
        return 2 * sum(once for once, _ in _products(self.net.shapes))

    def work_of_step(self) -> float:
        """The same of a training step, without the gradients that nobody needs."""
        return 2 * sum(once * times for once, times in _products(self.net.shapes))

    def matrix_rate(self) -> float:
        """Floating-point operations a second in the product of two large square matrices."""
        n = 2048 if self.work.device == "cpu" else 8192
        kept = jnp.bfloat16 if self.work.dtype == "bf16" else jnp.float32
        a = jax.random.normal(jax.random.key(0), (n, n), kept)
        product = jax.jit(jnp.matmul)
        # The rate of the products that the net is made of.
        with ComputePolicy(self.work.dtype).products():
            return 2 * n**3 / min(_times(product, a))

    def _net(self, name: str, *fed: str) -> Net:
        phase = "train" if name == "train" else "test"
        shapes = {blob: self.feeds[blob].shape for blob in fed}
        net = compile_net(read_graph(NETS / f"{name}.prototxt", phase), shapes)
        net.policy = ComputePolicy(self.work.dtype)
        return net


def _times(product: Callable[[jax.Array, jax.Array], jax.Array], a: jax.Array) -> list[float]:
    """Seconds that some products of an array with itself take, without the first."""
    seconds = []
    for _ in range(6):
        start = perf_counter()
        jax.block_until_ready(product(a, a))
        seconds.append(perf_counter() - start)
    return seconds[1:]


def _weights(shapes: Shapes) -> Iterator[tuple[ParamKey, jax.Array]]:
    """Draws that keep the scale of what passes, for all that the solver changes."""
    draws = np.random.default_rng(2)
    for key, blob in shapes.params.items():
        if shapes.param_specs[key].lr_mult:
            scale = (2 / max(1, count(blob.shape[1:]))) ** 0.5 if len(blob.shape) > 1 else 0.1
            drawn = draws.standard_normal(blob.shape, np.float32) * np.float32(scale)
            yield key, jnp.asarray(drawn)


def _numbered(shapes: Shapes, arrays: dict[ParamKey, jax.Array]) -> dict[str, np.ndarray]:
    """Arrays by layer and how many-th of it: ``conv1_1/0``."""
    return {
        f"{each.node.name}/{i}": np.asarray(arrays[key])
        for each in shapes.nodes
        for i, key in enumerate(each.keys.values())
        if key in arrays
    }


def _products(shapes: Shapes) -> Iterator[tuple[int, int]]:
    """Of each layer with filters: multiply-adds of one pass, and how many passes a step takes."""
    for each in shapes.nodes:
        if "weight" in each.blobs:
            # A transposed convolution sets its filters on the pixels of its bottom.
            turned = each.node.type == "Deconvolution"
            pixels = (each.bottoms if turned else each.tops)[0]
            learns = bool(each.node.param_spec(0).lr_mult)
            once = count(pixels[2:]) * count(each.blobs["weight"].shape)
            yield once, 1 + learns + each.wanted[0]
