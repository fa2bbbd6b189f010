from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netspec import caffe
from netspec.errors import SourceError
from netspec.proto.layers_pb2 import BlobProto

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10


def test_images(tmp_path: Path) -> None:
    for name, array in (("rgba", PIXELS), ("rgb", PIXELS[:, :, :3]), ("grey", PIXELS[:, :, 0])):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    expected = (PIXELS[:, :, :3] / 255).astype(np.float32)
    for name in ("rgba", "rgb"):
        found = caffe.io.load_image(str(tmp_path / f"{name}.png"))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    grey = caffe.io.load_image(str(tmp_path / "grey.png"))
    np.testing.assert_array_equal(grey, expected[:, :, [0, 0, 0]])
    grey = caffe.io.load_image(str(tmp_path / "grey.png"), color=False)
    np.testing.assert_allclose(grey, expected[:, :, :1], rtol=1e-6)
    red, green, blue = expected.transpose(2, 0, 1)
    np.testing.assert_allclose(
        caffe.io.load_image(str(tmp_path / "rgb.png"), color=False)[:, :, 0],
        0.2125 * red + 0.7154 * green + 0.0721 * blue,
        rtol=1e-6,
    )
    with pytest.raises(SourceError, match=r"nil\.png: no such file"):
        caffe.io.load_image("nil.png")


def test_blobs() -> None:
    array = np.arange(6.0).reshape(1, 2, 3)
    blob = caffe.io.array_to_blobproto(array, -array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), -array)
    older = BlobProto(num=1, channels=2, height=3, width=1, data=range(6))
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(older), array.reshape(1, 2, 3, 1))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_datums(kind: type) -> None:
    image = PIXELS.astype(kind)
    datum = caffe.io.array_to_datum(image, 7)
    assert datum.label == 7
    assert bool(datum.data) == (kind is np.uint8)
    np.testing.assert_array_equal(caffe.io.datum_to_array(datum), image)
    assert not caffe.io.array_to_datum(image).HasField("label")
    with pytest.raises(ValueError, match=r"^2 axes; a Datum has channels, height and width$"):
        caffe.io.array_to_datum(image[0])
