"""Nets that tests load and call."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import netspec
from netspec.layers.base import Array

Load = Callable[..., netspec.Net]


X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }\n'
TWO = (
    INPUT
    + """
layer { name: "one" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "two" type: "InnerProduct" bottom: "y" top: "z"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
"""
)
# Two layers of one shape.
TWIN = (
    INPUT.replace("{", "{{").replace("}", "}}")
    + """
layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "y" {param}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} bias_term: false }} }}
layer {{ name: "b" type: "InnerProduct" bottom: "y" top: "z" {param}
  inner_product_param {{ num_output: 3 {b} }} }}
"""
)
SHARED = TWIN.format(param='param { name: "w" }', b="bias_term: false")


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Text to net; its file is called net.prototxt."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *args: object, **options: object) -> netspec.Net:
        Path("net.prototxt").write_text(text)
        return netspec.load("net.prototxt", *args, **options)  # type: ignore[arg-type]

    return load


def total(net: netspec.Net, x: object) -> Array:
    return net(x=x)["z"].sum()
