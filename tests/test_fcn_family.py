"""Every net of the FCN family learns from the set it was made for, a narrow copy of it at least."""

import re
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_sets
from numpy.typing import NDArray

from netspec.frontend.graph import Graph
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import write
from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Array
from netspec.proto.layers_pb2 import TEST
from netspec.runtime.masked_shapes import Bucketed
from netspec.runtime.module import Net
from netspec.runtime.run import run
from netspec.runtime.size_buckets import SizeBuckets
from netspec.solving.solver import Solver
from netspec.sources.fed_net import compile_net

# Odd, and others when rounded up.
ODD = (61, 37)
ROOT = Path(__file__).resolve().parents[1]
SETS = ("nyud", "pascalcontext", "siftflow", "voc")
FAMILY = sorted(path.parent.name for s in SETS for path in ROOT.glob(f"nets/{s}-fcn*/net.py"))
WIDTH = 1 / 16
SMALLEST = ("nyud-fcn32s-hha", "voc-fcn32s-fixed")
# The generators import from `nets`, which this makes importable.
runpy.run_path(str(ROOT / "tools" / "nets.py"))


# What runs a few times is not worth the time that making it fast takes.
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    tiny_sets.write_all(root)
    return root


def narrow_copy(name: str) -> None:
    """The net's prototxts and its solver, whose rate is one that shows after one step."""
    generate = runpy.run_path(str(ROOT / "nets" / name / "net.py"))["net"]
    folder = Path("nets") / name
    folder.mkdir(parents=True)
    for phase in ("train", "val"):
        text = write(generate(phase, WIDTH).to_proto())
        # Random fillers are compiled for each shape; `drawn` is not.
        (folder / f"{phase}.prototxt").write_text(re.sub("msra|xavier", "constant", text))
    solver = (ROOT / "solvers" / f"{name}.prototxt").read_text()
    solver = re.sub("base_lr: .*", "base_lr: 1e-4\nrandom_seed: 3", solver)
    Path(f"{name}.prototxt").write_text(re.sub("iter_size: .*", "", solver))


def drawn(net: Net) -> dict[ParamKey, Array]:
    """Weights that keep a signal's size, for scores too: from zeros no gradient would go on."""
    normal = np.random.default_rng(1).standard_normal
    shapes = {key: blob.shape for key, blob in net.shapes.params.items()}
    return {
        key: jnp.asarray(normal(shape) * np.sqrt(2 / np.prod(shape[1:])), jnp.float32)
        for key, shape in shapes.items()
        if key.blob == "weight" and not key.layer.startswith(("upscore", "scale"))
    }


def is_frozen(name: str, key: ParamKey) -> bool:
    """Upsampling and scales are, and all but the scores where these alone learn."""
    if name == "voc-fcn32s-fixed":
        return key.layer != "score_fr"
    return key.layer.startswith(("upscore", "scale"))


@pytest.mark.parametrize(
    "name",
    [name if name in SMALLEST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILY],
)
def test_a_narrow_copy_takes_a_step(name: str, sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sets)
    narrow_copy(name)
    solver = Solver.from_file(f"{name}.prototxt")
    solver.net.assign(drawn(solver.net))
    before = {key: np.array(array) for key, array in solver.net.arrays().items()}
    solver.step(1)
    [tested] = solver.tests.feeds
    assert {shape[2:] for shape in tested.tops.values()} == {tiny_sets.SIZE}
    solver.close()
    losses = {blob: float(top) for blob, top in solver.outputs.items() if blob.startswith("loss")}
    assert losses.keys() == ({"loss", "loss_geo"} if name.startswith("sift") else {"loss"})
    assert all(np.isfinite(loss) and loss > 0 for loss in losses.values())
    after = {key: np.array(array) for key, array in solver.net.arrays().items()}
    assert all(np.isfinite(array).all() for array in after.values())
    unchanged = {key for key in after if np.array_equal(before[key], after[key])}
    assert unchanged == {key for key in after if is_frozen(name, key)}


def fed(net_graph: Graph, size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """Random images and labels for every blob that a data layer feeds."""
    draw = np.random.default_rng(5)
    channels = {"data": 3, "color": 3, "hha": 3, "depth": 1}
    return {
        name: (50 * draw.standard_normal((1, channels[name], *size))).astype(np.float32)
        if name in channels
        else draw.choice([0, 1, 2, 255], (1, 1, *size)).astype(np.float32)
        for name in net_graph.fed
    }


def passed(net: Net, batch: Bucketed) -> tuple[Any, Any]:
    """Loss and scores, and the gradients of what the net learns."""
    graph = net.graph
    names = [name for name in graph.blobs if name.startswith("score")]

    def loss(params: Any, feeds: Any, sizes: Any) -> Any:
        given = {graph.first_blobs[name]: array for name, array in feeds.items()}
        made = run(batch.shapes, params, given, sizes=sizes)
        return made.loss(), {name: made.value(graph.blobs[name]) for name in names}

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, scores), gradients = step(net.arrays(), batch.feeds, batch.sizes)
    return {"loss": value, **{k: batch.cut(k, a) for k, a in scores.items()}}, gradients


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_a_program_of_many_sizes_gives_the_same(name: str, tmp_path: Path) -> None:
    """Loss, scores and gradients of an odd size, to rounding; without dropout, which is drawn."""
    generate = runpy.run_path(str(ROOT / "nets" / name / "net.py"))["net"]
    text = write(generate("train", WIDTH).to_proto())
    path = tmp_path / "train.prototxt"
    path.write_text(re.sub("msra|xavier", "constant", text))
    graph = read_graph(path, "train")
    net = compile_net(graph, {k: a.shape for k, a in fed(graph, (48, 64)).items()})
    net.assign(drawn(net))
    for node in graph.nodes:
        node.layer.phase = TEST
    batch = SizeBuckets(net).bucket(fed(graph, ODD))
    assert batch.shapes.values != batch.exact.values
    (found, gradients), (expected, exact) = passed(net, batch), passed(net, batch.unpadded)
    for got, want in ((found, expected), (gradients, exact)):
        for key, array in want.items():
            scale = max(float(jnp.abs(array).max()), 1e-30)
            assert float(jnp.abs(got[key] - array).max()) <= 1e-5 * scale, key
