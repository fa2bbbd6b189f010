"""The sets of the published FCNs, each in a tiny folder of its true layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import Place, SourceError
from netspec.proto.layers_pb2 import TEST, LayerParameter, PythonParameter
from netspec.sources import Source
from netspec.sources.base import open_source

SIZE = WIDTH, HEIGHT = 5, 3
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


def fed(name: str, settings: Mapping[str, object], tops: int = 2, seed: int | None = 7) -> Source:
    module, layer = name.split(".")
    param = PythonParameter(module=module, layer=layer, param_str=str(dict(settings)))
    names = [f"top{i}" for i in range(tops)]
    spec = LayerParameter(name="data", type="Python", top=names, python_param=param)
    return open_source(spec, TEST, seed, Place("net.prototxt", 1))


def write(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_mat(path: Path, name: str, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {name: value})


def write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def picture(number: int) -> NDArray[np.uint8]:
    """Not black anywhere, so that a depth image may be made of it."""
    return np.random.default_rng(number).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)


def grid(*values: int) -> NDArray[np.int64]:
    """A label image: the first values in the first row, the last everywhere else."""
    labels = np.full(WIDTH * HEIGHT, values[-1])
    labels[: len(values)] = values
    return labels.reshape(HEIGHT, WIDTH)


def refused(name: str, settings: Mapping[str, object], tops: int = 2) -> str:
    with pytest.raises(SourceError) as caught:
        fed(name, settings, tops)
    start = 'net.prototxt:1: layer "data" (Python): '
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


NYUD_NAMES = ["5003", "5001", "5002"]


def depth_of(number: int) -> NDArray[np.uint16]:
    return (picture(number)[:, :, 0].astype(np.uint16) * 40).astype(np.uint16)


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    for name in NYUD_NAMES:
        number = int(name)
        write(tmp_path / f"data/images/img_{name}.png", picture(number))
        write(tmp_path / f"data/hha/img_{name}.png", picture(number + 1000))
        write(tmp_path / f"data/depth/img_{name}.png", depth_of(number))
        path = tmp_path / f"segmentation/img_{name}.mat"
        write_mat(path, "segmentation", grid(0, 1, 40, number % 10).astype(np.uint16))
    write_list(tmp_path / "train.txt", NYUD_NAMES[:2])
    write_list(tmp_path / "val.txt", NYUD_NAMES[2:])
    write_list(tmp_path / "test.txt", NYUD_NAMES)
    return tmp_path


SIFTFLOW_NAMES = ["coast_a1", "street_b2", "forest_c3"]


@pytest.fixture
def siftflow(tmp_path: Path) -> Path:
    for i, name in enumerate([*SIFTFLOW_NAMES, "street_urb506"]):
        path = tmp_path / "Images" / SCENES / f"{name}.jpg"
        write(path, np.full((HEIGHT, WIDTH, 3), 90 + i, np.uint8))
    for i, name in enumerate(SIFTFLOW_NAMES):
        semantic, geometric = (
            tmp_path / folder / SCENES / f"{name}.mat" for folder in ("SemanticLabels", "GeoLabels")
        )
        write_mat(semantic, "S", grid(0, 1, 33, 10 + i).astype(np.uint8))
        # MATLAB keeps what it may as doubles.
        write_mat(geometric, "S", grid(-1, 0, 1, 3, 2).astype(float))
    write_list(tmp_path / "test.txt", SIFTFLOW_NAMES[1:])
    return tmp_path


LABELS = "1: accordion\n2: table\n3: air conditioner\n4: cloth\n5: bedclothes\n300: tv monitor\n"
CHOSEN = "1: diningtable\n2: tvmonitor\n3: bedcloth\n4: clothes\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root, voc = tmp_path / "pascal-context", tmp_path / "pascal/VOC2010"
    for name in ("2008_000002", "2008_000003"):
        write(voc / "JPEGImages" / f"{name}.jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        path = root / "trainval" / f"{name}.mat"
        write_mat(path, "LabelMap", grid(0, 1, 2, 3, 4, 5, 300).astype(np.uint16))
        write_list(voc / "ImageSets/Main/val.txt", [name])
    write_list(voc / "ImageSets/Main/train.txt", ["2008_000002", "2008_000003"])
    (root / "labels.txt").write_text(LABELS)
    (root / "59_labels.txt").write_text(CHOSEN)
    return tmp_path
