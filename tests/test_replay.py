"""Cases that are not the project's own, replayed by the script that comes with them."""

import gc
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netspec
from netspec import caffe
from netspec.frontend.prototxt import read_net, write

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
NETS = Path(__file__).resolve().parents[1] / "nets"
TOLERANCE = {"solvers": 1e-4, "real": 1e-4, "nets": 1e-3, "layers": 1e-4, "phase": 0}
# The big nets take minutes: whoever has them runs the script itself.
CASES = [
    ("solvers", "sgd_hdf5"),
    ("real", "lenet"),
    ("real", "sr"),
    ("real", "mtcnn_det1"),
    ("real", "finemap_fp16"),
    ("nets", "lenet"),
    ("nets", "cifar10_quick"),
    ("layers", "ReLU_inplace"),
    ("layers", "shared_params"),
    ("phase", "net"),
]

pytestmark = [
    pytest.mark.skipif(not GOLDEN.is_dir(), reason="the cases are not part of the project"),
    # The script leaves the closing of its files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def replay() -> Iterator[Any]:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("replay", GOLDEN / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_case(replay: Any, kind: str, name: str) -> None:
    base = GOLDEN / kind / name
    errors = getattr(replay, kind)(caffe, str(base))
    worst = max(errors, key=errors.get)
    assert errors[worst] <= TOLERANCE[kind], worst


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick"])
def test_our_nets_compute_what_the_published_ones_do(
    replay: Any, name: str, tmp_path: Path
) -> None:
    """The net of ``nets/``, fed as the published one is, with the same weights."""
    theirs = read_net(GOLDEN / "nets" / f"{name}.prototxt").message
    ours = read_net(NETS / name / "val.prototxt").message
    del ours.layer[0]
    for layer in reversed([layer for layer in theirs.layer if layer.type == "Input"]):
        ours.layer.insert(0, layer)
    (tmp_path / f"{name}.prototxt").write_text(write(ours))
    shutil.copy(GOLDEN / "nets" / f"{name}.npz", tmp_path)
    errors = replay.nets(caffe, str(tmp_path / name))
    worst = max(errors, key=errors.get)
    assert errors[worst] <= TOLERANCE["nets"], worst


def test_a_published_net_reads_handwritten_digits() -> None:
    with np.load(GOLDEN / "real" / "mnist_t10k_first1000.npz") as digits:
        images, labels = digits["images"], digits["labels"]
    lenet = GOLDEN / "real" / "lenet.prototxt"
    net = netspec.load(lenet, lenet.with_suffix(".caffemodel"), shapes={"data": images.shape})
    found = np.argmax(net(data=images / 256)["prob"], axis=1)
    # 99.14 % of all 10,000 digits, by Caffe.
    assert (found == labels).mean() > 0.98
