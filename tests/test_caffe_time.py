"""Layers run one by one compute what the whole net does."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from netspec.cli import caffe_time
from netspec.cli.caffe_time import Timer
from netspec.errors import NetSpecError
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.run import run
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed

# A blob that three layers read, layers in place, a frozen one, a statistic, and two losses, of
# which a layer reads one.
NET = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: [2, 3, 5, 7] } shape { dim: 2 }
  data_filler { type: "uniform" min: 1 max: 2 } data_filler { value: 1 } } }
layer { name: "frozen" type: "Convolution" bottom: "data" top: "a" param { lr_mult: 0 }
  param { lr_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "conv" type: "Convolution" bottom: "a" top: "b"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "b" top: "b" relu_param { negative_slope: 0.5 } }
layer { name: "pool" type: "Pooling" bottom: "b" top: "pool"
  pooling_param { kernel_size: 2 } }
layer { name: "norm" type: "BatchNorm" bottom: "b" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "scale" }
layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "scale" top: "sum" }
layer { name: "fc" type: "InnerProduct" bottom: "sum" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss"
  loss_weight: 2 }
layer { name: "half" type: "Power" bottom: "loss" top: "half" power_param { scale: 0.5 }
  loss_weight: 3 }
layer { name: "mean" type: "Reduction" bottom: "pool" top: "mean" loss_weight: 1
  reduction_param { operation: SUMSQ } }
"""


@pytest.mark.slow
def test_gradients_are_those_of_the_whole_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every array that learns, and of no other."""
    text = parse_net(NET)
    graph = graph_of(text, state_of(text, TRAIN))
    seen: list[Any] = []
    timed = caffe_time.timed

    def watched(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
        seconds, made = timed(function, *args)
        if function is caffe_time._back:
            seen.append(made[0])
        return seconds, made

    monkeypatch.setattr(caffe_time, "timed", watched)
    with Feed(graph, 0) as feed:
        net = compile_net(graph, feed.tops)
        given = {graph.first_blobs[k]: v for k, v in feed.next().items()}
        # DummyData makes its constant once and what is random each time: one batch for both.
        monkeypatch.setattr(
            feed.sources["data"],
            "next",
            lambda: {graph.values[i].name: array for i, array in given.items()},
        )
        arrays = net.arrays()
        timer = Timer(net, feed)

    def loss(arrays: Any) -> Any:
        return run(net.shapes, arrays, given, jax.random.key(0)).loss()

    expected_loss, expected = jax.value_and_grad(loss)(arrays)
    assert timer.loss == pytest.approx(float(expected_loss), rel=1e-5)
    found: dict[Any, Any] = {}
    for gradients in seen[: len(seen) // 2]:
        found |= gradients
    learned = [f"{layer}.{blob}" for layer in ("conv", "fc") for blob in ("weight", "bias")]
    assert sorted(map(str, found)) == sorted([*learned, "scale.scale"])
    for key, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[key], rtol=1e-4, atol=1e-5)


def test_no_passes() -> None:
    text = parse_net(NET)
    graph = graph_of(text, state_of(text, TRAIN))
    with Feed(graph, 0) as feed:
        timer = Timer(compile_net(graph, feed.tops), feed)
        with pytest.raises(NetSpecError, match=r"^0 iterations; at least 1 is needed$"):
            timer.run(0, lambda number, seconds: None)
