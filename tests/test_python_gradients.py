"""Layers in Python: which gradients they are asked for."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from user_layers import INPUTS, IP, LOSS, T, X, load, python
from user_layers import folder as folder

import netspec
from netspec import caffe

IP2 = IP.replace('"ip"', '"ip2"').replace('"h"', '"k"')


ENTROPY = """
layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "h" bottom: "t" top: "loss" }
"""
BESIDE = 'layer { name: "beside" type: "ReLU" bottom: "y" top: "beside" }'
FORCE = "force_backward: true\n"
FREE = INPUTS.replace(FORCE, "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (IP + LOSS, [[False], [True, False]]),
        (IP.replace("RATE", "param { lr_mult: 0 }") + LOSS, [[False], [False, False]]),
        (IP + LOSS.replace("loss_weight: 1", ""), [[False], [False, False]]),
        (IP.replace("RATE", "propagate_down: true") + LOSS, [[True], [True, False]]),
        (
            IP + LOSS.replace("loss_weight", "propagate_down: 1 propagate_down: 1 loss_weight"),
            [[False], [True, True]],
        ),
        (
            IP + LOSS.replace("loss_weight", "propagate_down: 0 propagate_down: 0 loss_weight"),
            [[False], [False, False]],
        ),
        # What all readers keep gradients from does not run at all.
        (
            IP.replace("RATE", "propagate_down: true")
            + LOSS.replace("loss_weight", "propagate_down: 0 propagate_down: 0 loss_weight"),
            [[False], [False, False]],
        ),
        # Nor does what has nothing to learn, whatever is said of it.
        (
            IP.replace("RATE", "propagate_down: true param { lr_mult: 0 }") + LOSS,
            [[False], [False, False]],
        ),
        # A loss that is read has its gradient all the same.
        (IP + LOSS + BESIDE, [[False], [True, False], [False]]),
        (FORCE + IP + LOSS, [[True], [True, True]]),
        # No force reaches labels, but one that is learned is a bottom like others.
        (FORCE + IP + ENTROPY, [[True], [True, False]]),
        (FORCE + IP + IP2 + ENTROPY.replace('"t"', '"k"'), [[True], [True], [True, True]]),
        # Blobs of its own make a Python layer learn; what stands beside the loss does not count.
        (
            python("Weigh") + BESIDE + LOSS.replace('"h"', '"y"').replace('top: "y"', 'top: "l"'),
            [[False], [False], [True, False]],
        ),
    ],
)
def test_whose_gradients_caffe_wants(text: str, wanted: list[list[bool]]) -> None:
    Path("net.prototxt").write_text(FREE + text.replace("RATE", ""))
    shapes = netspec.load("net.prototxt", phase="train", run_python=True).shapes
    assert [list(each.wanted) for each in shapes.nodes[1:]] == wanted


def test_a_layer_is_told_whose_gradients_are_wanted() -> None:
    Path("net.prototxt").write_text(FREE + (IP + LOSS).replace("RATE", ""))
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    told = sys.modules["my_layers"].Told.told  # type: ignore[attr-defined]
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    net.forward()
    net.backward()
    difference = X @ np.ones((3, 3)) - T
    np.testing.assert_allclose(net.blobs["h"].diff, difference / 2)
    np.testing.assert_allclose(net.params["ip"][0].diff, difference.T @ X / 2)
    assert not net.blobs["t"].diff.any()
    assert told == [[True, False]]
    module = netspec.load("net.prototxt", run_python=True)
    # JAX may differentiate what Caffe would not.
    gradient = jax.grad(lambda t: module(x=X, t=t)["y"].sum())(T)
    np.testing.assert_allclose(gradient, -difference / 2)
    nnx.grad(lambda net: net(x=X, t=T)["y"].sum())(module)
    assert told[1:] == [[True, True], [True, False]]


def test_gradients_without_a_loss_in_the_net() -> None:
    net = load(python("Times", param="2.5"))
    gradient = jax.jit(jax.grad(lambda x: (net(x=x, t=T)["y"] * T).sum()))(X)
    np.testing.assert_allclose(gradient, 2.5 * T)
