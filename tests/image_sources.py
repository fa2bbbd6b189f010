"""Databases and lists of images for tests to read."""

import io
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST, Datum
from netspec.sources import Source, open_source

GOLDEN = Path(__file__).parent / "golden" / "data"
FILES = GOLDEN / "files"


Bytes = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _among_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FILES)


def opened(layer: str, phase: int = TEST, seed: int | None = 7) -> Source:
    """The source of a data layer written as prototxt."""
    net = parse_net(layer, "net.prototxt")
    return open_source(net.message.layer[0], phase, seed, net.places[0])


def data(settings: str, transform: str = "", tops: int = 2, **more: Any) -> Source:
    named = " ".join(f'top: "{top}"' for top in ("data", "label")[:tops])
    return opened(
        f'layer {{ name: "d" type: "Data" {named} data_param {{ {settings} }} '
        f"transform_param {{ {transform} }} }}",
        **more,
    )


def images(settings: str, transform: str = "", **more: Any) -> Source:
    return opened(
        f'layer {{ name: "d" type: "ImageData" top: "data" top: "label" '
        f"image_data_param {{ {settings} }} transform_param {{ {transform} }} }}",
        **more,
    )


def write_lmdb(path: Path, *records: Datum | bytes) -> str:
    """An LMDB of these records under the keys 0, 1, ...; returns a ``data_param``'s source."""
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for i, record in enumerate(records):
            value = record if isinstance(record, bytes) else record.SerializeToString()
            transaction.put(b"%d" % i, value)
    environment.close()
    return f'source: "{path}" backend: LMDB'


def datum(image: NDArray[Any], **more: Any) -> Datum:
    channels, height, width = image.shape
    if image.dtype == np.uint8:
        more["data"] = image.tobytes()
    else:
        more["float_data"] = image.ravel().tolist()
    return Datum(channels=channels, height=height, width=width, **{"label": 0, **more})


def encoded(image: NDArray[Any], kind: str = "PNG", **more: Any) -> Datum:
    """An image file of (H, W), or (H, W, 3) in red, green, blue."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return Datum(data=file.getvalue(), encoded=True, **{"label": 0, **more})


def noise(*shape: int) -> Bytes:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


LMDB_ = 'source: "db_lmdb" backend: LMDB batch_size: 3'


def labels_of(source: Source, batches: int) -> list[list[int]]:
    with source:
        return [source.next()["label"].astype(int).tolist() for _ in range(batches)]
