import runpy
from pathlib import Path

import pytest

from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import read_net, read_solver
from netspec.frontend.shapes import Shapes, infer
from netspec.geometry.receptive_field import receptive_field
from netspec.layers.base import Shape, count
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import REGISTRY
from netspec.sources.sets.settings import read_settings

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared" / "golden" / "nets"
NETS = [path.parent for path in sorted(ROOT.glob("nets/*/net.py"))]
FCNS = [folder for folder in NETS if "fcn" in folder.name]
CLASSIFIERS = [folder for folder in NETS if folder not in FCNS]
# The classifiers that see whole images -> whose.
SMALL = {"lenet": "mnist", "cifar10_quick": "cifar10"}
STAGES = ("shapes-fcn32s", "shapes-fcn16s", "shapes-fcn8s")
CAMVID = ("camvid-fcn32s", "camvid-fcn16s", "camvid-fcn8s")

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


@pytest.mark.parametrize(
    "name",
    [
        "voc-fcn32s",
        "voc-fcn8s",
        "voc-fcn-alexnet",
        "nyud-fcn32s-color-d",
        "siftflow-fcn8s",
        "lenet",
        "cifar10_quick",
    ],
)
def test_nets_are_the_published_ones(name: str) -> None:
    published = PUBLISHED / f"{name}.prototxt"
    if not published.exists():
        pytest.skip("the published nets are not here")
    theirs = [x for x in read_net(published).message.layer if x.type != "Input"]
    ours = read_net(ROOT / "nets" / name / "val.prototxt").message.layer
    assert list(map(facts, ours[1:])) == list(map(facts, theirs))


@pytest.mark.parametrize(
    ("name", "count_of_numbers"),
    [
        ("voc-fcn32s", 136_152_917),
        ("voc-fcn16s", 134_815_994),
        ("voc-fcn8s", 134_489_759),
        ("voc-fcn8s-atonce", 134_490_527),
        ("voc-fcn32s-fixed", 136_152_917),
        ("voc-fcn32s-vgg19", 141_462_613),
        ("voc-fcn32s-googlenet", 7_745_406),
        ("voc-fcn-alexnet", 58_704_590),
    ],
)
def test_sizes(name: str, count_of_numbers: int) -> None:
    shapes = infer(read_graph(ROOT / "nets" / name / "deploy.prototxt"))
    assert sum(count(blob.shape) for blob in shapes.params.values()) == count_of_numbers
    assert shapes["score"] == (1, 21, 500, 500)


# What the paper's first table counts, in millions, is what learns: upsampling is not in it.
@pytest.mark.parametrize(
    ("name", "millions"),
    [("voc-fcn-alexnet", 57), ("voc-fcn32s", 134), ("voc-fcn32s-googlenet", 6)],
)
def test_published_sizes(name: str, millions: int) -> None:
    assert round(sum(map(count, learned_blobs(name).values())) / 1e6) == millions


OUTPUTS = {
    "voc": ((500, 500), {"score": 21}),
    "nyud": ((425, 560), {"score": 40}),
    "siftflow": ((256, 256), {"score_sem": 33, "score_geo": 3}),
    "pascalcontext": ((500, 500), {"score": 60}),
    "shapes": ((96, 128), {"score": 6}),
    "camvid": ((360, 480), {"score": 11}),
}


@pytest.mark.parametrize("folder", FCNS, ids=ids)
def test_classes(folder: Path) -> None:
    size, scores = OUTPUTS[folder.name.split("-")[0]]
    graph = read_graph(folder / "deploy.prototxt")
    shapes = infer(graph)
    expected = {blob: (1, classes, *size) for blob, classes in scores.items()}
    assert {blob: shapes[blob] for blob in graph.outputs} == expected


# What the papers and BVLC's zoo count: 61 M, 138 M, 144 M, 7 M, 25.6 M and 1.25 M. Of ResNet-50
# that is what learns, the bias of conv1 in it, and not the mean and variance that BatchNorm keeps
# of 26560 channels, nor the factor of each of its 53 layers: 53173 numbers more in a .caffemodel.
# Of GoogLeNet it is the deployed net; each auxiliary head has 3189864 more.
@pytest.mark.parametrize(
    ("name", "learned", "heads", "kept"),
    [
        ("lenet", 431_080, 0, 0),
        ("caffenet", 60_965_224, 0, 0),
        ("alexnet", 60_965_224, 0, 0),
        ("cifar10_quick", 145_578, 0, 0),
        ("vgg16", 138_357_544, 0, 0),
        ("vgg19", 143_667_240, 0, 0),
        ("googlenet", 6_998_552, 2 * 3_189_864, 0),
        ("resnet50", 25_557_096, 0, 2 * 26_560 + 53),
        ("squeezenet", 1_248_424, 0, 0),
    ],
)
@pytest.mark.parametrize("phase", ["train", "val", "deploy"])
def test_sizes_of_classifiers(name: str, learned: int, heads: int, kept: int, phase: str) -> None:
    blobs = shapes_of(ROOT / "nets" / name, phase).params.values()
    assert sum(count(blob.shape) for blob in blobs if blob.learned) == (
        learned + (heads if phase != "deploy" else 0)
    )
    assert sum(count(blob.shape) for blob in blobs if not blob.learned) == kept


def shapes_of(folder: Path, phase: str, images: int = 2) -> Shapes:
    """A classifier's shapes for a few images of the size that it is deployed for."""
    deployed = read_net(folder / "deploy.prototxt").message.layer[0].input_param.shape[0]
    given = {"data": (images, *deployed.dim[1:])}
    if phase != "deploy":
        given["label"] = (images,)
    graph = read_graph(folder / f"{phase}.prototxt", "train" if phase == "train" else "test")
    return infer(graph, given)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet", {"conv1": (20, 24, 24), "pool2": (50, 4, 4), "ip1": (500,)}),
        ("cifar10_quick", {"pool1": (32, 16, 16), "pool2": (32, 8, 8), "pool3": (64, 4, 4)}),
        ("vgg19", {"conv3_4": (256, 56, 56), "conv5_4": (512, 14, 14), "pool5": (512, 7, 7)}),
        ("caffenet", {"conv1": (96, 55, 55), "norm2": (256, 13, 13), "pool5": (256, 6, 6)}),
        ("alexnet", {"norm1": (96, 55, 55), "norm2": (256, 27, 27), "pool5": (256, 6, 6)}),
        ("vgg16", {"pool1": (64, 112, 112), "conv5_3": (512, 14, 14), "pool5": (512, 7, 7)}),
        (
            "googlenet",
            {
                "pool2/3x3_s2": (192, 28, 28),
                "inception_3a/output": (256, 28, 28),
                "inception_4e/output": (832, 14, 14),
                "pool5/7x7_s1": (1024, 1, 1),
            },
        ),
        (
            "resnet50",
            {
                "pool1": (64, 56, 56),
                "res2c": (256, 56, 56),
                "res3d": (512, 28, 28),
                "res4f": (1024, 14, 14),
                "res5c": (2048, 7, 7),
                "pool5": (2048, 1, 1),
            },
        ),
        (
            "squeezenet",
            {
                "conv1": (96, 111, 111),
                "fire4/concat": (256, 55, 55),
                "fire9/concat": (512, 13, 13),
                "conv10": (1000, 15, 15),
            },
        ),
    ],
)
def test_shapes_inside_classifiers(name: str, expected: dict[str, tuple[int, ...]]) -> None:
    shapes = shapes_of(ROOT / "nets" / name, "deploy")
    assert {blob: shapes[blob][1:] for blob in expected} == expected


@pytest.mark.parametrize("folder", CLASSIFIERS, ids=ids)
def test_classifiers_end_in_probabilities_or_a_loss(folder: Path) -> None:
    classes = 10 if folder.name in SMALL else 1000
    deployed = shapes_of(folder, "deploy")
    assert count(deployed["prob"][1:]) == classes
    for phase in ("train", "val"):
        shapes = shapes_of(folder, phase)
        losses = [name for name in shapes.by_name if name.split("/")[-1].startswith("loss")]
        heads = ["loss1/loss1", "loss2/loss2", "loss3/loss3"]
        assert losses == (heads if folder.name == "googlenet" else ["loss"])
        assert {shapes[name] for name in losses} == {()}
        graded = [name for name in shapes.by_name if "accuracy" in name or "/top-" in name]
        assert bool(graded) == (phase == "val")


@pytest.mark.parametrize("folder", CLASSIFIERS, ids=ids)
@pytest.mark.parametrize("phase", ["train", "val"])
def test_classifiers_read_images_of_the_size_they_take(folder: Path, phase: str) -> None:
    layer = read_net(folder / f"{phase}.prototxt").message.layer[0]
    deployed = read_net(folder / "deploy.prototxt").message.layer[0].input_param.shape[0]
    assert (layer.type, [*layer.top]) == ("Data", ["data", "label"])
    if folder.name in SMALL:
        split = "test" if phase == "val" else "train"
        assert layer.data_param.source == f"./data/{SMALL[folder.name]}_{split}_lmdb"
        assert layer.transform_param.scale == (1 / 256 if folder.name == "lenet" else 1)
        return
    assert [layer.transform_param.crop_size] * 2 == [*deployed.dim[2:]]
    mirrored = phase == "train" and folder.name != "squeezenet"
    assert layer.transform_param.mirror == mirrored
    assert layer.data_param.source == f"./data/ilsvrc12_{phase}_lmdb"


@pytest.mark.parametrize("folder", FCNS, ids=ids)
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (333, 500), (375, 498)])
def test_scores_are_the_size_of_the_image(folder: Path, size: tuple[int, int]) -> None:
    images = read_net(folder / "deploy.prototxt").message.layer
    channels = {x.name: x.input_param.shape[0].dim[1] for x in images if x.type == "Input"}
    net = read_net(folder / "train.prototxt").message
    given = {top: (1, channels.get(top, 1), *size) for top in net.layer[0].top}
    shapes = infer(read_graph(folder / "train.prototxt", "train"), given)
    losses = [layer for layer in net.layer if layer.type == "SoftmaxWithLoss"]
    assert [layer.bottom[1] for layer in losses] == [top for top in given if top not in channels]
    for layer in losses:
        assert shapes[layer.bottom[0]][2:] == size
        assert shapes[layer.top[0]] == ()


@pytest.mark.parametrize("folder", FCNS, ids=ids)
def test_the_narrow_end_sees_far(folder: Path) -> None:
    graph = read_graph(folder / "deploy.prototxt")
    others = {"voc-fcn-alexnet": 355, "voc-fcn32s-vgg19": 460, "voc-fcn32s-googlenet": 715}
    narrow = dict.fromkeys(STAGES, 246) | dict.fromkeys(CAMVID, 342)
    expected = (others | narrow).get(folder.name, 404)
    scores = [name for name in graph.blobs if name.startswith("score_fr")]
    fields = [receptive_field(graph, name) for name in scores]
    found = {(field.size, field.stride) for field in fields}
    assert found == {((expected, expected), (32, 32))}


def learned_blobs(name: str) -> dict[str, Shape]:
    """What training changes: the array of each -> its shape."""
    shapes = infer(read_graph(ROOT / "nets" / name / "deploy.prototxt"))
    return {
        str(key): shapes.params[key].shape
        for key, spec in shapes.param_specs.items()
        if spec.lr_mult
    }


@pytest.mark.parametrize(
    ("coarse", "fine", "added"),
    [
        ("voc-fcn32s", "voc-fcn16s", ["score_pool4"]),
        ("voc-fcn16s", "voc-fcn8s", ["score_pool3"]),
        ("shapes-fcn32s", "shapes-fcn16s", ["score_pool4"]),
        ("shapes-fcn16s", "shapes-fcn8s", ["score_pool3"]),
        ("siftflow-fcn32s", "siftflow-fcn16s", ["score_pool4_sem", "score_pool4_geo"]),
        ("siftflow-fcn16s", "siftflow-fcn8s", ["score_pool3_sem", "score_pool3_geo"]),
        ("pascalcontext-fcn32s", "pascalcontext-fcn16s", ["score_pool4"]),
        ("pascalcontext-fcn16s", "pascalcontext-fcn8s", ["score_pool3"]),
        (
            "nyud-fcn32s-color-hha",
            "nyud-fcn16s-color-hha",
            ["score_pool4color", "score_pool4hha"],
        ),
    ],
)
def test_a_finer_net_takes_all_that_a_coarser_one_learned(
    coarse: str, fine: str, added: list[str]
) -> None:
    before, after = learned_blobs(coarse), learned_blobs(fine)
    assert before.items() <= after.items()
    new = {f"{layer}.{blob}" for layer in added for blob in ("weight", "bias")}
    assert after.keys() - before.keys() == new


def test_late_fusion_takes_all_that_its_parts_learned() -> None:
    parts = {
        name.replace(".", f"{kind}."): shape
        for kind in ("color", "hha")
        for name, shape in learned_blobs(f"nyud-fcn32s-{kind}").items()
    }
    assert learned_blobs("nyud-fcn32s-color-hha") == parts


@pytest.mark.parametrize("folder", FCNS, ids=ids)
@pytest.mark.parametrize("phase", ["train", "val"])
def test_data_layers_have_settings_that_can_be_read(folder: Path, phase: str) -> None:
    param = read_net(folder / f"{phase}.prototxt").message.layer[0].python_param
    source = REGISTRY[f"{param.module}.{param.layer}"]
    found = read_settings(param.param_str, *source.folders, own=source.required)
    assert found["seed"] == 1337
    if param.module == "voc_layers":
        assert found["mean"] == (104.00699, 116.66877, 122.67892)


@pytest.mark.parametrize("folder", NETS, ids=ids)
def test_each_net_has_a_solver(folder: Path) -> None:
    solver = read_solver(ROOT / "solvers" / f"{folder.name}.prototxt").message
    assert solver.train_net == f"nets/{folder.name}/train.prototxt"
    assert list(solver.test_net) == [f"nets/{folder.name}/val.prototxt"]
    assert solver.snapshot_prefix == f"snapshots/{folder.name}"


@pytest.mark.parametrize("name", ["accum", "online"])
def test_other_regimes_train_the_same_net(name: str) -> None:
    """Of FCN-32s on VOC, under names of their own and for as many images."""
    heavy, other = (
        read_solver(ROOT / "solvers" / f"voc-fcn32s{end}.prototxt").message
        for end in ("", f"-{name}")
    )
    assert (other.train_net, other.test_net) == (heavy.train_net, heavy.test_net)
    assert other.snapshot_prefix == f"snapshots/voc-fcn32s-{name}"
    assert (other.iter_size, other.momentum) == (20 if name == "accum" else 1, pytest.approx(0.9))
    assert other.max_iter * other.iter_size == heavy.max_iter * heavy.iter_size
    assert other.snapshot * other.iter_size == heavy.snapshot * heavy.iter_size
    assert other.weight_decay == heavy.weight_decay


@pytest.mark.parametrize(
    ("name", "rate", "momentum", "images", "normalize"),
    [
        ("voc-fcn32s", 1e-10, 0.99, 1, False),
        ("voc-fcn16s", 1e-12, 0.99, 1, False),
        ("voc-fcn8s", 1e-14, 0.99, 1, False),
        ("voc-fcn8s-atonce", 1e-10, 0.99, 1, False),
        ("voc-fcn32s-fixed", 1e-10, 0.99, 1, False),
        ("voc-fcn32s-vgg19", 1e-10, 0.99, 1, False),
        ("voc-fcn32s-googlenet", 1e-10, 0.99, 1, False),
        ("voc-fcn-alexnet", 1e-4, 0.9, 20, True),
        ("nyud-fcn32s-color", 1e-10, 0.99, 1, False),
        ("nyud-fcn32s-color-d", 1e-10, 0.99, 1, False),
        ("nyud-fcn32s-hha", 1e-10, 0.99, 1, False),
        ("nyud-fcn32s-color-hha", 1e-12, 0.99, 1, False),
        ("nyud-fcn16s-color-hha", 1e-12, 0.99, 1, False),
        ("siftflow-fcn32s", 1e-10, 0.99, 1, False),
        ("siftflow-fcn16s", 1e-12, 0.99, 1, False),
        ("siftflow-fcn8s", 1e-12, 0.99, 1, False),
        ("pascalcontext-fcn32s", 1e-10, 0.99, 1, False),
        ("pascalcontext-fcn16s", 1e-12, 0.99, 1, False),
        ("pascalcontext-fcn8s", 1e-14, 0.99, 1, False),
    ],
)
def test_published_regimes(
    name: str, rate: float, momentum: float, images: int, normalize: bool
) -> None:
    solver = read_solver(ROOT / "solvers" / f"{name}.prototxt").message
    assert (solver.base_lr, solver.momentum) == pytest.approx((rate, momentum), rel=1e-6, abs=0)
    tested = {"voc": 736, "nyud": 654, "siftflow": 200, "pascalcontext": 5105}[name.split("-")[0]]
    assert (solver.iter_size, solver.lr_policy) == (images, "fixed")
    assert list(solver.test_iter) == [tested]
    assert solver.weight_decay == pytest.approx(5e-4)
    layers = read_net(ROOT / "nets" / name / "train.prototxt").message.layer
    losses = [layer.loss_param for layer in layers if layer.type == "SoftmaxWithLoss"]
    assert len(losses) == (2 if name.startswith("siftflow") else 1)
    for loss in losses:
        assert (loss.normalize, loss.ignore_label) == (normalize, 255)


@pytest.mark.parametrize(
    ("name", "rate", "policy", "decay", "images", "tested"),
    [
        ("lenet", 0.01, "inv", 5e-4, 64, 10_000),
        ("cifar10_quick", 0.001, "multistep", 4e-3, 100, 10_000),
        ("caffenet", 0.01, "step", 5e-4, 256, 50_000),
        ("alexnet", 0.01, "step", 5e-4, 256, 50_000),
        ("vgg16", 0.01, "step", 5e-4, 256, 50_000),
        ("vgg19", 0.01, "step", 5e-4, 256, 50_000),
        ("googlenet", 0.01, "step", 2e-4, 32, 50_000),
        ("resnet50", 0.1, "step", 1e-4, 256, 50_000),
        ("squeezenet", 0.04, "poly", 2e-4, 512, 50_000),
    ],
)
def test_published_regimes_of_classifiers(
    name: str, rate: float, policy: str, decay: float, images: int, tested: int
) -> None:
    solver = read_solver(ROOT / "solvers" / f"{name}.prototxt").message
    train, val = (
        read_net(ROOT / "nets" / name / f"{phase}.prototxt").message.layer[0].data_param
        for phase in ("train", "val")
    )
    assert (solver.base_lr, solver.weight_decay) == pytest.approx((rate, decay))
    assert (solver.lr_policy, solver.momentum) == (policy, pytest.approx(0.9))
    assert train.batch_size * solver.iter_size == images
    assert val.batch_size * solver.test_iter[0] == tested
