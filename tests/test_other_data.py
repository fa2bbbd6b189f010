"""DummyData, MemoryData, WindowData and HDF5Output."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import netspec
from netspec import caffe
from netspec.errors import LayerError, NetSpecError
from netspec.formats import protobuf_wire
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST, BlobProto
from netspec.sources import Source, open_source
from netspec.sources.images.resize import resize
from netspec.sources.readers.memory_data import MemoryData

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "data"


def opened(layer: str, seed: int | None = 7) -> Source:
    """The source of a data layer written as prototxt."""
    net = parse_net(layer, "net.prototxt")
    return open_source(net.message.layer[0], TEST, seed, net.places[0])


def raised(act: Callable[[], object]) -> str:
    with pytest.raises(NetSpecError) as caught:
        act()
    return str(caught.value)


def numbers(batch: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in batch.items()}


def goes_on(make: Callable[[int | None], Source], taken: int) -> None:
    """A source that is restored hands out what the one whose state it is would."""
    source = make(None)
    for _ in range(taken):
        source.next()
    state = json.loads(json.dumps(source.state()))
    expected = [numbers(source.next()) for _ in range(3)]
    other = make(None)
    other.next()
    other.restore(state)
    assert [numbers(other.next()) for _ in range(3)] == expected


# DummyData


def dummy(param: str, tops: str = "x", seed: int | None = 7) -> Source:
    named = " ".join(f'top: "{top}"' for top in tops.split())
    return opened(
        f'layer {{ name: "d" type: "DummyData" {named} dummy_data_param {{ {param} }} }}', seed
    )


SHAPES = {
    "shape { dim: 2 dim: 3 }": {"x": (2, 3), "y": (2, 3)},
    "shape { dim: 2 } shape { dim: 3 dim: 5 dim: 7 }": {"x": (2,), "y": (3, 5, 7)},
    "shape { }": {"x": (), "y": ()},
    "num: 2 channels: 3 height: 5 width: 7": {"x": (2, 3, 5, 7), "y": (2, 3, 5, 7)},
    "num: 2 num: 4 channels: 3 height: 5 width: 7 width: 8": {
        "x": (2, 3, 5, 7),
        "y": (4, 3, 5, 8),
    },
}


@pytest.mark.parametrize("param", SHAPES)
def test_dummy_shapes(param: str) -> None:
    source = dummy(param, "x y")
    assert source.tops == SHAPES[param]
    batch = source.next()
    assert {name: array.shape for name, array in batch.items()} == SHAPES[param]
    for array in batch.values():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert not array.any()


# filler -> what holds of 4 x 1000 numbers that it makes.
FILLERS: dict[str, Callable[[NDArray[np.float32]], object]] = {
    'type: "uniform" min: -2 max: 3': lambda x: -2 <= x.min() < -1.9 and 2.9 < x.max() < 3,
    'type: "gaussian" mean: 5 std: 2': lambda x: abs(x.mean() - 5) < 0.2 and 1.9 < x.std() < 2.1,
    'type: "gaussian" std: 1 sparse: 1': lambda x: 0.2 < (x != 0).mean() < 0.3,
    'type: "xavier"': lambda x: 0.054 < x.max() < 0.0548,
    'type: "xavier" variance_norm: FAN_OUT': lambda x: 0.8 < x.max() < 0.867,
    'type: "msra" variance_norm: AVERAGE': lambda x: 0.06 < x.std() < 0.066,
    'type: "positive_unitball"': lambda x: np.allclose(x.sum(1), 1, atol=1e-5),
}


@pytest.mark.parametrize("filler", FILLERS)
def test_dummy_fills_anew_at_each_forward(filler: str) -> None:
    source = dummy(f"shape {{ dim: 4 dim: 1000 }} data_filler {{ {filler} }}")
    first, second = (source.next()["x"] for _ in range(2))
    assert FILLERS[filler](first)
    assert FILLERS[filler](second)
    assert (first != second).any()
    again = dummy(f"shape {{ dim: 4 dim: 1000 }} data_filler {{ {filler} }}")
    np.testing.assert_array_equal(again.next()["x"], first)
    other = dummy(f"shape {{ dim: 4 dim: 1000 }} data_filler {{ {filler} }}", seed=8)
    assert (other.next()["x"] != first).any()


def test_dummy_fills_each_top_its_way() -> None:
    source = dummy(
        'shape { dim: 3 } data_filler { value: 4 } data_filler { type: "uniform" }', "x y"
    )
    assert source.describe() == "DummyData: 2 tops filled with constant, uniform"
    assert source.batches == 1
    first, second = source.next(), source.next()
    assert first["x"].tolist() == second["x"].tolist() == [4, 4, 4]
    assert first["y"].tolist() != second["y"].tolist()
    # What is done to a batch does not reach the next.
    second["x"][:] = 9
    assert source.next()["x"].tolist() == [4, 4, 4]


def test_dummy_fills_no_two_tops_alike() -> None:
    param = 'shape { dim: 3 } data_filler { type: "uniform" }'
    both = dummy(param, "x y").next()
    assert both["x"].tolist() != both["y"].tolist()
    # Not those of another layer either.
    assert dummy(param, "z").next()["z"].tolist() not in numbers(both).values()


def test_dummy_fills_a_kernel() -> None:
    shape = "shape { dim: 2 dim: 1 dim: 4 dim: 4 }"
    batch = dummy(f'{shape} data_filler {{ type: "bilinear" }}').next()
    assert batch["x"][1, 0, 1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_dummy_goes_on_where_its_state_was_taken(taken: int) -> None:
    goes_on(
        lambda seed: dummy('shape { dim: 3 } data_filler { type: "gaussian" }', seed=seed), taken
    )


DUMMY_MISTAKES = {
    "": "0 shape for 2 tops; give one for all, or one for each",
    "shape { dim: 1 } num: 2": "give shape or num, not both",
    "num: 2 channels: 3 height: 5": "0 width for 2 tops; give one for all, or one for each",
    "shape { dim: 1 } data_filler { } data_filler { } data_filler { }": (
        "3 data_filler for 2 tops; give one for all, or one for each"
    ),
    'shape { dim: 1 } data_filler { type: "unifrom" }': (
        'unknown filler "unifrom"; did you mean "uniform"?'
    ),
    'shape { dim: 1 } data_filler { type: "uniform" min: 3 }': "min 3 > max 1",
}


@pytest.mark.parametrize("param", DUMMY_MISTAKES)
def test_dummy_settings_that_cannot_work(param: str) -> None:
    message = raised(lambda: dummy(param, "x y"))
    assert message == f'net.prototxt:1: layer "d" (DummyData): {DUMMY_MISTAKES[param]}'


def test_dummy_feeds_a_net(tmp_path: Path) -> None:
    """As Caffe: ``batch_size`` forwards apart, a constant is what it was."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        """
        layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
          shape { dim: 2 dim: 3 } data_filler { value: 2 } data_filler { type: "gaussian" } } }
        layer { name: "e" type: "Eltwise" bottom: "x" bottom: "y" top: "z"
          eltwise_param { operation: PROD } }
        """
    )
    net = caffe.Net(str(path), caffe.TEST)
    seen = [net.forward()["z"].copy() for _ in range(2)]
    assert (seen[0] != seen[1]).all()
    np.testing.assert_allclose(net.blobs["y"].data * 2, seen[1])


# MemoryData


def memory(param: str = "batch_size: 2 channels: 3 height: 4 width: 5", more: str = "") -> Source:
    return opened(
        f'layer {{ name: "m" type: "MemoryData" top: "data" top: "label" {more} '
        f"memory_data_param {{ {param} }} }}"
    )


def rows(count: int, shape: tuple[int, ...] = (3, 4, 5)) -> NDArray[np.float32]:
    size = (count, *(1 for _ in shape))
    return np.arange(count, dtype=np.float32).reshape(size) * np.ones(shape, np.float32)


def with_arrays(data: Any, labels: Any) -> MemoryData:
    source = memory()
    assert isinstance(source, MemoryData)
    source.set_arrays(data, labels)
    return source


def test_memory_hands_out_rows_in_turn() -> None:
    source = with_arrays(rows(6), np.arange(6))
    assert source.tops == {"data": (2, 3, 4, 5), "label": (2,)}
    assert source.batches == 3
    assert source.describe() == "MemoryData: 6 rows in memory"
    for expected in ([0, 1], [2, 3], [4, 5], [0, 1]):
        batch = source.next()
        assert batch["label"].tolist() == expected
        np.testing.assert_array_equal(batch["data"], rows(6)[expected])
        for array in batch.values():
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
    # New arrays begin with their first row; labels may have the shape that pycaffe gives them.
    source.set_arrays(rows(2) + 7, np.array([8, 9]).reshape(2, 1, 1, 1))
    for _ in range(2):
        batch = source.next()
        assert batch["label"].tolist() == [8, 9]
        assert batch["data"][:, 2, 3, 4].tolist() == [7, 8]


def test_memory_feeds_what_is_written_into_its_arrays() -> None:
    data, labels = rows(2), np.zeros(2, np.float32)
    source = with_arrays(data, labels)
    first = source.next()
    data += 5
    labels += 1
    second = source.next()
    assert (first["data"][1, 0, 0, 0], second["data"][1, 0, 0, 0]) == (1, 6)
    assert (first["label"].tolist(), second["label"].tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_memory_goes_on_where_its_state_was_taken(taken: int) -> None:
    goes_on(lambda seed: with_arrays(rows(6), np.arange(6)), taken)


def test_memory_refuses_the_state_of_other_arrays() -> None:
    state = with_arrays(rows(6), np.arange(6)).state()
    assert "the state is of arrays with 6 rows, but there are 2" in raised(
        lambda: with_arrays(rows(2), np.arange(2)).restore(state)
    )


MEMORY_MISTAKES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: memory().next(),
        "has no arrays yet; hand them in first: net.set_input_arrays(data, labels)",
    ),
    (lambda: memory().batches, "has no arrays yet; hand them in first: net.set_input_arrays(data"),
    (lambda: with_arrays(rows(3), np.zeros(3)), "data has 3 rows; needs a multiple of batch_size"),
    (lambda: with_arrays(rows(0), np.zeros(0)), "data has 0 rows; needs a multiple of batch_size"),
    (lambda: with_arrays(rows(2, (3, 5, 4)), [0, 1]), "data is 2x3x5x4; needs n x 3x4x5"),
    (lambda: with_arrays(rows(2, (60,)), [0, 1]), "data is 2x60; needs n x 3x4x5"),
    (lambda: with_arrays(rows(2), [0, 1, 2]), "labels are 3; data has 2 rows, so they must be 2"),
    (lambda: with_arrays(rows(2), ["a", "b"]), "labels holds <U1 values; numbers expected"),
    (
        lambda: memory("batch_size: 2 channels: 3 height: 4"),
        "batch_size, channels, height and width are 2x3x4x0; all must be positive",
    ),
    (
        lambda: memory(more="transform_param { scale: 2 }"),
        "does not transform arrays: transform_param has no meaning here",
    ),
]


@pytest.mark.parametrize(("act", "message"), MEMORY_MISTAKES)
def test_memory_mistakes(act: Callable[[], object], message: str) -> None:
    assert raised(act).startswith(f'net.prototxt:1: layer "m" (MemoryData): {message}')


MEMORY_NET = """
layer { name: "m" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }
layer { name: "p" type: "Power" bottom: "data" top: "y" power_param { scale: 2 } }
"""


def test_memory_feeds_a_net(tmp_path: Path) -> None:
    """Nothing is read before it is asked for: arrays may come, and be written into, at any time."""
    path = tmp_path / "net.prototxt"
    path.write_text(MEMORY_NET)
    net = caffe.Net(str(path), caffe.TEST)
    message = raised(net.forward)
    assert message.startswith(f'{path}:2: layer "m" (MemoryData): has no arrays yet; hand them in')
    data = rows(4)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    for i in (0, 2, 0):
        assert net.forward()["y"][:, 0, 0, 0].tolist() == [2 * i, 2 * i + 2]
    assert net.blobs["label"].data.tolist() == [0, 1]
    data[2:] = 9
    assert net.forward()["y"][:, 0, 0, 0].tolist() == [18, 18]
    message = raised(lambda: net.set_input_arrays(data[:3], np.zeros(3)))
    assert "data has 3 rows; needs a multiple of batch_size, 2" in message


def test_arrays_for_a_net_that_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(SINK)
    net = caffe.Net(str(path), caffe.TEST)
    assert raised(lambda: net.set_input_arrays(rows(2), np.zeros(2))) == (
        f'{path}:2: layer "in" (Input): set_input_arrays feeds a net whose first layer is a '
        "MemoryData"
    )


# WindowData


PIXELS = np.random.default_rng(3).integers(0, 256, (20, 26, 3), np.uint8)
WINDOWS = """# 0
im0.png
3
20
26
2
1 0.9 2 3 5 6
0 0.1 5 1 8 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with im0.png, 26x20, and a window of either kind, 4x4, in windows.txt."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("im0.png")
    Path("windows.txt").write_text(WINDOWS)
    return tmp_path


def windows(
    param: str = "batch_size: 4", transform: str = "crop_size: 4", seed: int | None = 7
) -> Source:
    source = "" if "source" in param else 'source: "windows.txt"'
    return opened(
        'layer { name: "w" type: "WindowData" top: "x" top: "y" '
        f"transform_param {{ {transform} }} window_data_param {{ {source} {param} }} }}",
        seed,
    )


def shown(left: int, top: int, right: int, bottom: int) -> NDArray[np.float32]:
    """A box of the image, both edges included, as (3, H, W) of blue, green, red."""
    box = PIXELS[top : bottom + 1, left : right + 1, ::-1]
    return box.transpose(2, 0, 1).astype(np.float32)


OBJECT, BACKGROUND = (2, 3, 5, 6), (5, 1, 8, 4)


@pytest.mark.parametrize("cache", ["", "cache_images: true"])
def test_windows_are_cut_out(folder: Path, cache: str) -> None:
    source = windows(f"batch_size: 4 {cache}")
    assert source.tops == {"x": (4, 3, 4, 4), "y": (4,)}
    assert source.batches == 1
    assert source.describe() == (
        "WindowData: 1 background and 1 object windows of 1 image that windows.txt lists"
    )
    if cache:
        Path("im0.png").unlink()
    for _ in range(2):
        batch = source.next()
        # A quarter, by default, are objects, after the background.
        assert batch["y"].tolist() == [0, 0, 0, 1]
        for i, box in enumerate([BACKGROUND] * 3 + [OBJECT]):
            np.testing.assert_array_equal(batch["x"][i], shown(*box))
        assert batch["x"].dtype == np.float32
        assert batch["x"].flags.c_contiguous
    assert source.current == "windows.txt"


@pytest.mark.parametrize(
    ("fraction", "labels"),
    [(0, [0] * 5), (0.2, [0] * 4 + [1]), (0.59, [0] * 3 + [1] * 2), (1, [1] * 5)],
)
def test_windows_of_objects_have_their_share(
    folder: Path, fraction: float, labels: list[int]
) -> None:
    assert windows(f"batch_size: 5 fg_fraction: {fraction}").next()["y"].tolist() == labels


@pytest.mark.parametrize(
    ("thresholds", "kinds"),
    [
        ("", (["2", "3"], ["0", "1"])),
        ("fg_threshold: 0.4", (["1", "2", "3"], ["0"])),
        ("bg_threshold: 0.3", (["2", "3"], ["0"])),
        ("fg_threshold: 0.7 bg_threshold: 0.7", (["3"], ["0", "1", "2"])),
    ],
)
def test_windows_are_sorted_by_overlap(
    folder: Path, thresholds: str, kinds: tuple[list[str], list[str]]
) -> None:
    """Window i lies i pixels from the left and is of class i; background is of class 0."""
    lines = [f"{i or 5} {overlap} {i} 0 {i} 0\n" for i, overlap in enumerate((0, 0.4, 0.5, 0.7))]
    Path("windows.txt").write_text(f"# 0\nim0.png\n3\n20\n26\n{len(lines)}\n{''.join(lines)}")
    source = windows(f"batch_size: 60 fg_fraction: 0.5 {thresholds}", "crop_size: 1")
    batch = source.next()
    red = [int(np.flatnonzero(PIXELS[0, :4, 0] == value)[0]) for value in batch["x"][:, 2, 0, 0]]
    assert {*map(str, red[:30])} == {*kinds[1]}
    assert {*map(str, red[30:])} == {*kinds[0]}
    assert batch["y"].tolist() == [0] * 30 + red[30:]


def test_windows_are_warped(folder: Path) -> None:
    batch = windows("batch_size: 4", "crop_size: 7").next()
    left, top, right, bottom = OBJECT
    warped = resize(PIXELS[top : bottom + 1, left : right + 1, ::-1], 7, 7)
    np.testing.assert_array_equal(batch["x"][3], warped.transpose(2, 0, 1))


def place_of(param: str, box: str, transform: str = "crop_size: 6") -> NDArray[np.float32]:
    """A batch of one object window."""
    Path("windows.txt").write_text(f"# 0\nim0.png\n3\n20\n26\n1\n1 0.9 {box}\n")
    return windows(f"batch_size: 1 fg_fraction: 1 {param}", transform).next()["x"][0]


def test_windows_with_context(folder: Path) -> None:
    """A window of 4 with a pad of 1 in 6: a half more on all sides, 7 pixels, warped to 6."""
    whole = resize(PIXELS[4:11, 9:16, ::-1], 6, 6).transpose(2, 0, 1)
    np.testing.assert_array_equal(place_of("context_pad: 1", "10 5 13 8"), whole)
    # 1 of 7 columns, 1 of 6, is left of the image, and so is 1 row above it.
    inside = resize(PIXELS[:6, :6, ::-1], 5, 5).transpose(2, 0, 1)
    shown = place_of("context_pad: 1", "0 0 3 3")
    np.testing.assert_array_equal(shown[:, 1:, 1:], inside)
    assert not shown[:, 0].any()
    assert not shown[:, :, 0].any()


def test_windows_in_a_square(folder: Path) -> None:
    """2x6 is taken as 6x6, hence 7 pixels, as far as the image reaches; zeros are mirrored too."""
    left, right = (
        place_of('crop_mode: "square"', "10 5 11 10", f"crop_size: 7 mirror: {mirror}")
        for mirror in ("false", "true")
    )
    np.testing.assert_array_equal(left, PIXELS[5:12, 8:15, ::-1].transpose(2, 0, 1))
    assert any((right == each).all() for each in (left, left[:, :, ::-1]))
    seen = set()
    for seed in range(9):
        Path("windows.txt").write_text("# 0\nim0.png\n3\n20\n26\n1\n1 0.9 0 5 1 10\n")
        source = windows(
            'batch_size: 1 fg_fraction: 1 crop_mode: "square"', "crop_size: 7 mirror: true", seed
        )
        (image,) = source.next()["x"]
        expected = np.zeros((3, 7, 7), np.float32)
        expected[:, :, 2:] = PIXELS[5:12, 0:5, ::-1].transpose(2, 0, 1)
        flipped = bool((image == expected[:, :, ::-1]).all())
        assert flipped or (image == expected).all()
        seen.add(flipped)
    assert seen == {False, True}


@pytest.mark.parametrize(
    ("transform", "more", "mean", "scale"),
    [
        ("mean_value: 10", "", [10, 10, 10], 1),
        ("mean_value: 10 mean_value: 20 mean_value: 30", "scale: 0.5", [10, 20, 30], 0.5),
        ("scale: 0.25", "", [0, 0, 0], 0.25),
    ],
)
def test_windows_less_a_mean(
    folder: Path, transform: str, more: str, mean: list[float], scale: float
) -> None:
    batch = windows(f"batch_size: 4 {more}", f"crop_size: 4 {transform}").next()
    expected = (shown(*OBJECT) - np.array(mean, np.float32)[:, None, None]) * scale
    np.testing.assert_array_equal(batch["x"][3], expected)


def write_mean(shape: tuple[int, ...]) -> NDArray[np.float32]:
    mean = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    blob = BlobProto(data=mean.ravel().tolist())
    blob.shape.dim.extend(shape)
    Path("mean.binaryproto").write_bytes(blob.SerializeToString())
    assert protobuf_wire.blob(memoryview(blob.SerializeToString())).array.shape == shape
    return mean


def test_windows_less_a_mean_image(folder: Path) -> None:
    """Of its middle; the rows begin where the columns do. Not where the window does not reach."""
    mean = write_mean((1, 3, 9, 8))[0, :, 2:6, 2:6]
    transform = 'crop_size: 4 mean_file: "mean.binaryproto"'
    batch = windows("batch_size: 4", transform).next()
    np.testing.assert_array_equal(batch["x"][3], shown(*OBJECT) - mean)
    square = place_of('crop_mode: "square"', "-1 5 1 7", transform)
    np.testing.assert_array_equal(square[:, :, 1:], shown(0, 5, 2, 8) - mean[:, :, 1:])
    assert not square[:, :, 0].any()


def test_windows_of_several_images(folder: Path) -> None:
    """``root_folder`` is put before each path as it is; images count by their place in the file."""
    Path("sub").mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(f"sub/x{i}.png")
    blocks = [f"# {i}\n{i}.png\n3\n4\n4\n2\n{i + 1} 1 0 0 3 3\n0 0 0 0 3 3\n\n" for i in range(3)]
    Path("windows.txt").write_text("".join(blocks))
    source = windows('batch_size: 40 fg_fraction: 0.5 root_folder: "sub/x"')
    batch = source.next()
    shade = batch["x"][:, 0, 0, 0]
    assert {*shade[:20]} == {*shade[20:]} == {0, 1, 2}
    np.testing.assert_array_equal(batch["y"][20:], shade[20:] + 1)
    assert source.next()["y"].tolist() != batch["y"].tolist()


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_windows_go_on_where_their_state_was_taken(folder: Path, taken: int) -> None:
    goes_on(lambda seed: windows("batch_size: 4", "crop_size: 4 mirror: true", seed), taken)


def test_windows_refuse_the_state_of_others(folder: Path) -> None:
    state = windows().state()
    Path("windows.txt").write_text(WINDOWS.replace("0 0.1", "1 0.8"))
    message = raised(lambda: windows("batch_size: 1 fg_fraction: 1").restore(state))
    assert message.endswith(
        "the state is of 1 background and 1 object windows, "
        "but windows.txt has 0 background and 2 object windows"
    )


WINDOW_SETTINGS = {
    ('source: ""', "crop_size: 4"): "source must be given: the list of windows",
    ('source: "nil.txt" batch_size: 1', "crop_size: 4"): "source: nil.txt: no such file",
    ('source: "im0.png" batch_size: 1', "crop_size: 4"): "im0.png: not a text file; source lists",
    ("", "crop_size: 4"): "batch_size must be given and positive",
    ("batch_size: 1", ""): "needs transform_param { crop_size: ... }: windows' size",
    ("batch_size: 1 context_pad: 2", "crop_size: 4"): (
        "context_pad 2 on both sides leaves nothing of crop_size 4"
    ),
    ('batch_size: 1 crop_mode: "squares"', "crop_size: 4"): (
        'unknown crop_mode "squares" (warp, square)'
    ),
    ("batch_size: 1 fg_fraction: 1.5", "crop_size: 4"): "fg_fraction 1.5 must lie in 0..1",
    ("batch_size: 1 crop_size: 4", "crop_size: 4"): (
        "crop_size has no effect here; write transform_param { crop_size: ... }"
    ),
    ("batch_size: 1 mirror: true", "crop_size: 4"): "mirror has no effect here",
    ('batch_size: 1 mean_file: "m"', "crop_size: 4"): "mean_file has no effect here",
    ("batch_size: 1", 'crop_size: 4 mean_file: "m" mean_value: 1'): (
        "mean_file and mean_value exclude each other"
    ),
    ("batch_size: 1", "crop_size: 4 force_gray: true"): "force_gray has no meaning here",
    ("batch_size: 1", "crop_size: 4 mean_value: 1 mean_value: 2"): "2 mean_value for 3 channels",
    ("batch_size: 1", 'crop_size: 4 mean_file: "m"'): "mean_file: m: no such file",
    ("batch_size: 1", 'crop_size: 9 mean_file: "mean.binaryproto"'): (
        "mean_file: mean.binaryproto: 3x9x8 (channels, height, width), too small for windows of "
        "3x9x9"
    ),
    ('batch_size: 1 root_folder: "sub/"', "crop_size: 4"): (
        "windows.txt lacks 1 of its 1 file: sub/im0.png"
    ),
}


@pytest.mark.parametrize(("param", "transform"), WINDOW_SETTINGS)
def test_window_settings_that_cannot_work(folder: Path, param: str, transform: str) -> None:
    write_mean((3, 9, 8))
    message = raised(lambda: windows(param, transform))
    expected = WINDOW_SETTINGS[param, transform]
    assert message.startswith(f'net.prototxt:1: layer "w" (WindowData): {expected}')


WINDOW_FILES = {
    ("", ""): "windows.txt: lists no images",
    ("# 0", "0"): 'windows.txt:1: "0" where "# INDEX" of an image should be',
    ("# 0", "# zero"): 'windows.txt:1: "# zero" where "# INDEX" of an image should be',
    ("im0.png\n3", "im0.png\n1"): "windows.txt:3: 1 channels; images are read in color, 3",
    ("\n20\n26", "\n26"): 'windows.txt:6: "1 0.9 2 3 5 6" where the number of windows should be',
    ("\n2\n", "\n3\n"): "windows.txt: ends where a window should be",
    ("\n2\n", "\n1\n"): 'windows.txt:8: "0 0.1 5 1 8 4" where "# INDEX" of an image should be',
    ("0.9 2", "2"): 'windows.txt:7: "1 2 3 5 6" is no window (class overlap x1 y1 x2 y2)',
    ("0.9 2", "0.9 2.5"): 'windows.txt:7: "1 0.9 2.5 3 5 6" is no window (class overlap x1',
    ("2 3 5 6", "2 3 1 6"): "windows.txt:7: window 2 3 1 6 is empty",
    ("1 0.9", "0 0.9"): "windows.txt:7: an object of class 0, which is background's",
    ("0 0.1", "2 0.9"): "windows.txt: has no background windows, but a batch needs 3",
    ("1 0.9", "1 0.1"): "windows.txt: has no object windows, but a batch needs 1",
    ("2 3 5 6", "2 3 26 6"): "im0.png: window 2 3 26 6 lies outside of the image, 26x20",
}


@pytest.mark.parametrize(("old", "new"), WINDOW_FILES)
def test_window_files_that_cannot_work(folder: Path, old: str, new: str) -> None:
    assert old in WINDOWS
    Path("windows.txt").write_text(WINDOWS.replace(old, new) if old else "\n")
    message = raised(windows)
    assert message.startswith(f'net.prototxt:1: layer "w" (WindowData): {WINDOW_FILES[old, new]}')


def test_windows_of_damaged_images(folder: Path) -> None:
    whole = Path("im0.png").read_bytes()
    Path("im0.png").write_bytes(whole[:-30])
    assert '"w" (WindowData): im0.png: damaged, or not an image (' in raised(windows)
    message = raised(lambda: place_of("context_pad: 1", "40 5 43 8"))
    assert "damaged" in message
    Path("im0.png").write_bytes(whole)
    message = raised(lambda: place_of("context_pad: 1", "40 5 43 8"))
    assert message.endswith("im0.png: window 40 5 43 8 lies outside of the image, 26x20")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the window file written for Caffe")
def test_windows_of_a_file_that_caffe_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "files")
    source = windows("batch_size: 8 fg_fraction: 0.25 context_pad: 1", "crop_size: 12")
    assert source.describe() == (
        "WindowData: 3 background and 3 object windows of 3 images that windows.txt lists"
    )
    assert source.next()["y"].tolist()[:6] == [0] * 6


# HDF5Output


SINK = """
layer { name: "in" type: "Input" top: "x" top: "t" input_param {
  shape { dim: 2 dim: 3 dim: 4 dim: 5 } shape { dim: 2 } } }
layer { name: "double" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
layer { name: "out" type: "HDF5Output" bottom: "y" bottom: "t"
  hdf5_output_param { file_name: "sub/rows.h5" } }
"""
X = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
T = np.array([7, 8], np.float32)


def sink(text: str = SINK) -> netspec.Net:
    Path("net.prototxt").write_text(text)
    return netspec.load("net.prototxt")


def stored() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with h5py.File("sub/rows.h5", "r") as file:
        assert sorted(file) == ["data", "label"]
        assert file["data"].dtype == file["label"].dtype == np.float32
        return file["data"][()], file["label"][()]


def test_output_is_written_at_each_forward(folder: Path) -> None:
    net = sink()
    assert not Path("sub").exists()
    for count in (1, 2, 3):
        net(x=X + count, t=T + count)
        data, label = stored()
        assert data.shape == (2 * count, 3, 4, 5)
        # Caffe's blobs have four axes here.
        assert label.shape == (2 * count, 1, 1, 1)
        for i in range(count):
            np.testing.assert_array_equal(data[2 * i : 2 * i + 2], 2 * (X + i + 1))
            assert label.ravel()[2 * i : 2 * i + 2].tolist() == [8 + i, 9 + i]
    # Another number of rows; nothing else lies beside the file.
    net(x=X[:1], t=T[:1])
    assert len(stored()[0]) == 7
    assert [path.name for path in Path("sub").iterdir()] == ["rows.h5"]
    # Another net begins the file anew.
    sink()(x=X, t=T)
    assert len(stored()[0]) == 2


def test_output_inside_jit_and_loops(folder: Path) -> None:
    net = sink()
    run = jax.jit(lambda x: net(x=x, t=T)["y"])
    for i in range(3):
        run(X + i).block_until_ready()
    assert stored()[0][:, 0, 0, 0].tolist() == [0, 120, 2, 122, 4, 124]
    jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, s: s + net(x=X, t=T)["y"].sum(), 0.0))(
        2
    ).block_until_ready()
    assert len(stored()[0]) == 10


def test_output_has_no_gradient(folder: Path) -> None:
    net = sink()
    loss = jax.jit(jax.value_and_grad(lambda x: jnp.sum(net(x=x, t=T)["y"])))
    value, gradient = loss(X)
    assert value == 2 * X.sum()
    np.testing.assert_array_equal(gradient, np.full_like(X, 2))
    assert len(stored()[0]) == 2


def test_output_is_not_written_on_the_way_back(folder: Path) -> None:
    Path("net.prototxt").write_text(f"force_backward: true {SINK}")
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    net.forward()
    net.backward()
    assert len(stored()[0]) == 2


def test_output_of_large_rows(folder: Path) -> None:
    """Large arrays reach the host by another road than small ones."""
    text = SINK.replace("dim: 4 dim: 5", "dim: 1000 dim: 700")
    x = np.ones((2, 3, 1000, 700), np.float32)
    sink(text)(x=x, t=T)
    assert stored()[0].sum() == 2 * x.size


def test_output_that_cannot_be_written(folder: Path) -> None:
    net = sink()
    net(x=X, t=T)
    message = raised(lambda: net(x=X.reshape(2, 3, 5, 4), t=T))
    assert message == (
        'net.prototxt:5: layer "out" (HDF5Output): sub/rows.h5: a row of "data" is 3x4x5, '
        "but now it is 3x5x4"
    )
    # Neither data set has grown; the next rows fit again.
    net(x=X, t=T)
    assert [len(array) for array in stored()] == [4, 4]
    with h5py.File("sub/rows.h5", "w") as file:
        file["data"] = X
    message = raised(lambda: net(x=X, t=T))
    assert message.endswith('no data set "label": another program wrote this file')
    Path("sub/rows.h5").unlink()
    assert raised(lambda: net(x=X, t=T)).endswith("sub/rows.h5: no such file")
    Path("sub").rmdir()
    Path("sub").write_text("a file")
    assert "(HDF5Output): " in raised(lambda: sink()(x=X, t=T))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('file_name: "sub/rows.h5"', "", "file_name must be given"),
        ("shape { dim: 2 } }", "shape { dim: 3 } }", "data has 2 rows, but label has 3"),
        ("shape { dim: 2 } }", "shape { } }", "a bottom is one number; rows expected"),
    ],
)
def test_output_settings_that_cannot_work(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SINK
    with pytest.raises(LayerError, match=re.escape(f'"out" (HDF5Output): {message}')):
        sink(SINK.replace(old, new))


def test_output_is_what_hdf5_data_reads(folder: Path) -> None:
    sink()(x=X, t=T)
    Path("list.txt").write_text("sub/rows.h5\n")
    source = opened(
        'layer { type: "HDF5Data" top: "data" top: "label" '
        'hdf5_data_param { source: "list.txt" batch_size: 2 } }'
    )
    np.testing.assert_array_equal(source.next()["data"], 2 * X)
