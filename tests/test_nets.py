import runpy
from pathlib import Path

import pytest

from netspec import build
from netspec.coords import receptive_field
from netspec.layers.base import count
from netspec.proto.layers_pb2 import LayerParameter
from netspec.prototxt import read_net, read_solver
from netspec.shapes import infer
from netspec.sources.segmentation import read_settings

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared" / "golden" / "nets"
NETS = [path.parent for path in sorted(ROOT.glob("nets/*/net.py"))]

UNSET = {"stride": [1], "pad": [0], "dilation": [1]}
regenerate = runpy.run_path(str(ROOT / "tools" / "nets.py"))["prototxts"]


def ids(folder: Path) -> str:
    return folder.name


@pytest.mark.parametrize("folder", NETS, ids=ids)
def test_the_files_are_what_the_generator_writes(folder: Path) -> None:
    written = regenerate(folder)
    assert {path.name for path in written} == {path.name for path in folder.glob("*.prototxt")}
    for path, text in written.items():
        assert path.read_text() == text, f"{path} is stale: run tools/nets.py"


def settings(layer: LayerParameter) -> dict[str, object]:
    """A layer's settings with defaults filled in, but for fillers."""
    found: dict[str, object] = {}
    for field, message in layer.ListFields():
        if field.name.endswith("_param"):
            for sub in message.DESCRIPTOR.fields:
                value = getattr(message, sub.name)
                if hasattr(value, "extend"):
                    value = list(value) or {"stride": [1], "pad": [0], "dilation": [1]}.get(
                        sub.name
                    )
                if "filler" not in sub.name:
                    found[f"{field.name}.{sub.name}"] = value
    return found


def facts(layer: LayerParameter) -> tuple[object, ...]:
    params = [(param.name, param.lr_mult, param.decay_mult) for param in layer.param]
    return layer.name, layer.type, [*layer.bottom], [*layer.top], params, settings(layer)


@pytest.mark.parametrize("name", ["voc-fcn32s", "voc-fcn8s", "voc-fcn-alexnet"])
def test_nets_are_the_published_ones(name: str) -> None:
    published = PUBLISHED / f"{name}.prototxt"
    if not published.exists():
        pytest.skip("the published nets are not here")
    theirs = [x for x in read_net(published).message.layer if x.name not in ("data", "label")]
    ours = read_net(ROOT / "nets" / name / "train.prototxt").message.layer
    assert list(map(facts, ours[1:])) == list(map(facts, theirs))


@pytest.mark.parametrize(
    ("name", "count_of_numbers"),
    [
        ("voc-fcn32s", 136_152_917),
        ("voc-fcn16s", 134_815_994),
        ("voc-fcn8s", 134_489_759),
        ("voc-fcn8s-atonce", 134_490_527),
        ("voc-fcn-alexnet", 58_704_590),
    ],
)
def test_sizes(name: str, count_of_numbers: int) -> None:
    shapes = infer(build.graph(ROOT / "nets" / name / "deploy.prototxt"))
    assert sum(count(blob.shape) for blob in shapes.params.values()) == count_of_numbers
    assert shapes["score"] == (1, 21, 500, 500)


@pytest.mark.parametrize("folder", NETS, ids=ids)
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (333, 500), (375, 498)])
def test_scores_are_the_size_of_the_image(folder: Path, size: tuple[int, int]) -> None:
    graph = build.graph(folder / "train.prototxt", "train")
    shapes = infer(graph, {"data": (1, 3, *size), "label": (1, 1, *size)})
    assert shapes["score"][2:] == size
    assert shapes["loss"] == ()


@pytest.mark.parametrize("folder", NETS, ids=ids)
def test_the_narrow_end_sees_far(folder: Path) -> None:
    graph = build.graph(folder / "deploy.prototxt")
    field = receptive_field(graph, "fc7")
    assert field.stride == (32, 32)
    expected = {"voc-fcn-alexnet": 355, "shapes-fcn8s": 246}.get(folder.name, 404)
    assert field.size == (expected, expected)


@pytest.mark.parametrize("folder", NETS, ids=ids)
@pytest.mark.parametrize("phase", ["train", "val"])
def test_data_layers_have_settings_that_can_be_read(folder: Path, phase: str) -> None:
    param = read_net(folder / f"{phase}.prototxt").message.layer[0].python_param
    key = "sbdd_dir" if param.layer == "SBDDSegDataLayer" else "voc_dir"
    found = read_settings(param.param_str, key)
    assert found["mean"] == (104.00699, 116.66877, 122.67892)
    assert found["seed"] == 1337


@pytest.mark.parametrize("folder", NETS, ids=ids)
def test_each_net_has_a_solver(folder: Path) -> None:
    solver = read_solver(ROOT / "solvers" / f"{folder.name}.prototxt").message
    assert solver.train_net == f"nets/{folder.name}/train.prototxt"
    assert list(solver.test_net) == [f"nets/{folder.name}/val.prototxt"]
    assert solver.snapshot_prefix == f"snapshots/{folder.name}"


@pytest.mark.parametrize(
    ("name", "rate", "momentum", "images", "normalize"),
    [
        ("voc-fcn32s", 1e-10, 0.99, 1, False),
        ("voc-fcn16s", 1e-12, 0.99, 1, False),
        ("voc-fcn8s", 1e-14, 0.99, 1, False),
        ("voc-fcn8s-atonce", 1e-10, 0.99, 1, False),
        ("voc-fcn-alexnet", 1e-4, 0.9, 20, True),
    ],
)
def test_published_regimes(
    name: str, rate: float, momentum: float, images: int, normalize: bool
) -> None:
    solver = read_solver(ROOT / "solvers" / f"{name}.prototxt").message
    assert (solver.base_lr, solver.momentum) == pytest.approx((rate, momentum))
    assert (solver.iter_size, solver.lr_policy, list(solver.test_iter)) == (images, "fixed", [736])
    assert solver.weight_decay == pytest.approx(5e-4)
    loss = read_net(ROOT / "nets" / name / "train.prototxt").message.layer[-1].loss_param
    assert (loss.normalize, loss.ignore_label) == (normalize, 255)
