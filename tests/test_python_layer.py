"""Layers without bottoms that users write in Python, as they write them for pycaffe."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netspec import caffe
from netspec.errors import SourceError
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Source, open_source
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed
from netspec.sources.readers.python_layer import PythonReader
from netspec.sources.sets.pascal_voc import VOCSegData

MODULE = '''
import caffe
import caffe.io
import caffe.proto.caffe_pb2
import numpy as np
import os
import random

from caffe import TRAIN
from caffe.io import load_image


class Segments(caffe.Layer):
    """As the published layers are written: reshape reads, forward hands out and draws anew."""

    def setup(self, bottom, top):
        params = eval(self.param_str)
        self.random = params.get("randomize", True)
        self.count = params["count"]
        if len(top) != 2:
            raise Exception("Need to define two tops: data and label.")
        if len(bottom) != 0:
            raise Exception("Do not define a bottom.")
        self.idx = 0
        if self.random:
            random.seed(params.get("seed"))
            self.idx = random.randint(0, self.count - 1)

    def reshape(self, bottom, top):
        self.data = np.full((3, 4 + self.idx, 5), self.idx)
        self.label = np.full((1, 4 + self.idx, 5), self.idx % 2)
        top[0].reshape(1, *self.data.shape)
        top[1].reshape(1, *self.label.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.data
        top[1].data[...] = self.label
        if self.random:
            self.idx = random.randint(0, self.count - 1)
        else:
            self.idx = (self.idx + 1) % self.count

    def backward(self, top, propagate_down, bottom):
        pass


class Drawn(caffe.Layer):
    """Shapes in forward, and random numbers of both kinds without a seed."""

    def setup(self, bottom, top):
        self.calls = []

    def reshape(self, bottom, top):
        self.calls.append("reshape")

    def forward(self, bottom, top):
        self.calls.append("forward")
        top[0].reshape(random.randint(1, 9))
        top[0].data[...] = np.random.rand(*top[0].shape)


class Resumable(Drawn):
    batches = 7

    def setup(self, bottom, top):
        self.count = 0
        self.made = 0

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.count += 1
        self.made += 1
        top[0].reshape(3)
        top[0].data[...] = self.count, random.random(), np.random.randn()

    def state(self):
        return {"count": np.int64(self.count) if self.param_str == "no JSON" else self.count}

    def restore(self, state):
        self.count = state["count"]


class Phase(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape()

    def forward(self, bottom, top):
        top[0].data[()] = self.phase + 10 * (self.phase == TRAIN)


class Careless(caffe.Layer):
    def setup(self, bottom, top):
        self.at("setup")
        if self.param_str == "learns":
            self.blobs.add_blob(3)

    def reshape(self, bottom, top):
        self.at("reshape")
        if self.param_str == "float":
            top[0].reshape(2.0)
        if self.param_str != "shapeless":
            top[0].reshape(2)

    def forward(self, bottom, top):
        self.at("forward")
        if self.param_str == "text":
            top[0].data[...] = "red"
        if self.param_str == "misfit":
            top[0].data[...] = np.zeros(5)
        if self.param_str == "replaces":
            top[0].data = np.zeros(2)
        if self.param_str == "early":
            top[1].data[...] = 0

    def at(self, step):
        if self.param_str == step:
            raise ValueError("seven is no colour")
        if self.param_str == "exits":
            raise SystemExit("no data")
'''
LINES = MODULE.splitlines()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with feeders.py in it."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("feeders.py").write_text(MODULE)
    yield tmp_path
    for name in {"feeders", "voc_layers", "her.feeders", "her"} & (set(sys.modules) - before):
        del sys.modules[name]


def layer(name: str, param: object = "", tops: str = "x", module: str = "feeders") -> str:
    named = " ".join(f'top: "{top}"' for top in tops.split())
    return (
        f'layer {{ name: "d" type: "Python" {named}\n  python_param {{ module: "{module}" '
        f'layer: "{name}" param_str: {json.dumps(str(param))} }} }}'
    )


def opened(text: str, seed: int | None = 7, file: str = "net.prototxt") -> Source:
    net = parse_net(text, file)
    return open_source(net.message.layer[0], TEST, seed, net.places[0])


def segments(seed: int | None = 7, **settings: object) -> Source:
    return opened(layer("Segments", {"count": 5, **settings}, "data label"), seed)


def seen(source: Source, count: int) -> list[int]:
    """The indices of the samples that come next."""
    return [int(source.next()["data"][0, 0, 0, 0]) for _ in range(count)]


def test_a_published_layer_feeds_samples_of_many_sizes(folder: Path) -> None:
    source = segments(randomize=False)
    assert source.describe() == f"feeders.Segments of {folder}/feeders.py, seed 7"
    for i in (0, 1, 2, 3, 4, 0):
        assert source.tops == {"data": (1, 3, 4 + i, 5), "label": (1, 1, 4 + i, 5)}
        batch = source.next()
        assert {name: array.shape for name, array in batch.items()} == {
            "data": (1, 3, 4 + i, 5),
            "label": (1, 1, 4 + i, 5),
        }
        for array, value in zip(batch.values(), (i, i % 2), strict=True):
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert (array == value).all()
    assert source.current == "batch 6 of feeders.Segments"
    # A batch is its taker's own.
    first, second = segments(count=1).next(), segments(count=1).next()
    first["data"][...] = 9
    assert (second["data"] == 0).all()


def test_the_order_is_that_of_pycaffe() -> None:
    generator = random.Random(1337)
    expected = [generator.randint(0, 4) for _ in range(20)]
    text = layer("Segments", {"count": 5, "seed": 1337}, "data label")
    assert seen(opened(text), 20) == expected
    # The solver's seed where the layer has none.
    assert seen(segments(1337), 20) == expected


def test_reshape_comes_before_each_forward() -> None:
    source = opened(layer("Drawn"))
    source.next()
    source.next()
    assert isinstance(source, PythonReader)
    # Once more when the net is built.
    assert source._object.calls == ["reshape", *["reshape", "forward"] * 2]


def drawn(source: Source, count: int) -> list[list[float]]:
    return [source.next()["x"].tolist() for _ in range(count)]


@pytest.mark.differs("python-generators")
def test_random_numbers_are_the_layers_own() -> None:
    expected = drawn(opened(layer("Drawn")), 5)
    assert drawn(opened(layer("Drawn"), seed=8), 5) != expected
    random.seed(3)
    np.random.seed(3)
    outside = random.random(), np.random.rand()
    random.seed(3)
    np.random.seed(3)
    one, other = opened(layer("Drawn")), opened(layer("Drawn"))
    mixed = [drawn(source, 1)[0] for _ in range(5) for source in (one, other)]
    assert mixed == [batch for batch in expected for _ in range(2)]
    assert (random.random(), np.random.rand()) == outside


@pytest.mark.parametrize("name", ["Segments", "Drawn", "Resumable"])
@pytest.mark.parametrize("taken", [0, 1, 6])
@pytest.mark.parametrize("peeks", [False, True])
def test_it_goes_on_where_its_state_was_taken(name: str, taken: int, peeks: bool) -> None:
    text = layer(name, {"count": 5}, "data label" if name == "Segments" else "x")

    def take(source: Source, count: int) -> list[list[float]]:
        return [next(iter(source.next().values())).ravel().tolist() for _ in range(count)]

    source = opened(text, None)
    take(source, taken)
    if peeks:
        _ = source.tops
    state = json.loads(json.dumps(source.state()))
    expected = take(source, 6)
    other = opened(text, None)
    take(other, 2)
    other.restore(state)
    assert take(other, 6) == expected
    assert other.state() == source.state()


def test_a_class_with_a_state_goes_on_at_once() -> None:
    source = opened(layer("Resumable"))
    drawn(source, 20)
    other = opened(layer("Resumable"))
    other.restore(source.state())
    assert other.next()["x"][0] == 21
    assert isinstance(other, PythonReader)
    assert other._object.made == 1
    with pytest.raises(SourceError, match=r'"d" \(Python\): the state is another source\'s: it ha'):
        other.restore(opened(layer("Drawn")).state())


def test_how_many_batches_there_are() -> None:
    assert opened(layer("Resumable")).batches == 7
    with pytest.raises(
        SourceError,
        match=r'^net\.prototxt:1: layer "d" \(Python\): feeders\.Drawn does not say how many bat'
        r"ches it has: say how many to run \(--iterations\), or give the class an attribute "
        r"batches$",
    ):
        _ = opened(layer("Drawn")).batches


def test_the_phase_through_pycaffes_face() -> None:
    Path("net.prototxt").write_text("force_backward: true\n" + layer("Phase", tops="phase"))
    for phase, value in ((caffe.TRAIN, 10), (caffe.TEST, 1)):
        net = caffe.Net("net.prototxt", phase)
        assert net.forward()["phase"] == value


def test_it_runs_ahead_of_a_net() -> None:
    Path("net.prototxt").write_text(
        layer("Segments", {"count": 5, "randomize": False}, "data label")
        + 'layer { name: "p" type: "Pooling" bottom: "data" top: "p"'
        " pooling_param { global_pooling: true } }"
    )
    connected = read_graph("net.prototxt")
    with Feed(connected) as feed:
        net = compile_net(connected, feed.tops)
        for i in (0, 1, 2):
            blobs = net.forward(feed.next(net.shapes))
            assert blobs["p"].ravel().tolist() == [i] * 3
        assert feed.current == "batch 3 of feeders.Segments"


def line(text: str, nth: int = 1) -> int:
    """Where a line of feeders.py stands."""
    return [i for i, each in enumerate(LINES, 1) if text in each][nth - 1]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("setup", "setup: ValueError: seven is no colour (HERE:{raise})"),
        ("reshape", "reshape: ValueError: seven is no colour (HERE:{raise})"),
        ("forward", "forward: ValueError: seven is no colour (HERE:{raise})"),
        ("exits", "setup: SystemExit: no data (HERE:{exit})"),
        ("text", "forward: ValueError: could not convert string to float: 'red' (HERE:{text})"),
        (
            "misfit",
            "forward: ValueError: could not broadcast input array from shape (5,) into shape (2,) "
            "(HERE:{misfit})",
        ),
        (
            "replaces",
            "forward: AttributeError: property 'data' of 'HostBlob' object has no setter "
            "(HERE:{replaces})",
        ),
        (
            "float",
            "reshape: TypeError: 'float' object cannot be interpreted as an integer (HERE:{float})",
        ),
        (
            "early",
            "forward: ValueError: the blob has no shape yet; reshape it first (HERE:{early})",
        ),
    ],
)
def test_mistakes_in_a_users_class(how: str, message: str, folder: Path) -> None:
    lines = {
        "raise": line("raise ValueError"),
        "exit": line("raise SystemExit"),
        "text": line('"red"'),
        "misfit": line("np.zeros(5)"),
        "replaces": line("= np.zeros(2)"),
        "float": line("reshape(2.0)"),
        "early": line("top[1].data[...] = 0"),
    }
    tops = "x y" if how == "early" else "x"
    with pytest.raises(SourceError) as caught:
        opened(layer("Careless", how, tops)).next()
    said = message.format(**lines).replace("HERE", f"{folder}/feeders.py")
    assert str(caught.value) == f'net.prototxt:1: layer "d" (Python): feeders.Careless.{said}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            layer("Careless", "shapeless"),
            'feeders.Careless: top "x" has no shape; reshape it in setup, reshape or forward',
        ),
        (
            layer("Careless", "learns"),
            "feeders.Careless.setup: adds 1 learned blob, but a layer without bottoms only feeds "
            "the net; a Parameter layer learns a blob",
        ),
        (
            layer("Resumable", "no JSON"),
            "feeders.Resumable.state: TypeError: Object of type int64 is not JSON serializable",
        ),
        (layer("Carless"), 'module "feeders" has no class "Carless"; did you mean "Careless"?'),
        (
            layer("A", module="feeder"),
            'no module "feeder" in the current folder, in nets or on PYTHONPATH; it should define '
            "the class A; built in are voc_layers.VOCSegDataLayer, ",
        ),
        (layer(""), "needs python_param { layer: ... }"),
        (
            layer("A", module="her.feeders"),
            'no module "her.feeders" in the current folder, in nets or on PYTHONPATH',
        ),
    ],
)
def test_layers_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        opened(text, file="nets/net.prototxt")
    assert str(caught.value).startswith(f'nets/net.prototxt:1: layer "d" (Python): {message}')


@pytest.mark.parametrize("how", ["raise KeyError('seven')", "exit('seven')"])
def test_an_error_on_the_way_arrives_with_its_place(how: str, folder: Path) -> None:
    Path("feeders.py").write_text(
        MODULE.replace("self.made += 1", f"self.made += 1\n        if self.made > 3: {how}")
    )
    Path("net.prototxt").write_text(layer("Resumable"))
    with Feed(read_graph("net.prototxt")) as feed:
        for _ in range(3):
            feed.next()
        for _ in range(2):
            with pytest.raises(
                SourceError,
                match=r'^net\.prototxt:1: layer "d" \(Python\): feeders\.Resumable\.forward: '
                rf"\w+: '?seven'? \({folder}/feeders\.py:{line('self.made += 1') + 1}\)$",
            ):
                feed.next()


# Whose module it is


@pytest.fixture
def voc(folder: Path) -> str:
    """A layer of a name that netspec has its own class for, and the set that it reads."""
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / "voc" / name).mkdir(parents=True)
    (folder / "voc/ImageSets/Segmentation/val.txt").write_text("a\n")
    for name in ("JPEGImages", "SegmentationClass"):
        Image.new("L", (5, 3)).save(folder / "voc" / name / "a.png")
    settings = {"voc_dir": str(folder / "voc"), "split": "val", "mean": 0, "count": 5}
    return layer("VOCSegDataLayer", settings, "data label", "voc_layers")


OWN = MODULE.replace("class Segments", "class VOCSegDataLayer")


@pytest.mark.parametrize("where", ["here", "nets", "path"])
def test_ones_own_module_goes_before_a_built_in_one(
    where: str, voc: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder if where == "here" else folder / where
    home.mkdir(exist_ok=True)
    (home / "voc_layers.py").write_text(OWN)
    if where == "path":
        monkeypatch.syspath_prepend(home)
    source = opened(voc, file=str(folder / "nets" / "net.prototxt"))
    assert source.describe() == f"voc_layers.VOCSegDataLayer of {home}/voc_layers.py, seed 7"
    assert source.tops["label"][1:] == (1, 4 + int(source.next()["data"][0, 0, 0, 0]), 5)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("print 'seven'", "import: SyntaxError: Missing parentheses in call to 'print'"),
        ("import no_such_thing", "import: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("seven = 7", 'module "voc_layers" has no class "VOCSegDataLayer"'),
    ],
)
def test_a_module_that_cannot_be_imported_does_not_go_before(
    module: str, reason: str, voc: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path("voc_layers.py").write_text(module)
    plain = {"voc_dir": "voc", "split": "val", "mean": 0}
    with caplog.at_level("WARNING"):
        source = opened(layer("VOCSegDataLayer", plain, "data label", "voc_layers"))
    assert isinstance(source, VOCSegData)
    (warning,) = caplog.messages
    assert reason in warning
    assert warning.endswith("; netspec's own voc_layers.VOCSegDataLayer is used instead")


def test_built_in_layers_need_no_module(voc: str) -> None:
    Path("voc_layers").mkdir()
    assert isinstance(opened(voc.replace(", 'count': 5", "")), VOCSegData)


def test_an_error_in_ones_own_says_that_it_is_ones_own(voc: str, folder: Path) -> None:
    Path("voc_layers.py").write_text(OWN)
    with pytest.raises(SourceError) as caught:
        opened(voc.replace("'count'", "'counts'"))
    assert str(caught.value) == (
        'net.prototxt:1: layer "d" (Python): voc_layers.VOCSegDataLayer.setup: KeyError: '
        f"'count' ({folder}/voc_layers.py:{line('self.count = params')}); without "
        f"{folder}/voc_layers.py, netspec's own voc_layers.VOCSegDataLayer would be used"
    )
