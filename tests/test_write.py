"""`netspec segment`: files, folders and lists in, labels and whatever else is wanted out."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from netspec.build import load
from netspec.cli import main
from netspec.errors import GraphError, SourceError
from netspec.frontend.net_graph import read_graph
from netspec.segmentation.stage_timing import stage_times, stages
from netspec.segmentation.write import Picture, gather, named
from netspec.sources.images.decode import MEAN, preprocess, read_image, read_photo
from netspec.weights.caffemodel import write_weights

NET = """layer { name: "in" type: "Input" top: "data"
  input_param { shape { dim: [1, 3, 12, 16] } } }
layer { name: "conv1_1" type: "Convolution" bottom: "data" top: "conv1_1" convolution_param {
  num_output: 4 kernel_size: 5 stride: 2 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "relu1_1" type: "ReLU" bottom: "conv1_1" top: "conv1_1" }
layer { name: "score_fr" type: "Convolution" bottom: "conv1_1" top: "score_fr" convolution_param {
  num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "up" type: "Deconvolution" bottom: "score_fr" top: "up" convolution_param {
  num_output: 3 kernel_size: 4 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Crop" bottom: "up" bottom: "data" top: "score"
  crop_param { offset: 1 } }
"""
PROB = 'layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A net, its weights, and images: two of the same name, and one that is damaged."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("prob.prototxt").write_text(NET + PROB)
    net = load("net.prototxt", seed=1)
    write_weights("w.caffemodel", net.shapes, net.arrays())
    random = np.random.default_rng(0)
    for name, size in {"a/x.png": (31, 50), "b/x.jpg": (12, 16), "b/c/y.PNG": (9, 8)}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(name)
    Path("bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return tmp_path


def run(*arguments: str) -> tuple[int, list[str], list[str]]:
    result = CliRunner().invoke(main, ["segment", "net.prototxt", "w.caffemodel", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


def labels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


# What is segmented, and where to


def test_files_of_one_name_lie_apart(here: Path) -> None:
    found = named(["a/x.png", "b/x.jpg", "b/c/y.PNG", "a/x.png"])
    assert [(str(path), str(name)) for path, name in found] == [
        ("a/x.png", "a/x"), ("b/x.jpg", "b/x"), ("b/c/y.PNG", "y")
    ]  # fmt: skip


def test_folders_that_hold_files_of_one_name_lie_apart(here: Path) -> None:
    Path("a/x.png").rename("a/x.jpg")
    found = [(str(path), str(name)) for path, name in gather(["a", "b"], "out")]
    assert found == [("a/x.jpg", "a/x"), ("b/c/y.PNG", "b/c/y"), ("b/x.jpg", "b/x")]


def test_grey_of_16_bits_is_as_of_8(here: Path) -> None:
    deep = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 257
    Image.fromarray(deep).save("deep.png")
    Image.fromarray((deep >> 8).astype(np.uint8)).save("grey.png")
    np.testing.assert_array_equal(read_image(Path("deep.png")), read_image(Path("grey.png")))


def test_photos_are_turned_upright(here: Path) -> None:
    """As viewers show them; what nets are trained on is read as it is stored, as by Caffe."""
    image = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(image).save("held.png", exif=turned)
    np.testing.assert_array_equal(read_photo(Path("held.png")), np.rot90(image, -1))
    np.testing.assert_array_equal(read_image(Path("held.png")), image)
    Image.fromarray(np.ascontiguousarray(np.rot90(image, -1))).save("upright.png")
    assert run("held.png", "upright.png")[0] == 0
    for ending in (".png", "_overlay.png"):
        held, upright = (labels(f"segmented/{name}{ending}") for name in ("held", "upright"))
        np.testing.assert_array_equal(held, upright)


@pytest.mark.parametrize(
    ("mode", "pixels", "expected"),
    [
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("LA", (10, 0), (10, 10, 10)),
        ("CMYK", (245, 235, 225, 0), (10, 20, 30)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 0x2345, (0x23, 0x23, 0x23)),
    ],
)
def test_photos_of_all_kinds(
    here: Path, mode: str, pixels: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    Image.new(mode, (3, 2), pixels).save("photo.tif")
    np.testing.assert_array_equal(read_photo(Path("photo.tif")), np.full((2, 3, 3), expected))


def test_floats_are_no_photo(here: Path) -> None:
    Image.fromarray(np.zeros((2, 3), np.float32)).save("depth.tif")
    with pytest.raises(
        SourceError, match=r"^depth\.tif: has 32 bits a pixel in one channel; save "
    ):
        read_photo(Path("depth.tif"))


def test_tiles_are_told(here: Path) -> None:
    assert run("a/x.png", "--tile", "28x20", "--no-overlay")[::2] == (
        0, ["a/x.png: run in 8 tiles (2x4) of 27x20 pixels"]
    )  # fmt: skip
    status, _, said = run("a/x.png", "b/x.jpg", "--tile", "6")
    assert status == 1
    assert [line.partition(";")[0] for line in said] == [
        f"netspec: {name} pixels): tiles of at most 6x6: tiles of {size} pixels are too small: "
        f"{size} scores of each hang on what lies beyond it, and tiles begin at multiples of 2 "
        "pixels"
        for name, size in (("a/x.png (50x31", 5), ("b/x.jpg (16x12", 6))
    ]


def test_folders_are_mirrored_without_the_results(here: Path) -> None:
    status, _, said = run("b", "-o", "b/out")
    assert (status, said) == (0, ["2 programs compiled for images of 2 sizes"])
    found = gather(["b"], "b/out")
    assert found == [
        Picture(Path("b/c/y.PNG"), Path("c/y")), Picture(Path("b/x.jpg"), Path("x"))
    ]  # fmt: skip
    written = sorted(str(path) for path in Path("b/out").rglob("*.png"))
    assert written == [f"b/out/{name}.png" for name in ("c/y", "c/y_overlay", "x", "x_overlay")]


def test_lists_are_looked_for_from_here_and_from_there(here: Path) -> None:
    Path("b/list.txt").write_text("x.jpg\n\na/x.png\nc/y.PNG\n")
    found = gather(["b/list.txt"], "out")
    assert [str(path) for path, _ in found] == ["b/x.jpg", "a/x.png", "b/c/y.PNG"]
    for name, text, message in (
        ("nil.txt", None, "nil.txt: no such file"),
        ("void.txt", "\n", "void.txt: lists no samples"),
        ("void", "", r"void: no images in this folder \(.bmp .gif "),
    ):
        if text is None:
            pass
        elif name == "void":
            Path(name).mkdir()
        else:
            Path(name).write_text(text)
        with pytest.raises(SourceError, match=f"^{message}"):
            gather([name], "out")


def test_a_damaged_image_is_named_and_the_others_go_on(here: Path) -> None:
    status, printed, said = run("a/x.png", "bad.jpg", "nil.png", "b/c/y.PNG", "--no-overlay")
    assert status == 1
    assert printed == ["segmented/x.png", "segmented/y.png"]
    assert re.fullmatch(r"netspec: bad.jpg: damaged, or not an image \(.*\)", said[0])
    assert said[1] == "netspec: nil.png: no such file"


def test_results_are_replaced(here: Path) -> None:
    run("a/x.png", "-o", "out")
    before = Path("out/x.png").read_bytes()
    Path("out/x.png").write_text("something else")
    assert run("a/x.png", "-o", "out")[0] == 0
    assert Path("out/x.png").read_bytes() == before


# What is written


@pytest.mark.parametrize("net", ["net.prototxt", "prob.prototxt"])
def test_probabilities_are_of_each_pixel(here: Path, net: str) -> None:
    """In tiles too, and no Softmax is taken twice."""
    given = ["segment", net, "w.caffemodel", "a/x.png", "--probabilities"]
    for option, folder in (([], "whole"), (["--tile", "24x30"], "tiled")):
        result = CliRunner().invoke(main, [*given, "-o", folder, *option])
        assert result.stdout.splitlines()[-1] == f"{folder}/x_probabilities.npy"
        stored = np.load(f"{folder}/x_probabilities.npy")
        assert (stored.shape, stored.dtype) == ((3, 31, 50), np.float16)
        data = preprocess(read_image(Path("a/x.png")), MEAN)
        scores = load("net.prototxt", "w.caffemodel").forward({"data": data})["score"][0]
        np.testing.assert_allclose(stored, jax.nn.softmax(scores, axis=0), atol=1e-3)
        np.testing.assert_array_equal(labels(f"{folder}/x.png"), scores.argmax(0))


def test_options_reach_the_net(here: Path) -> None:
    run("a/x.png", "-o", "plain")
    run("a/x.png", "-o", "other", "--mean", "0", "--blob", "score")
    data = preprocess(read_image(Path("a/x.png")), 0)
    scores = load("net.prototxt", "w.caffemodel").forward({"data": data})["score"][0]
    np.testing.assert_array_equal(labels("other/x.png"), scores.argmax(0))
    assert (labels("plain/x.png") != labels("other/x.png")).any()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--tile", "0"], "--tile 0: write it as 600, or 480x640 for height and width"),
        (["--tile", "1x2x3"], "--tile 1x2x3: write it as 600, or 480x640 for height and width"),
        (["--mean", "1,2"], "--mean 1,2: write it as 104,117,123"),
        (["--mean", "red"], "--mean red: write it as 104,117,123"),
        (["--blob", "skore"], 'net.prototxt: no blob "skore"; did you mean "score"?'),
    ],
)
def test_options_that_mean_nothing(here: Path, option: list[str], message: str) -> None:
    status, _, said = run("a/x.png", *option)
    assert (status, said) == (1, [f"netspec: {message}"])


# The time it takes


def test_time_is_told_by_stage(here: Path) -> None:
    status, printed, _ = run("a/x.png", "--time")
    assert status == 0
    assert re.fullmatch(r"forward of 1x3x31x50 on .*, stages compiled one by one", printed[2])
    names = [re.split("  +", line)[0] for line in printed[3:]]
    assert names == ["conv1", "score", "upsampling", "sum", "as one program"]
    shares = [float(line.split()[-1].rstrip("%")) for line in printed[3:6]]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_stages_of_the_published_nets() -> None:
    expected = {
        "voc-fcn8s": [*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7", "score", "upsampling"],
        "voc-fcn32s-googlenet": [
            "conv1", "conv2", *(f"inception_{name}" for name in (
                "3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")), "score", "upsampling"
        ],
    }  # fmt: skip
    for name, order in expected.items():
        net = read_graph(Path("nets") / name / "deploy.prototxt")
        found = stages(net, net.blob("score"))
        assert list(dict.fromkeys(found.values())) == order
        assert len(found) == len(net.nodes) - 1


def test_a_net_that_is_not_compiled_has_no_stages(here: Path) -> None:
    filtered = NET.replace('bottom: "data" top: "conv1_1"', 'bottom: "f" top: "conv1_1"').replace(
        'layer { name: "conv1_1"',
        'layer { name: "sel" type: "Input" top: "sel" input_param { shape { dim: 1 } } }\n'
        'layer { name: "f" type: "Filter" bottom: "data" bottom: "sel" top: "f" }\n'
        'layer { name: "conv1_1"',
    )
    Path("filter.prototxt").write_text(filtered)
    feeds = {"data": (1, 3, 12, 16), "sel": (1,)}
    with pytest.raises(
        GraphError, match=r'^filter.prototxt: layer "f" \(Filter\) makes blobs whos'
    ):
        stage_times(load("filter.prototxt"), feeds, "score")
