"""Test nets: their means, their arrays, and the batches that they take."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from solver_nets import BASE, ROWS, WEIGHT, Log, W, net, set_weight, solver, weight_of
from solver_nets import folder as folder

from netspec.errors import SolverError
from netspec.frontend.shapes import ParamKey
from netspec.solving.evaluation import evaluate


def test_a_test_is_the_mean_of_its_batches() -> None:
    log = Log()
    loop = solver("test_iter: 2 test_iter: 4 test_interval: 1", log)
    set_weight(loop).step(1)
    square = (ROWS.astype(np.float64) @ WEIGHT.T) ** 2
    for result, count in zip(log.tests, (2, 4), strict=True):
        assert result.batches == count
        np.testing.assert_allclose(result.outputs["loss"], square[:count].mean(0), rtol=1e-5)
        assert result.weights == {"loss": 0.5}
        assert result.loss == pytest.approx(0.5 * square[:count].sum(1).mean(), rel=1e-5)
    # The next test goes on in the data, on the weights of its time.
    set_weight(loop, 2 * WEIGHT).test_all()
    np.testing.assert_allclose(log.tests[2].outputs["loss"], 4 * square[2:4].mean(0), rtol=1e-5)
    rest = square[[4, 0, 1, 2]]
    np.testing.assert_allclose(log.tests[3].outputs["loss"], 4 * rest.mean(0), rtol=1e-5)


def test_test_nets_have_the_arrays_of_the_last_update() -> None:
    loop = solver("test_iter: 1 test_interval: 100")
    loop.step(2)
    assert np.array_equal(np.array(loop.test_nets[0].arrays()[W]), weight_of(loop))
    loop.step(1)
    assert np.array_equal(np.array(loop.test_nets[0].arrays()[W]), weight_of(loop))


TWINS = """
layer {
  name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
  include { phase: TRAIN }
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } }
}
layer {
  name: "b" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" }
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } }
}
"""


def test_a_test_net_takes_a_shared_array_from_the_layer_of_its_name() -> None:
    data, square = net().split('layer {\n  name: "ip"')[0], net().split('layer {\n  name: "square"')
    Path("net.prototxt").write_text(data + TWINS + 'layer {\n  name: "square"' + square[1])
    loop = solver("test_iter: 1 test_interval: 1")
    loop.net.assign({ParamKey("a", "weight"): jnp.asarray(WEIGHT)})
    loop.step(1)
    assert set(loop.net.arrays()) == {ParamKey("a", "weight")}
    trained = np.array(loop.net.arrays()[ParamKey("a", "weight")])
    assert np.array_equal(np.array(loop.test_nets[0].arrays()[ParamKey("b", "weight")]), trained)


def test_a_test_net_of_other_shapes() -> None:
    Path("test.prototxt").write_text(net().replace("num_output: 2", "num_output: 5"))
    loop = solver(
        'train_net: "net.prototxt" test_net: "test.prototxt" test_iter: 1 test_interval: 1',
        base=BASE.removeprefix('net: "net.prototxt"'),
    )
    with pytest.raises(SolverError) as raised:
        loop.step(1)
    assert str(raised.value) == (
        'test.prototxt:6: layer "ip" (InnerProduct): its weight is 5x3 in the test net, 2x3 in '
        "the train net"
    )


class Unequal:
    """A feed whose second batch has twice the rows of its first."""

    def __init__(self) -> None:
        self.batches = iter([ROWS[:1], ROWS[:2]])

    def next(self, shapes: object) -> dict[str, NDArray[np.float32]]:
        return {"x": next(self.batches)}


def test_outputs_of_changing_size_have_no_mean() -> None:
    feed: Any = Unequal()
    with pytest.raises(SolverError) as raised:
        evaluate(solver().net, feed, 2)
    assert str(raised.value) == (
        'output "loss" has 4 numbers in one batch, 2 in those before; their mean means nothing'
    )


def test_at_least_one_batch_is_tested() -> None:
    feed: Any = Unequal()
    with pytest.raises(SolverError, match=r"^0 test batches; at least 1 is needed$"):
        evaluate(solver().net, feed, 0)


def test_a_restored_home_counts_for_test_nets_that_are_built() -> None:
    loop = solver("test_iter: 1 test_interval: 1")
    loop.step(1)
    (state,) = loop.tests.state()
    home = {name: [7, *shape[1:]] for name, shape in state["home"].items()}
    loop.tests.restore([{**state, "home": home}], loop.seed)
    (buckets,) = loop.tests.buckets
    assert buckets.unpadded == {name: tuple(shape) for name, shape in home.items()}
