"""One step of a small net, for what is said of it afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.module import Net
from netspec.solving.diagnosis.measure import Look, look
from netspec.solving.diagnosis.not_finite import culprit
from netspec.solving.diagnosis.stuck import chance, why_stuck
from netspec.sources.fed_net import compile_net

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
LABEL = np.array([1, 3], np.float32)
XAVIER = 'weight_filler { type: "xavier" }'
DATA = """layer { name: "data" type: "Input" top: "x" top: "label"
  input_param { shape { dim: [2, 3] } shape { dim: 2 } } }
"""
LOSS = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


def product(name: str, bottom: str, outputs: int, filler: str = XAVIER, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more}\n'
        f"  inner_product_param {{ num_output: {outputs} {filler} }} }}\n"
    )


def layer(name: str, kind: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}\n'


RELU = layer("relu", "ReLU", "ip", "ip")


@dataclass
class Step:
    """A net in file net.prototxt, and all that one step of it reads."""

    text: str
    arrays: Mapping[str, ArrayLike] = field(default_factory=dict)
    x: ArrayLike = field(default_factory=X.copy)
    label: ArrayLike = field(default_factory=LABEL.copy)

    @cached_property
    def net(self) -> Net:
        text = parse_net(self.text, "net.prototxt")
        return compile_net(graph_of(text, state_of(text, TRAIN)))

    @property
    def shapes(self) -> Shapes:
        return self.net.shapes

    @cached_property
    def params(self) -> Mapping[ParamKey, Array]:
        params = self.net.arrays()
        for name, array in self.arrays.items():
            key = ParamKey(*name.split("."))
            shape = params[key].shape
            params[key] = jnp.broadcast_to(jnp.asarray(array, jnp.float32), shape)
        return params

    @property
    def feeds(self) -> Mapping[str, Array]:
        feeds = {"x": jnp.asarray(self.x), "label": jnp.asarray(self.label, jnp.float32)}
        return {name: feeds[name] for name in self.net.graph.fed}

    @property
    def learned(self) -> list[ParamKey]:
        specs = self.shapes.param_specs
        return [k for k, blob in self.shapes.params.items() if blob.learned and specs[k].lr_mult]

    def look(self) -> Look:
        return look(self.shapes, self.params, self.learned, self.feeds, jax.random.key(0))

    def chance(self) -> float | None:
        return chance(self.shapes, self.params, self.feeds)

    def culprit(self) -> str | None:
        seen = self.look()
        return culprit(seen, self.shapes, self.params, self.feeds, jax.random.key(0))

    def why_stuck(self) -> list[str]:
        return why_stuck(self.look(), self.shapes)


TWO = DATA + product("ip", "x", 5) + RELU + product("score", "ip", 4) + LOSS


ONES = np.ones((2, 3), np.float32)
