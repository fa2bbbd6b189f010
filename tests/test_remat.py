"""Segments of rematerialisation: where a chain is cut, and what they hand on."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from netspec.frontend.graph import connect
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.runtime.module import Net
from netspec.runtime.remat import segments
from netspec.runtime.run import run


def chain(length: int, more: str = "") -> str:
    """Convolutions in a row, each with a ReLU in place."""
    text = (
        'layer { name: "in" type: "Input" top: "x0" input_param { shape { dim: [1, 4, 9, 7] } } }'
    )
    for i in range(length):
        text += f"""
        layer {{ name: "c{i}" type: "Convolution" bottom: "x{i}" top: "x{i + 1}"
          convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 }} }}
        layer {{ name: "r{i}" type: "ReLU" bottom: "x{i + 1}" top: "x{i + 1}" }}"""
    loss = f'layer {{ name: "l" type: "EuclideanLoss" bottom: "x{length}" bottom: "x0" }}'
    return f"{text}\n{loss}{more}"


def test_a_chain_is_cut_in_about_the_root_of_its_length() -> None:
    """All layers are in one stage each, in order, and the last is not computed twice."""
    shapes = infer(connect(parse_net(chain(36), "net.prototxt")))
    found = segments(shapes)
    assert [n for segment in found for n in segment.nodes] == list(range(len(shapes.graph.nodes)))
    assert 4 <= len(found) <= 16
    assert not found[-1].rematerialised
    assert sum(segment.rematerialised for segment in found) >= 3


@pytest.mark.slow
def test_stages_hand_on_statistics_and_what_later_ones_read() -> None:
    """Statistics and dropout within a stage, a skip over stages, and outputs nobody reads."""
    more = """
    layer { name: "n" type: "BatchNorm" bottom: "x3" top: "n" }
    layer { name: "s" type: "Eltwise" bottom: "n" bottom: "x1" top: "s" }
    layer { name: "l2" type: "EuclideanLoss" bottom: "s" bottom: "x0" }"""
    drop = """
    layer { name: "drop" type: "Dropout" bottom: "x2" top: "x2" }
    layer { name: "m" type: "BatchNorm" bottom: "x2" top: "m" }
    layer { name: "size" type: "Reduction" bottom: "m" top: "size" loss_weight: 0.5
      reduction_param { operation: SUMSQ } }
    layer { name: "less" type: "Power" bottom: "size" top: "less" }
    """
    first, mark, rest = chain(12, more).partition('layer { name: "c2"')
    text = parse_net(f"{first}{drop}{mark}{rest}", "net.prototxt")
    shapes = infer(graph_of(text, state_of(text, TRAIN, 0, ())))
    again = {n for segment in segments(shapes) if segment.rematerialised for n in segment.nodes}
    assert shapes.graph.nodes.index(shapes.graph.node("drop")) in again
    net = Net(shapes)
    draw = np.random.default_rng(1)
    params = {
        key: jnp.asarray(0.2 * draw.standard_normal(array.shape), jnp.float32)
        for key, array in net.arrays().items()
    }
    given = {0: jnp.asarray(draw.standard_normal(shapes.values[0]), jnp.float32)}

    def passed(policy: ComputePolicy) -> Any:
        def loss(params: Any) -> Any:
            made = run(shapes, params, given, jax.random.key(2), policy=policy)
            return made.loss(), made.updates

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (plain, kept), expected = passed(PLAIN)
    (staged, new), found = passed(replace(PLAIN, remat=True))
    assert float(plain) == float(staged)
    assert len(kept) == 6
    for tree, like in ((new, kept), (found, expected)):
        assert tree.keys() == like.keys()
        for key, array in like.items():
            np.testing.assert_allclose(tree[key], array, rtol=1e-5, atol=1e-6)
