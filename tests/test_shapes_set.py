"""The practice set of shapes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from netspec.errors import SourceError
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.segmentation.shapes_set import CLASSES, write_dataset
from netspec.sources import open_source


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_synthetic_set_is_read_as_voc(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", train=6, val=2, size=(40, 48))
    assert folder == tmp_path / "set"
    assert (folder / "classes.txt").read_text().split() == list(CLASSES)
    net = parse_net(
        'layer { name: "d" type: "Python" top: "data" top: "label" python_param { '
        'module: "voc_layers" layer: "VOCSegDataLayer" param_str: '
        f"\"{{'voc_dir': '{folder}', 'split': 'train', 'mean': 0, 'randomize': False}}\" }} }}"
    )
    source = open_source(net.message.layer[0], TEST, None, net.places[0])
    seen: set[float] = set()
    for _ in range(6):
        batch = source.next()
        assert batch["data"].shape == (1, 3, 40, 48)
        present = set(np.unique(batch["label"]).tolist())
        assert present <= {*range(len(CLASSES)), 255}
        assert {0, 255} <= present
        seen |= present
    assert seen == {*range(len(CLASSES)), 255}


def test_synthetic_set_is_its_arguments(tmp_path: Path) -> None:
    first = digest(write_dataset(tmp_path / "a", train=2, val=1, size=(32, 40)))
    again = digest(write_dataset(tmp_path / "b", train=2, val=1, size=(32, 40)))
    other = digest(write_dataset(tmp_path / "c", train=2, val=1, size=(32, 40), seed=1))
    more = digest(write_dataset(tmp_path / "a", train=3, val=2, size=(32, 40)))
    assert first == again
    image = "JPEGImages/val_0000.jpg"
    assert first[image] != other[image]
    assert first[image] == more[image]
    assert len(more) == len(first) + 4


def test_synthetic_set_spares_other_folders(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        SourceError, match=rf"^{tmp_path}: holds files, and none says that they are"
    ):
        write_dataset(tmp_path, train=1, val=1)
    with pytest.raises(SourceError, match=r"mine.txt: not a directory"):
        write_dataset(tmp_path / "mine.txt", train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(SourceError, match=r"^1 and 0 images of 128x96; needed are some of each"):
        write_dataset(tmp_path / "new", train=1, val=0)
    with pytest.raises(SourceError, match=r"^seed -1: needed is 0 or more"):
        write_dataset(tmp_path / "new", seed=-1)
    (tmp_path / "empty").mkdir()
    write_dataset(tmp_path / "empty", train=1, val=1, size=(32, 32))
