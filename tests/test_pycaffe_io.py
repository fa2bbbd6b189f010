"""pycaffe's helpers around a net: images in, windows, pictures of nets, coordinates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from netspec import caffe
from netspec.caffe.coord_map import coord_map_from_to, crop
from netspec.errors import NetSpecError

DRAW = np.random.default_rng(0)
MEANS = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 3 dim: 3 dim: 4 dim: 4 } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "mean" top: "prob"
  inner_product_param { num_output: 3 bias_term: false } }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A net that gives each image's mean colour."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(MEANS)
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = np.eye(3)
    net.save("net.caffemodel")
    return tmp_path


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# Images


RAMP = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 2, 3), np.float32)


def test_resize_image() -> None:
    # Means of pixels where it shrinks by two.
    close(caffe.io.resize_image(RAMP, (2, 2))[:, 0, 0], [0.5, 2.5])
    # Beyond the edge lies the darkest value.
    grown = caffe.io.resize_image(RAMP, (8, 2))
    close(grown[:, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 0.75 * 3])
    assert grown.dtype == np.float32
    # Other channels: corners stay.
    close(caffe.io.resize_image(RAMP[:, :, :2], (7, 2))[:, 0, 0], np.arange(7) / 2)
    assert (caffe.io.resize_image(np.full((2, 3, 3), 7), (5, 4)) == np.full((5, 4, 3), 7)).all()
    close(caffe.io.resize_image(RAMP, (8, 2), interp_order=0)[:, 0, 0], np.arange(8) // 2)


def test_oversample() -> None:
    image = DRAW.random((5, 7, 3))
    crops = caffe.io.oversample([image, -image], (4, 3))
    assert crops.shape == (20, 4, 3, 3)
    corners = [image[:4, :3], image[:4, 4:], image[1:, :3], image[1:, 4:], image[:4, 2:5]]
    for i, corner in enumerate(corners):
        close(crops[i], corner)
        close(crops[5 + i], corner[:, ::-1])
        close(crops[10 + i], -corner)


def test_blob_vectors() -> None:
    arrays = [DRAW.random((2, 3)), np.arange(5.0)]
    found = caffe.io.blobprotovector_str_to_arraylist(
        caffe.io.arraylist_to_blobprotovector_str(arrays)
    )
    for got, want in zip(found, arrays, strict=True):
        close(got, want)
    assert caffe.io.caffe_pb2 is caffe.proto.caffe_pb2


def transformer() -> caffe.io.Transformer:
    made = caffe.io.Transformer({"data": (1, 3, 4, 4)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([1.0, 2.0, 3.0]))
    made.set_input_scale("data", 0.5)
    return made


def test_transformer() -> None:
    image = DRAW.random((4, 4, 3)).astype(np.float32)
    kept = image.copy()
    row = transformer().preprocess("data", image)
    bgr = image[:, :, ::-1].transpose(2, 0, 1)
    close(row, (255 * bgr - np.array([1, 2, 3]).reshape(3, 1, 1)) / 2)
    assert row.dtype == np.float32
    assert np.array_equal(image, kept)
    close(transformer().deprocess("data", row), image)
    assert transformer().preprocess("data", DRAW.random((8, 5, 3))).shape == (3, 4, 4)


def test_means_of_another_size_are_resized() -> None:
    made = caffe.io.Transformer({"x": (1, 3, 2, 2)})
    mean = RAMP[:, :, :].transpose(2, 0, 1)
    made.set_mean("x", mean)
    close(made.mean["x"][0, :, 0], [0.5, 2.5])


MISTAKES: dict[str, tuple[tuple[Any, ...], str]] = {
    "set_raw_scale": (("date", 1), "date is not one of the net's inputs: data"),
    "set_transpose": (("data", (1, 0)), "2 axes to transpose; a row of data has 3"),
    "set_channel_swap": (("data", (1, 0)), "2 channels to swap; data has 3"),
    "set_mean": (("data", np.zeros(2)), "the mean has 2 channels; data has 3"),
}


@pytest.mark.parametrize("method", MISTAKES)
def test_settings_that_do_not_fit(method: str) -> None:
    arguments, message = MISTAKES[method]
    with pytest.raises(ValueError, match=f"^{message}$"):
        getattr(transformer(), method)(*arguments)


# Nets of images


def test_classifier() -> None:
    net = caffe.Classifier(
        "net.prototxt", "net.caffemodel", image_dims=(6, 6), raw_scale=10, channel_swap=(2, 1, 0)
    )
    images = [DRAW.random((6, 6, 3)).astype(np.float32) for _ in range(2)]
    central = [10 * image[1:5, 1:5, ::-1].mean((0, 1)) for image in images]
    close(net.predict(images, oversample=False), central)
    crops = caffe.io.oversample(images, (4, 4)).reshape(2, 10, 16, 3)
    close(net.predict(images), 10 * crops.mean((1, 2))[:, ::-1])
    assert isinstance(net, caffe.Net)
    assert net.predict([DRAW.random((9, 5, 3))]).shape == (1, 3)


def test_detector() -> None:
    pixels = DRAW.integers(0, 256, (12, 10, 3), np.uint8)
    for name in "ab":
        Image.fromarray(pixels).save(f"{name}.png")
    net = caffe.Detector("net.prototxt", "net.caffemodel", raw_scale=255)
    windows = np.array([(2, 1, 6, 5), (0, 0, 8, 8)])
    found = net.detect_windows([("a.png", windows[:1]), ("b.png", windows)])
    assert [(one["filename"], *one["window"]) for one in found] == [
        ("a.png", 2, 1, 6, 5),
        ("b.png", 2, 1, 6, 5),
        ("b.png", 0, 0, 8, 8),
    ]
    close(found[0]["prediction"], pixels[2:6, 1:5].mean((0, 1)))
    close(found[1]["prediction"], found[0]["prediction"])
    close(found[2]["prediction"], pixels[:8, :8].mean((0, 1)))
    with pytest.raises(ImportError, match="selective_search_ijcv_with_python"):
        net.detect_selective_search(["a.png"])


def test_context_of_a_window_is_the_mean_beyond_the_edge() -> None:
    net = caffe.Detector(
        "net.prototxt",
        "net.caffemodel",
        mean=np.array([2.0, 4.0, 6.0]),
        raw_scale=2,
        channel_swap=(2, 1, 0),
        context_pad=1,
    )
    image = np.full((8, 8, 3), 9, np.float32)
    # Windows grow to twice their size.
    inside = net.crop(image, (3, 3, 4, 4))
    assert inside.shape == (4, 4, 3)
    assert (inside == 9).all()
    corner = net.crop(image, (0, 0, 3, 3))
    assert (corner[0] == [3, 2, 1]).all()
    assert (corner[:, 0] == [3, 2, 1]).all()
    assert (corner[1:, 1:] == 9).all()


# Pictures and coordinates


def message() -> Any:
    net = caffe.proto.caffe_pb2.NetParameter()
    text_format.Merge(MEANS, net)
    return net


@pytest.mark.differs("draw")
@pytest.mark.parametrize(("ext", "head"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("dot", b"digr")])
def test_draw(ext: str, head: bytes) -> None:
    picture = caffe.draw.draw_net(message(), "LR", ext)
    assert picture.startswith(head)
    caffe.draw.draw_net_to_file(message(), f"net.{ext}", "TB", caffe.TEST)
    assert Path(f"net.{ext}").read_bytes().startswith(head)


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(NetSpecError, match=r'^cannot draw "gif"; there are svg, png, dot$'):
        caffe.draw.draw_net(message(), ext="gif")


def stack(kernel: int = 2, **deconv: Any) -> tuple[Any, Any]:
    """An image halved, and doubled again."""
    data = caffe.layers.Input(shape={"dim": [1, 3, 20, 24]})
    pool = caffe.layers.Pooling(data, kernel_size=kernel, stride=2, pool=caffe.params.Pooling.MAX)
    return data, caffe.layers.Deconvolution(pool, num_output=3, kernel_size=4, stride=2, **deconv)


def test_coordinates() -> None:
    data, up = stack()
    assert coord_map_from_to(up, data) == (1, 1.0, -1.0)
    assert list(crop(up, data).fn.spec.crop_param.offset) == [1]
    _, padded = stack(pad=[1, 0])
    axis, a, b = coord_map_from_to(*stack(pad=[1, 0])[::-1])
    assert axis == 1
    assert np.array_equal(a, [1, 1])
    assert np.array_equal(b, [0, -1])
    with pytest.raises(RuntimeError, match="no common ancestor"):
        coord_map_from_to(padded, data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": 3}, "is no whole number of pixels"),
        ({"pad": 3}, "is negative, the first begins inside the second"),
    ],
)
def test_what_cannot_be_cropped(settings: dict[str, Any], message: str) -> None:
    data, up = stack(**settings)
    with pytest.raises(AssertionError, match=message):
        crop(up, data)


def test_a_bottom_that_is_no_top() -> None:
    with pytest.raises(TypeError, match=r"^Silence input 1 is not a Top \(type is .*'int'>\)$"):
        caffe.layers.Silence(stack()[0], 3, ntop=0)
