"""Narrow copies of the published nets, and inputs for them."""

import re
import runpy
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from netspec.frontend.graph import Graph
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net, write
from netspec.frontend.shapes import Shapes, infer
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.module import Net

ROOT = Path(__file__).resolve().parents[1]
runpy.run_path(str(ROOT / "tools" / "nets.py"))


def shapes_of(name: str, width: float, size: tuple[int, int]) -> Shapes:
    """An FCN in TRAIN, with so many channels as a share of its own, on an image."""
    generate = runpy.run_path(str(ROOT / "nets" / name / "net.py"))["net"]
    # Random fillers are compiled for each shape.
    filled = re.sub("msra|xavier", "constant", write(generate("train", width).to_proto()))
    text = parse_net(filled, name)
    graph = graph_of(text, state_of(text, TRAIN, 0, ()))
    return infer(graph, {blob: _shape(blob, size) for blob in graph.fed})


def narrow(name: str, width: float, size: tuple[int, int]) -> Net:
    """A narrow copy of an FCN in TRAIN, with weights that keep a signal's size."""
    net = Net(shapes_of(name, width, size))
    normal = np.random.default_rng(1).standard_normal
    for key, blob in net.shapes.params.items():
        if net.shapes.param_specs[key].lr_mult and key.blob == "weight":
            scale = np.sqrt(2 / np.prod(blob.shape[1:]))
            net.assign({key: jnp.asarray(normal(blob.shape) * scale, jnp.float32)})
    return net


def _shape(blob: str, size: tuple[int, int]) -> tuple[int, ...]:
    return (1, 3 if blob == "data" else 1, *size)


def fed(graph: Graph, size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(5)
    return {
        name: (50 * draw.standard_normal(_shape(name, size))).astype(np.float32)
        if name == "data"
        else draw.integers(0, 3, _shape(name, size)).astype(np.float32)
        for name in graph.fed
    }
