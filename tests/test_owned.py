"""Programs and tables die with their owner, and with sizes that were not used for long."""

import gc
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

import jax.numpy as jnp
import numpy as np
import pytest

import netspec
from netspec import caffe
from netspec.runtime import owned
from netspec.runtime.compile_cache import Compiles

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 5, 7] } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
"""
SOLVER = """
net: "train.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 9 random_seed: 1
"""
LOSS = """
layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: [2, 3] } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("train.prototxt").write_text(LOSS)
    Path("solver.prototxt").write_text(SOLVER)


class Owner(SimpleNamespace):
    __hash__ = object.__hash__


def maps() -> int:
    """The memory maps of this process: each compiled program has some."""
    return len(Path("/proc/self/maps").read_text().splitlines())


def test_a_program_is_compiled_once_an_owner_and_statics() -> None:
    traced = []

    @owned.owned_jit(static=2)
    def scaled(owner: Owner, factor: int, x: float) -> float:
        traced.append((owner.name, factor))
        return owner.bias + factor * x

    one, two = Owner(name="one", bias=1), Owner(name="two", bias=2)
    for _ in range(2):
        assert [float(scaled(o, f, 5.0)) for o in (one, two) for f in (3, 4)] == [16, 21, 17, 22]
    assert traced == [("one", 3), ("one", 4), ("two", 3), ("two", 4)]


def test_what_an_owner_holds_goes_with_it() -> None:
    made: list[ref[np.ndarray]] = []

    @owned.owned_cache
    def table(owner: Owner, size: int) -> np.ndarray:
        array = np.zeros(size)
        made.append(ref(array))
        return array

    @owned.owned_jit()
    def summed(owner: Owner, x: jnp.ndarray) -> jnp.ndarray:
        return x.sum() + owner.bias

    owner = Owner(bias=1)
    alive = ref(owner)
    assert table(owner, 3) is table(owner, 3)
    assert float(summed(owner, jnp.ones(4))) == 5
    del owner
    gc.collect()
    assert alive() is None
    assert [each() for each in made] == [None]


def test_results_of_one_owner_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned, "_MOST_RESULTS", 2)
    calls = []
    remembered = owned.owned_cache(lambda owner, key: calls.append(key))
    owner = Owner()
    for key in (1, 2, 3, 3, 2, 1):
        remembered(owner, key)
    assert calls == [1, 2, 3, 1]


def test_nets_that_are_dropped_leave_nothing() -> None:
    x = np.ones((1, 3, 5, 7), np.float32)

    def run() -> tuple[ref[object], int]:
        net = netspec.load("net.prototxt")
        net(x=x)
        net(x=x[..., :5])
        return ref(net.shapes), maps()

    first, _ = run()
    gc.collect()
    assert first() is None
    before = maps()
    for _ in range(3):
        run()
        gc.collect()
    assert maps() <= before + 5


def test_solvers_that_are_dropped_leave_nothing() -> None:
    def run() -> int:
        solver = caffe.SGDSolver("solver.prototxt")
        solver.step(2)
        del solver
        gc.collect()
        return maps()

    first = run()
    assert max(run() for _ in range(3)) <= first + 5


def test_nets_that_are_alike_share_programs_while_one_lives() -> None:
    x = np.ones((1, 3, 5, 7), np.float32)
    one = netspec.load("net.prototxt")
    one(x=x)
    with Compiles() as compiles:
        other = netspec.load("net.prototxt", seed=1)
    made = compiles.count
    with compiles:
        other(x=x)
    assert compiles.count == made


def test_a_net_at_many_sizes_keeps_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned.RecentSizes.__init__, "__defaults__", (2,))
    net = netspec.load("net.prototxt")
    x = np.ones((1, 3, 5, 12), np.float32)

    def compiled(width: int) -> bool:
        with Compiles() as compiles:
            assert net(x=x[..., :width])["c"].shape == (1, 2, 3, width - 2)
        return compiles.count > 0

    assert [compiled(width) for width in (7, 8, 9, 8)] == [True, True, True, False]
    # 9 was used before 8: it goes for 10, while the net's own size, 7, stays.
    assert [compiled(width) for width in (10, 8, 7, 9)] == [True, False, False, True]
