"""Caffe's tools: databases, means, upgrades, features and drawings."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from caffe_command_line import IMAGES, WEIGHTS, lines, output, run
from caffe_command_line import here as here
from caffe_command_line import made as made
from caffe_command_line import settings as settings
from caffe_command_line import trained as trained
from click.testing import CliRunner

from netspec.build import load
from netspec.cli import main
from netspec.frontend.prototxt import read_net
from netspec.proto.layers_pb2 import DataParameter, Datum
from netspec.proto.net_pb2 import NetParameter
from netspec.sources.images.databases import open_database

GOLDEN = Path(__file__).parent / "golden"


def records(path: str, backend: str = "lmdb") -> dict[bytes, Datum]:
    database = open_database(Path(path), DataParameter.DB.Value(backend.upper()))
    found = {bytes(key): Datum.FromString(value) for key, value in database.records()}
    database.close()
    return found


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("", ""),
        ("-gray", "--gray"),
        ("--shuffle=true", "--shuffle"),
        ("--resize_width=4 --resize_height=5", "--resize 5x4"),
        ("--encoded", "--encoded"),
        ("--encode_type=jpg", "--encoded jpg"),
        ("--encoded -encode_type jpg --check_size", "--encoded jpg --check-size"),
    ],
)
def test_convert_imageset_is_data_lmdb(here: Path, flags: str, options: str) -> None:
    told = lines("convert_imageset", *flags.split(), f"{here}/", "list.txt", "one")
    assert told == ["A total of 3 images.", "Processed 3 files."]
    ours = ["data", "lmdb", "list.txt", "two", "--root", str(here), *options.split()]
    assert CliRunner().invoke(main, ours).exit_code == 0
    assert records("one") == records("two")


def test_databases_of_the_other_kind(here: Path) -> None:
    pytest.importorskip("plyvel")
    lines("convert_imageset", "./", "list.txt", "db", "--backend=leveldb")
    assert len(records("db", "leveldb")) == 3
    lines("compute_image_mean", "db", "--backend", "leveldb")
    assert run("compute_image_mean", "db").stderr == (
        "netspec: db: a leveldb database; give --backend=leveldb\n"
    )


def test_compute_image_mean_is_data_mean(here: Path) -> None:
    lines("convert_imageset", "./", "list.txt", "db")
    told = lines("compute_image_mean", "db", "mean.binaryproto")
    assert told == [
        "Starting iteration",
        "Processed 3 files.",
        "Write to mean.binaryproto",
        "Number of channels: 3",
        # Blue, green, red.
        *(
            f"mean_value channel [{i}]: {mean:.6g}"
            for i, mean in enumerate(IMAGES.mean((0, 1, 2))[::-1])
        ),
    ]
    ours = ["data", "mean", "db", "-o", "ours.binaryproto"]
    assert CliRunner().invoke(main, ours).exit_code == 0
    assert Path("mean.binaryproto").read_bytes() == Path("ours.binaryproto").read_bytes()


def test_upgrade_net_proto_text(here: Path) -> None:
    old, new = GOLDEN / "upgrade/v1_lenet.old.prototxt", GOLDEN / "upgrade/v1_lenet.new.prototxt"
    wrote = "Wrote upgraded NetParameter text proto to"
    assert lines("upgrade_net_proto_text", old, "out") == [f"{wrote} out"]
    assert read_net("out").message == read_net(new).message
    again = lines("upgrade_net_proto_text", "out", "same")
    assert again == ["File already in latest proto format: out", f"{wrote} same"]
    assert Path("same").read_text() == Path("out").read_text()


def test_upgrade_net_proto_binary(here: Path) -> None:
    """Layers become current ones, and keep their arrays."""
    old, new = (
        read_net(GOLDEN / f"upgrade/v1_lenet.{kind}.prototxt").message for kind in ("old", "new")
    )
    for layers in (old.layers, new.layer):
        for layer in layers:
            layer.blobs.add(num=1, channels=1, height=1, width=2, data=[len(layer.name), 2])
    Path("old.caffemodel").write_bytes(old.SerializeToString())
    told = lines("upgrade_net_proto_binary", "old.caffemodel", "new.caffemodel")
    assert told == ["Wrote upgraded NetParameter binary proto to new.caffemodel"]
    upgraded = NetParameter.FromString(Path("new.caffemodel").read_bytes())
    assert upgraded == new
    assert all(len(layer.blobs) == 1 for layer in upgraded.layer)


def test_upgrade_solver_proto_text(here: Path) -> None:
    Path("solver.prototxt").write_text("base_lr: 0.5 solver_type: ADAM")
    lines("upgrade_solver_proto_text", "solver.prototxt", "new.prototxt")
    assert Path("new.prototxt").read_text() == 'base_lr: 0.5\ntype: "Adam"\n'


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_extract_features(trained: Path, backend: str) -> None:
    """Two batches of four are all the data, in its order."""
    if backend == "leveldb":
        pytest.importorskip("plyvel")
    told = lines("extract_features", WEIGHTS, "net.prototxt", "conv,fc", "a,b", 2, backend)
    assert told[-1] == "Successfully extracted the features!"
    assert "Extracted features of 8 query images for feature blob fc" in told
    net = load("net.prototxt", WEIGHTS)
    with h5py.File("data.h5") as file:
        blobs = net(data=file["data"][:], label=file["label"][:])
    for blob, path, size in (("conv", "a", (5, 4, 5)), ("fc", "b", (3, 1, 1))):
        found = records(path, backend)
        assert list(found) == [f"{i:010d}".encode() for i in range(8)]
        for datum, expected in zip(found.values(), np.asarray(blobs[blob]), strict=True):
            assert (datum.channels, datum.height, datum.width) == size
            np.testing.assert_allclose(datum.float_data, expected.ravel(), rtol=1e-4, atol=1e-6)


def test_draw_net(here: Path) -> None:
    flags = ["--rankdir", "TB", "--display_lrm"]
    assert output("draw_net", "net.prototxt", "net.svg", *flags).splitlines() == [
        "Drawing net to net.svg",
        "--rankdir TB: a drawing is laid out as it fits best",
        "--display_lrm: layers with lr_mult: 0 are marked, others are not",
        "without what phase TEST alone has (--phase TEST): accuracy",
    ]
    assert output("draw_net", "net.prototxt", "test.svg", "--phase=TEST").count("\n") == 1
    for phase, name in (("train", "net"), ("test", "test")):
        ours = ["draw", "net.prototxt", "-o", "ours.svg", "--phase", phase]
        assert CliRunner().invoke(main, ours).exit_code == 0
        assert Path("ours.svg").read_text() == Path(f"{name}.svg").read_text()
