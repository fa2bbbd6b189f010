"""What keeps gradients from a layer: weights that are 0, but not biases, whatever their name."""

import jax
import jax.numpy as jnp
import numpy as np

from netspec import build
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TRAIN
from netspec.solving.diagnosis.measure import look
from netspec.solving.diagnosis.stuck import why_stuck

# An LSTM whose weights are frozen at 0 and whose bias, "b_c", is 0 until the next update.
NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 3 } } }
layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 5 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "lstm" type: "LSTM" bottom: "ip" bottom: "cont" top: "y"
  param { lr_mult: 0 } param { lr_mult: 1 } param { lr_mult: 0 }
  recurrent_param { num_output: 4 } }
layer { name: "z" type: "Power" bottom: "y" top: "z" power_param { shift: 1 power: 2 } }
layer { name: "loss" type: "Reduction" bottom: "z" top: "loss" loss_weight: 1 }
"""


def test_a_bias_at_zero_does_not_promise_gradients_to_what_lies_below() -> None:
    text = parse_net(NET, "net.prototxt")
    net = build.compile_net(build.graph_of(text, state_of(text, TRAIN)))
    params = {**net.arrays(), **net.memory_for(net.shapes)}
    learned = [key for key, spec in net.shapes.param_specs.items() if spec.lr_mult]
    feeds = {"x": jnp.asarray(np.ones((2, 1, 3))), "cont": jnp.ones((2, 1))}
    seen = look(net.shapes, params, learned, feeds, jax.random.key(0))
    assert not next(g for key, g in seen.gradients.items() if key.blob == "b_c").zero
    lines = why_stuck(seen, net.shapes)
    assert lines[0].startswith("the arrays lstm.W_xc, lstm.W_hc are all zero: ")
    assert lines[-1] == "no gradient reaches ip.weight, ip.bias"
