"""Caffe's command line: flags in every spelling, and each verb against what it should give."""

import ast
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import h5py
import jax
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from netspec.build import load
from netspec.caffe import Classifier, Detector
from netspec.caffe.io import load_image
from netspec.cli import train
from netspec.cli.caffe_flags import Flagged
from netspec.cli.main import main
from netspec.cli.train import Options
from netspec.errors import NetSpecError
from netspec.frontend.prototxt import read_net
from netspec.proto.layers_pb2 import DataParameter, Datum
from netspec.proto.net_pb2 import NetParameter
from netspec.reporting.console import Report
from netspec.runtime import devices
from netspec.solving.distributed.launch import Scale
from netspec.sources.images.databases import open_database
from netspec.weights.caffemodel import read_weights

GOLDEN = Path(__file__).parent / "golden"
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


def arrays(path: str) -> dict[tuple[str, int], np.ndarray]:
    """The arrays of a weight file."""
    found = read_weights(path).layers
    return {(name, i): blob.array for name, blobs in found.items() for i, blob in blobs.items()}


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


@pytest.fixture(scope="module")
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


# Flags


@click.command(cls=Flagged)
@click.argument("arguments", nargs=-1)
@click.option("--model", default="")
@click.option("--log_dir", default="")
@click.option("--iterations", default=50)
@click.option("--gray/--nogray")
@click.option("--notes", default="")
def tool(**found: Any) -> None:
    """A command that says what it was given, but for defaults."""
    defaults = {"arguments": (), "model": "", "log_dir": "", "iterations": 50, "gray": False}
    print(repr({k: v for k, v in found.items() if v not in (defaults.get(k, ""),)}))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("", {}),
        ("--model=a", {"model": "a"}),
        ("-model=a", {"model": "a"}),
        ("--model a", {"model": "a"}),
        ("-model a", {"model": "a"}),
        ("--model=a=b", {"model": "a=b"}),
        ("--model=", {}),
        ("--model -a", {"model": "-a"}),
        ("--model=a -model b", {"model": "b"}),
        ("--log_dir=a", {"log_dir": "a"}),
        ("-log-dir a", {"log_dir": "a"}),
        ("--iterations 7", {"iterations": 7}),
        ("-iterations=-7", {"iterations": -7}),
        ("-gray", {"gray": True}),
        ("--gray=true", {"gray": True}),
        ("--gray=1", {"gray": True}),
        ("--gray=No", {}),
        ("--gray --nogray", {}),
        ("--gray false", {"gray": True, "arguments": ("false",)}),
        ("--notes=a", {"notes": "a"}),
        (
            "-minloglevel 1 -v=2 --stderrthreshold 0 --vmodule=a=1 -logtostderr --colorlogtostderr",
            {},
        ),
        ("a --model b c", {"arguments": ("a", "c"), "model": "b"}),
        ("a - -- --model b", {"arguments": ("a", "-", "--model", "b")}),
    ],
)
def test_flags(arguments: str, found: dict[str, Any]) -> None:
    result = CliRunner().invoke(tool, arguments.split())
    assert ast.literal_eval(result.output) == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--modle=a", "No such option '--modle'. Did you mean '--model'?"),
        ("-x", "No such option '--x'."),
        ("--nomodel", "No such option '--nomodel'. Did you mean '--model'?"),
        ("a --model", "Option '--model' requires an argument."),
        ("--gray=maybe", "--gray=maybe: write true or false"),
        ("--iterations=many", "'many' is not a valid integer"),
    ],
)
def test_flags_that_are_wrong(arguments: str, words: str) -> None:
    result = CliRunner().invoke(tool, arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr


VERBS = """train test time device_query classify detect draw_net upgrade_net_proto_text
upgrade_net_proto_binary upgrade_solver_proto_text convert_imageset compute_image_mean
extract_features""".split()


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str) -> None:
    assert output(verb, "--help").startswith(f"Usage: main caffe {verb} ")


def test_flags_before_the_command(trained: Path) -> None:
    before = lines("-model=net.prototxt", "-iterations", 1, "test", "--weights", WEIGHTS)
    behind = lines("test", "-model=net.prototxt", "-iterations", 1, "--weights", WEIGHTS)
    assert before == behind
    assert behind[2] == "Running for 1 iterations."


# train


def test_train_is_solve(trained: Path) -> None:
    """The same arrays; lines as Caffe's, which its parsers read."""
    by_caffe = arrays(WEIGHTS)
    Path("snap").rename("before")
    result = CliRunner().invoke(main, ["solve", "solver.prototxt"])
    assert result.exit_code == 0, result.output
    assert by_caffe.keys() == arrays(WEIGHTS).keys()
    for key, array in arrays(WEIGHTS).items():
        np.testing.assert_array_equal(by_caffe[key], array)


def test_train_logs(trained: Path) -> None:
    log = Path("log.txt").read_text().splitlines()
    assert log[0] == "Use CPU."
    losses = [re.fullmatch(rf"Iteration (\d), loss = {NUMBER}", line) for line in log]
    assert [match[1] for match in losses if match] == list("01234")
    assert log[-1] == "Optimization Done."


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_log_dir(trained: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("logs").mkdir()
    if how == "environment":
        monkeypatch.setenv("GLOG_log_dir", "logs")
        result = run("train", "--solver=solver.prototxt")
        assert "Optimization Done." in result.stderr
    else:
        result = run("device_query", "-log_dir=logs")
    assert Path("logs/caffe.INFO").read_text() == result.stderr
    assert len(list(Path("logs").glob("caffe.*.log.INFO.*"))) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "train --solver=solver.prototxt",
        "device_query",
        "upgrade_solver_proto_text solver.prototxt new.prototxt",
    ],
)
def test_the_least_severity(trained: Path, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(*arguments.split(), "-minloglevel=2").output == ""
    assert run(*arguments.split(), "-minloglevel=0").stderr
    monkeypatch.setenv("GLOG_minloglevel", "2")
    assert run(*arguments.split()).output == ""
    assert run(*arguments.split(), "--minloglevel", 0).stderr


def test_warnings_are_more_severe(trained: Path) -> None:
    Path("snap").rename("before")
    with open("solver.prototxt", "a") as file:
        file.write("solver_mode: GPU")
    (line,) = lines("train", "--solver=solver.prototxt", "--minloglevel=1")
    assert line.startswith("solver.prototxt: solver_mode: GPU, but ")


def test_train_goes_on(trained: Path) -> None:
    """And ends at once where all is done, as scripts that are run again rely on."""
    straight = arrays(WEIGHTS)
    Path(WEIGHTS).unlink()
    log = lines("train", "-solver=solver.prototxt", f"-snapshot={STATE}")
    assert "training  iterations 2 to 4" in log
    for key, array in arrays(WEIGHTS).items():
        np.testing.assert_allclose(array, straight[key], rtol=1e-5, atol=1e-7)
    end = STATE.replace("2", "4")
    log = lines("train", "-solver=solver.prototxt", f"-snapshot={end}")
    assert not any(line.startswith("Iteration 4, loss") for line in log)


def test_weights_replace_those_of_the_solver(trained: Path) -> None:
    """Which are not even looked for."""
    Path("lost.prototxt").write_text(f'{SOLVER} weights: "lost.caffemodel"')
    log = lines("train", "-solver=lost.prototxt", f"-weights={WEIGHTS}")
    assert f"weights   2 layers from {WEIGHTS}" in log
    result = run("train", "-solver=lost.prototxt")
    assert result.stderr.endswith("netspec: lost.caffemodel: cannot read: no such file\n")


LEVELS = [
    ("--level=2", 5),
    ("--stage=extra", 5),
    ("--level 3 -stage other,extra", 6),
]


@pytest.mark.parametrize(("flags", "layers"), LEVELS)
def test_level_and_stage(here: Path, flags: str, layers: int) -> None:
    """They choose the layers."""
    log = lines("time", "--model=net.prototxt", "--iterations=1", *flags.split())
    assert sum("\tforward: " in line for line in log) == layers


@pytest.mark.parametrize(("flags", "layers"), [("--stage=extra", 5), LEVELS[2]])
def test_level_and_stage_in_training(here: Path, flags: str, layers: int) -> None:
    """Whatever level the solver states."""
    Path("solver.prototxt").write_text(f"{SOLVER} train_state {{ level: 7 }}")
    log = lines("train", "--solver=solver.prototxt", *flags.split())
    assert any(f": {layers} layers, " in line for line in log)


@pytest.mark.parametrize(
    ("number", "effect", "saved", "end"),
    [
        (signal.SIGINT, "snapshot", [1, 2, 3, 4], "Optimization Done."),
        (signal.SIGINT, "none", [2, 4], "Optimization Done."),
        (signal.SIGHUP, "none", [2, 4], "Optimization Done."),
        (signal.SIGHUP, "stop", [1], "Optimization stopped early."),
    ],
)
def test_effects_of_signals(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    effect: str,
    saved: list[int],
    end: str,
) -> None:
    monkeypatch.setattr(Report, "step", lambda *_: signal.raise_signal(number))
    flag = f"--{number.name.lower()}_effect={effect}"
    log = lines("train", "--solver=solver.prototxt", flag)
    assert log[-1] == end
    states = sorted(path.name for path in Path("snap").glob("*.solverstate"))
    assert states == [f"a_iter_{i}.solverstate" for i in saved]


def test_solver_mode_without_a_gpu(here: Path) -> None:
    Path("solver.prototxt").write_text(f"{SOLVER} solver_mode: GPU")
    if devices.accelerators():
        pytest.skip("needs a machine without a GPU")
    log = lines("train", "--solver=solver.prototxt")
    assert log[:2] == [
        "solver.prototxt: solver_mode: GPU, but JAX finds no GPU here",
        "Use CPU.",
    ]


# test


def test_test_prints_what_numpy_computes(trained: Path) -> None:
    log = lines("test", "--model=net.prototxt", f"--weights={WEIGHTS}", "--iterations=3")
    assert log[0] == "Use CPU."
    assert log[2] == "Running for 3 iterations."
    weights = arrays(WEIGHTS)
    with h5py.File("data.h5") as file:
        data, label = file["data"][...], file["label"][...].astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), (2, 3))
    conv = np.einsum("ncyxhw,ochw->noyx", windows, weights["conv", 0])
    conv = np.maximum(conv + weights["conv", 1][:, None, None], 0)
    scores = conv.reshape(8, -1) @ weights["fc", 0].T + weights["fc", 1]
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(8), label]
    # The third batch is the first again.
    rows = [slice(0, 4), slice(4, 8), slice(0, 4)]
    accuracy = [np.mean(scores[row].argmax(1) == label[row]) for row in rows]
    loss = [np.mean(losses[row]) for row in rows]
    found = [re.fullmatch(rf"(.*) = ({NUMBER})", line) for line in log[3:9]]
    names = [f"Batch {i}, {name}" for i in range(3) for name in ("accuracy", "loss")]
    assert [match[1] for match in found] == names
    expected = np.ravel(np.column_stack([accuracy, loss]))
    np.testing.assert_allclose([float(match[2]) for match in found], expected, rtol=1e-4)
    assert log[9].startswith("Loss: ")
    assert float(log[9].split()[1]) == pytest.approx(2 * np.mean(loss), rel=1e-4)
    assert log[10] == f"accuracy = {np.mean(accuracy):.6g}"
    mean, weighted = re.fullmatch(
        rf"loss = ({NUMBER}) \(\* 2 = ({NUMBER}) loss\)", log[11]
    ).groups()
    assert float(mean) == pytest.approx(np.mean(loss), rel=1e-4)
    assert float(weighted) == pytest.approx(2 * np.mean(loss), rel=1e-4)
    assert len(log) == 12


# time


@pytest.mark.parametrize(
    ("flags", "layers", "still"),
    [
        ("--model=net.prototxt", "data conv relu fc loss", {"data"}),
        (
            "--model=net.prototxt --phase=TEST",
            "data conv relu fc accuracy loss",
            {"data", "accuracy"},
        ),
        # Without a loss, what learns has gradients all the same.
        ("-model deploy.prototxt -phase TEST", "in conv pool prob", {"in", "pool", "prob"}),
    ],
)
def test_time(here: Path, flags: str, layers: str, still: set[str]) -> None:
    """A line a layer and direction; the passes are the sum of the layers, and a little more."""
    log = lines("time", "--iterations=2", *flags.split())
    began, times = log.index("*** Benchmark begins ***"), log.index("Average time per layer: ")
    assert [line.partition(" = ")[0].split(":")[0] for line in log[:began]] == [
        "Use CPU.",
        "Performing Forward",
        "Initial loss",
        "Performing Backward",
    ]
    assert log[began + 1] == "Testing for 2 iterations."
    assert all(
        re.fullmatch(rf"Iteration: {i} forward-backward time: {NUMBER} ms\.", line)
        for i, line in enumerate(log[began + 2 : times], 1)
    )
    found = [
        re.fullmatch(rf" *(\w+)\t(forward|backward): ({NUMBER}) ms\.", line)
        for line in log[times + 1 : -5]
    ]
    assert [(match[1], match[2]) for match in found] == [
        (layer, way) for layer in layers.split() for way in ("forward", "backward")
    ]
    assert all(len(line.partition("\t")[0]) == 10 for line in log[times + 1 : -5])
    back = {match[1]: float(match[3]) for match in found if match[2] == "backward"}
    assert {layer for layer, spent in back.items() if spent == 0} == still
    ends = [re.fullmatch(rf"(.*): ({NUMBER}) ms\.", line) for line in log[-5:-1]]
    assert [match[1] for match in ends] == [
        "Average Forward pass",
        "Average Backward pass",
        "Average Forward-Backward",
        "Total Time",
    ]
    there, backwards, both, total = (float(match[2]) for match in ends)
    assert both == pytest.approx(there + backwards, rel=1e-4)
    assert total == pytest.approx(2 * both, rel=1e-4)
    assert backwards >= sum(back.values()) * (1 - 1e-4)
    assert log[-1] == "*** Benchmark ends ***"


def test_time_starts_from_the_loss_of_the_net(trained: Path) -> None:
    log = lines("time", "-model=net.prototxt", f"-weights={WEIGHTS}", "-iterations=1")
    test = lines("test", "-model=net.prototxt", f"-weights={WEIGHTS}", "-iterations=1")
    assert float(log[3].removeprefix("Initial loss: ")) == pytest.approx(
        float(test[-3].removeprefix("Loss: ")), rel=1e-4
    )


# Devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices that do not exist."""
    found = [
        SimpleNamespace(
            id=i, platform="gpu", device_kind="G", memory_stats=lambda: {"bytes_limit": 7}
        )
        for i in range(2)
    ]
    monkeypatch.setattr(jax, "devices", lambda: found)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("flag", "numbers"), [("", []), ("1", [1]), ("0,1", [0, 1]), ("all", [0, 1]), ("1,0", [1, 0])]
)
def test_devices_are_chosen(flag: str, numbers: list[int]) -> None:
    assert [device.id for device in devices.chosen(flag)] == numbers
    told = [f"Querying GPUs {flag}"]
    for i in numbers:
        told += [f"Device id: {i}", "Name: G", "Memory for JAX: 7 bytes"]
    assert lines("device_query", f"--gpu={flag}") == told


@pytest.mark.usefixtures("gpus")
def test_devices_that_are_not_there() -> None:
    with pytest.raises(NetSpecError, match=r"^--gpu 2: no device 2; there is 0 \(G\), 1 \(G\)$"):
        devices.chosen("2")


@pytest.mark.usefixtures("gpus")
def test_training_on_several_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch each, as in Caffe; they are the first ones."""
    asked: list[Options] = []
    monkeypatch.setattr(train, "run", lambda solver, options: asked.append(options))
    monkeypatch.setattr(devices, "use", lambda found: None)
    solver = tmp_path / "solver.prototxt"
    solver.write_text("base_lr: 1")
    for flag, count in (("1", "1"), ("0,1", "2"), ("all", "2")):
        told = lines("train", f"--solver={solver}", f"--gpu={flag}")
        assert asked.pop().scale == Scale(devices=count)
        numbers = "0, 1" if count == "2" else "1"
        assert told == [f"Using GPUs {numbers}", *(f"GPU {i}: G" for i in numbers.split(", "))]
    refused = run("train", f"--solver={solver}", "--gpu=1,0")
    assert "CUDA_VISIBLE_DEVICES=1,0 and --gpu=all take these" in refused.output


# Tools


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


# classify, detect


@pytest.fixture
def classified(here: Path) -> Path:
    """The folder with weights for the net that is deployed."""
    from netspec.caffe import TEST, Net

    Net("deploy.prototxt", TEST).save("deploy.caffemodel")
    np.save("mean.npy", np.full((3, 8, 8), 100, np.float32))
    return here


FILES = ["--model_def", "deploy.prototxt", "--pretrained_model", "deploy.caffemodel"]
SETTINGS = {"raw_scale": 255, "channel_swap": (2, 1, 0)}


@pytest.mark.parametrize(
    ("source", "flags", "count", "oversample"),
    [
        ("0.png", "", 1, True),
        (".", "--ext png --center_only", 3, False),
        ("images.npy", "--center_only", 2, False),
    ],
)
def test_classify(classified: Path, source: str, flags: str, count: int, oversample: bool) -> None:
    images = [load_image(f"{i}.png") for i in range(count)]
    np.save("images.npy", np.stack(images[:2]) if count > 1 else images)
    told = output(
        "classify", source, "out", *FILES, "--mean_file=mean.npy", "--images_dim=9,10",
        *flags.split(),
    ).splitlines()  # fmt: skip
    assert told[0] == "CPU mode"
    assert told[2] == f"Classifying {count} input{'s' * (count > 1)}."
    assert told[-1] == "Saving results into out.npy"
    net = Classifier(
        "deploy.prototxt", "deploy.caffemodel", (9, 10), np.load("mean.npy"), **SETTINGS
    )
    expected = net.predict(images, oversample)
    np.testing.assert_allclose(np.load("out.npy"), expected, rtol=1e-5)


@pytest.mark.parametrize("ending", ["csv", "h5"])
def test_detect(classified: Path, ending: str) -> None:
    output(
        "detect", "windows.csv", f"out.{ending}", *FILES, "--mean_file=mean.npy",
        "--crop_mode=list", "--context_pad=1",
    )  # fmt: skip
    windows = [("0.png", [(2, 1, 8, 9)]), ("1.png", [(0, 0, 6, 5)])]
    net = Detector(
        "deploy.prototxt", "deploy.caffemodel", np.full(3, 100), context_pad=1, **SETTINGS
    )
    expected = [one["prediction"].ravel() for one in net.detect_windows(windows)]
    if ending == "csv":
        header, *rows = (line.split(",") for line in Path("out.csv").read_text().splitlines())
        assert header == "filename ymin xmin ymax xmax class0 class1 class2 class3 class4".split()
        assert [row[:5] for row in rows] == [
            ["0.png", "2", "1", "8", "9"],
            ["1.png", "0", "0", "6", "5"],
        ]
        found = np.array([row[5:] for row in rows], float)
    else:
        with h5py.File("out.h5") as file:
            assert list(file["filename"].asstr()) == ["0.png", "1.png"]
            assert file["window"][...].tolist() == [[2, 1, 8, 9], [0, 0, 6, 5]]
            found = file["prediction"][...]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# What docs say


DOC = Path(__file__).resolve().parents[1] / "docs" / "caffe-commands.md"


def documented() -> list[str]:
    """The commands of the page's shell block."""
    (block,) = re.findall(r"```sh\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    return (
        block.replace("\\\n", " ").split(" 2>&1")[0].splitlines()
        + block.replace("\\\n", " ").splitlines()[1:]
    )


def test_every_verb_is_documented() -> None:
    verbs = {line.split()[2] for line in documented()}
    assert verbs == set(VERBS)


@pytest.mark.parametrize("line", documented())
def test_documented_flags_exist(line: str) -> None:
    """They are read up to the first file that is not here."""
    _, _, *arguments = shlex.split(line)
    result = run(*arguments)
    assert result.exit_code in (0, 1), result.output


# Mistakes


CPU = "JAX finds no GPU here, only 0 (cpu); without --gpu it computes there, and pip install "
MISTAKES = [
    ("train", "train needs a solver: --solver=solver.prototxt"),
    ("train --solver=lost", "lost: no such file"),
    ("train --solver=solver.prototxt --gpu=0", f"--gpu 0: {CPU}'jax[cuda13]' lets it find one"),
    ("train --solver=solver.prototxt --log_dir=lost", "--log_dir lost: no such file"),
    ("test --weights=a", "test needs a net: --model=net.prototxt"),
    ("test --model=net.prototxt", "test needs weights: --weights=net.caffemodel"),
    ("time", "time needs a net: --model=net.prototxt"),
    ("time --model=net.prototxt --gpu=one", "--gpu one: write a number, numbers as 0,1, or all"),
    ("device_query --gpu=all", f"--gpu all: {CPU}'jax[cuda13]' lets it find one"),
    ("convert_imageset ./ lost db", "lost: no such file"),
    ("convert_imageset ./ list.txt db --resize_width=4", "resized to height 0 and width 4; give "
     "both or none"),
    ("compute_image_mean lost", "lost: no such folder"),
    ("upgrade_net_proto_text solver.prototxt new", 'solver.prototxt:1: unknown field "net" in '
     "NetParameter; it belongs in a solver, but this file is read as a net"),
    ("upgrade_net_proto_binary list.txt new", "list.txt: is no binary net; is it a .caffemodel?"),
    ("upgrade_net_proto_binary lost new", "lost: no such file"),
    ("upgrade_solver_proto_text lost new", "lost: no such file"),
    ("extract_features a net.prototxt conv,fc db 1 lmdb", "2 blobs (conv,fc) and 1 databases (db); "
     "give a database for each blob, and each once"),
    ("draw_net net.prototxt net.pdf", 'net.pdf: cannot draw ".pdf"; the name of a drawing ends in '
     ".svg, .png or .dot"),
    ("classify 0.png out --mean_file= --model_def=lost", "lost: no such file"),
    ("classify 0.png out --mean_file=lost.npy", "lost.npy: no such file"),
    ("classify 0.png out --mean_file=list.txt", "list.txt: no .npy of numbers"),
    ("classify 0.png out --mean_file= --model_def=net.prototxt", "net.prototxt: has no Input layer "
     "to take images"),
    ("detect windows.csv out", "windows.csv: --crop_mode selective_search takes a .txt"),
    ("detect list.txt out --crop_mode=list", "list.txt: --crop_mode list takes a .csv"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_mistakes(here: Path, arguments: str, message: str) -> None:
    """One line, after what was said before it, status 1, and nothing is left behind."""
    if CPU in message and devices.accelerators():
        pytest.skip("needs a machine without a GPU")
    before = sorted(here.rglob("*"))
    result = run(*arguments.split())
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1] == f"netspec: {message}"
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("conv,fcc a,b 1 lmdb", 'net.prototxt: no blob "fcc"; did you mean "fc"?'),
        ("conv,loss a,b 1 lmdb", 'blob "loss" is scalar; a record takes (N), (N, C), (N, C, H) or '
         "(N, C, H, W)"),
        ("conv a 0 lmdb", "0 batches; at least 1 is needed"),
        ("fc,conv a,list.txt 1 lmdb", "list.txt: exists already"),
    ],
)  # fmt: skip
def test_features_that_cannot_be(trained: Path, arguments: str, message: str) -> None:
    before = sorted(trained.rglob("*"))
    result = run("extract_features", WEIGHTS, "net.prototxt", *arguments.split())
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"netspec: {message}"
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,xmin,ymin,xmax\n", "windows.csv: its first line lacks ymax; it names the "
         "columns filename, xmin, ymin, xmax, ymax"),
        ("filename,xmin,ymin,xmax,ymax\n", "windows.csv: has no windows"),
        ("filename,xmin,ymin,xmax,ymax\n0.png,1,2,3\n", "windows.csv:2: a window is filename, "
         "xmin, ymin, xmax, ymax, the latter in pixels"),
    ],
)  # fmt: skip
def test_windows_that_are_none(classified: Path, text: str, message: str) -> None:
    Path("windows.csv").write_text(text)
    result = run("detect", "windows.csv", "o.csv", *FILES, "--mean_file=", "--crop_mode=list")
    assert result.exit_code == 1
    assert result.stderr == f"netspec: {message}\n"
