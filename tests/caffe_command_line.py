"""Caffe's command line, on a tiny net and what it learned."""

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from netspec.cli import main

NET = """layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "h5.txt" batch_size: 4 } }
layer { name: "extra" type: "DummyData" top: "extra" include { stage: "extra" min_level: 2 }
  dummy_data_param { shape { dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss"
  loss_weight: 2 }
"""
DEPLOY = """layer { name: "in" type: "Input" top: "data"
  input_param { shape { dim: [10, 3, 8, 8] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "prob" type: "Softmax" bottom: "pool" top: "prob" }
"""
SOLVER = """net: "net.prototxt"
base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 random_seed: 3 max_iter: 4 display: 1
snapshot: 2 snapshot_prefix: "snap/a"
"""
WEIGHTS, STATE = "snap/a_iter_4.caffemodel", "snap/a_iter_2.solverstate"
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3), np.uint8)
LINE = re.compile(r"[IW]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ netspec:0\] (.*)")
NUMBER = r"-?[\d.]+(?:e[+-]\d+)?"


def run(*arguments: object) -> Result:
    """Run a verb; an exception of another kind than a user's mistake is raised."""
    result = CliRunner().invoke(main, ["caffe", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(*arguments: object) -> list[str]:
    """What a verb logs, if it goes well: each line without its prefix, which it must have."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    found = [LINE.fullmatch(line) for line in result.stderr.splitlines()]
    assert all(found), result.stderr
    return [match[1] for match in found if match]


def output(*arguments: object) -> str:
    """What a verb prints, if it goes well."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Training takes over signals, and every verb chooses a device."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    platforms, device = jax.config.jax_platforms, jax.config.jax_default_device
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    jax.config.update("jax_platforms", platforms)
    jax.config.update("jax_default_device", device)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nets, data and a solver, and what four steps of it leave."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_files()
        log = lines("train", "--solver", "solver.prototxt", "-logtostderr", "--alsologtostderr=1")
        Path("log.txt").write_text("\n".join(log))
    return folder


@pytest.fixture(autouse=True)
def trained(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and the current one."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def here(trained: Path) -> Path:
    """The current folder, before any training."""
    shutil.rmtree("snap")
    return trained


def write_files() -> None:
    """Write nets, data and a solver into the current folder."""
    random = np.random.default_rng(1)
    with h5py.File("data.h5", "w") as file:
        file["data"] = random.normal(size=(8, 2, 6, 7)).astype(np.float32)
        file["label"] = random.integers(0, 3, 8).astype(np.float32)
    for name, text in (
        ("h5.txt", "data.h5\n"),
        ("net.prototxt", NET),
        ("deploy.prototxt", DEPLOY),
        ("solver.prototxt", SOLVER),
        ("list.txt", "0.png 4\n1.png 0\n2.png 1\n"),
        ("windows.csv", "filename, xmin, ymin, xmax, ymax\n0.png,1,2,9,8\n1.png,0,0,5,6\n"),
    ):
        Path(name).write_text(text)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(f"{i}.png")


@pytest.fixture
def classified(here: Path) -> Path:
    """The folder with weights for the net that is deployed."""
    from netspec.caffe import TEST, Net

    Net("deploy.prototxt", TEST).save("deploy.caffemodel")
    np.save("mean.npy", np.full((3, 8, 8), 100, np.float32))
    return here


FILES = ["--model_def", "deploy.prototxt", "--pretrained_model", "deploy.caffemodel"]
