"""The commands, on a set of tiny pictures and a net to go with them."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from netspec import __version__
from netspec.build import graph
from netspec.cli.main import main
from netspec.frontend.prototxt import read_net
from netspec.inspect.layer_catalogue import entries
from netspec.proto.layers_pb2 import LayerParameter
from netspec.reporting.console import Report
from netspec.segmentation.shapes_set import CLASSES, write_dataset
from netspec.weights.caffemodel import read_weights

DATA = """layer {{ name: "data" type: "Python" top: "data" top: "label" include {{ phase: {phase} }}
  python_param {{ module: "voc_layers" layer: "VOCSegDataLayer"
    param_str: "{{'voc_dir': 'voc', 'split': '{split}', 'mean': (104, 117, 123), 'seed': 1}}" }} }}
"""
BODY = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1
    weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 6 kernel_size: 4 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Crop" bottom: "up" bottom: "data" top: "score"
  crop_param { axis: 2 offset: 1 } }
"""
LOSS = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 } }
"""
NET = (
    'name: "tiny"\n'
    + DATA.format(phase="TRAIN", split="train")
    + DATA.format(phase="TEST", split="val")
    + BODY
    + LOSS
)
DEPLOY = """layer { name: "in" type: "Input" top: "data"
  input_param { shape { dim: [1, 3, 32, 40] } } }
""" + BODY  # fmt: skip
SOLVER = """net: "net.prototxt"
test_iter: 2 test_interval: 3
base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 random_seed: 1
max_iter: 3 display: 1
snapshot: 2 snapshot_prefix: "snap/tiny"
"""
NUMBER = r"-?[\d.]+(?:e[+-]\d+)?"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`solve` takes over Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(*arguments: object) -> Result:
    """Run a command; an exception of another kind than a user's mistake is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def output(*arguments: object) -> str:
    """What a command prints, if it goes well."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def mistake(*arguments: object) -> str:
    """The one message of a command that fails."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("netspec: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.removeprefix("netspec: ").removesuffix("\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set, nets, a solver, and what three steps of it leave."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_dataset("voc", 3, 2, size=(32, 40))
        Path("net.prototxt").write_text(NET)
        Path("deploy.prototxt").write_text(DEPLOY)
        Path("solver.prototxt").write_text(SOLVER)
        Path("log.txt").write_text(output("solve", "solver.prototxt"))
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and the current one."""
    folder = tmp_path / "here"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


WEIGHTS = "snap/tiny_iter_2.caffemodel"
STATE = "snap/tiny_iter_2.solverstate"


def changed(name: str, old: str, new: str) -> str:
    """A copy of a file with something else in it, by its own name with ``_changed``."""
    text = Path(name).read_text()
    assert old in text
    copy = name.replace(".", "_changed.")
    Path(copy).write_text(text.replace(old, new))
    return copy


# solve


def test_solve_says_what_it_does(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    plan = [line.split()[0] for line in log.splitlines()[:6]]
    assert plan == ["net", "data", "memory", "loss", "regime", "training"]
    tests = re.findall(r"Iteration (\d+), Testing net \(#0\)", log)
    assert tests == ["0", "3"]
    losses = re.findall(rf"Iteration (\d+), loss = {NUMBER}", log)
    # The last line is of one more batch, after all updates.
    assert losses == ["0", "1", "2", "3"]
    assert re.findall(rf"Iteration (\d+), lr = ({NUMBER})", log) == [
        (str(i), "0.0001") for i in range(3)
    ]
    assert len(re.findall(rf"    Train net output #0: loss = {NUMBER} \(\* 1 = ", log)) == 3
    assert len(re.findall(rf"    score: pixel accuracy {NUMBER}, mean accuracy ", log)) == 2
    assert log.endswith("Optimization Done.\n")


def test_solve_writes_snapshots(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    written = re.findall(r"Snapshotting .*to binary proto file (\S+)", log)
    ends = ("caffemodel", "solverstate")
    assert written == [f"snap/tiny_iter_{i}.{end}" for i in (2, 3) for end in ends]
    assert {path.name for path in (trained / "snap").iterdir()} == {
        "tiny.log.jsonl",
        *(f"tiny_iter_{i}.{end}" for i in (2, 3) for end in (*ends, "resume.json")),
    }
    layers = read_weights(trained / WEIGHTS).layers
    assert {
        (name, i): blob.array.shape for name, blobs in layers.items() for i, blob in blobs.items()
    } == {
        ("conv", 0): (4, 3, 3, 3),
        ("conv", 1): (4,),
        ("up", 0): (4, 6, 4, 4),
        ("up", 1): (6,),
    }


def test_solve_goes_on_from_a_snapshot(here: Path) -> None:
    first = (here / "log.txt").read_text()
    straight = read_weights("snap/tiny_iter_3.caffemodel")
    log = output("solve", "solver.prototxt", "--snapshot", STATE)
    assert "training  iterations 2 to 3\n" in log
    (loss,) = re.findall(rf"Iteration 2, loss = ({NUMBER})", log)
    assert f"Iteration 2, loss = {loss}" in first
    again = read_weights("snap/tiny_iter_3.caffemodel")
    for name, blobs in straight.layers.items():
        for i, blob in blobs.items():
            np.testing.assert_allclose(
                again.layers[name][i].array, blob.array, rtol=1e-5, atol=1e-7
            )


def test_solve_goes_on_further_than_the_solver_says(here: Path) -> None:
    log = output("solve", "solver.prototxt", "--snapshot", STATE, "--max-iter", 4)
    assert "training  iterations 2 to 4\n" in log
    assert (here / "snap" / "tiny_iter_4.solverstate").is_file()


def test_solve_starts_from_weights(here: Path) -> None:
    solver = changed("solver.prototxt", "test_iter: 2", "")
    log = output("solve", solver, "--weights", WEIGHTS, "--max-iter", 1)
    assert f"weights   2 layers from {WEIGHTS}\n" in log
    assert "training  iterations 0 to 1\n" in log


@pytest.mark.parametrize(("interrupts", "status"), [(1, 0), (2, 130)])
def test_an_interrupt_ends_a_run_with_a_snapshot(
    here: Path, monkeypatch: pytest.MonkeyPatch, interrupts: int, status: int
) -> None:
    """After the step under way; a second one ends it at once."""
    monkeypatch.setattr(
        Report, "step", lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(interrupts)]
    )
    result = run("solve", changed("solver.prototxt", "test_iter: 2", ""))
    assert result.exit_code == status
    assert "Stopping after this step, with a snapshot (once more: at once).\n" in result.stdout
    written = "Snapshotting solver state to binary proto file snap/tiny_iter_1.solverstate\n"
    ending = f"{written}Optimization stopped early.\n"
    assert result.stdout.endswith(ending) is (status == 0)
    assert Path("snap/tiny_iter_1.solverstate").exists() is (status == 0)


SOLVERS = [
    ('net: "net.prototxt"', "", "solver_changed.prototxt: needs exactly one of net, net_param, "
     "train_net, train_net_param; it has none"),
    ('net: "net.prototxt"', 'net: "nets.prototxt"', "solver_changed.prototxt: nets.prototxt: no "
     "such file"),
    ('net: "net.prototxt"', 'nets: "net.prototxt"', 'solver_changed.prototxt:1: unknown field '
     '"nets" in SolverParameter; did you mean "net"?'),
    ('"fixed"', '"fixd"', 'solver_changed.prototxt:3: unknown lr_policy "fixd"; did you mean '
     '"fixed"?'),
    ("max_iter: 3", "", "solver_changed.prototxt: needs max_iter, or --max-iter"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), SOLVERS)
def test_solvers_that_cannot_run(here: Path, old: str, new: str, message: str) -> None:
    assert mistake("solve", changed("solver.prototxt", old, new)).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("solve nowhere.prototxt", "nowhere.prototxt: no such file"),
        (
            "solve net.prototxt",
            'net.prototxt:1: unknown field "name" in SolverParameter; it belongs in a net, but '
            "this file is read as a solver",
        ),
        ("solve solver.prototxt --weights nowhere.caffemodel", "nowhere.caffemodel: cannot read: "
         "no such file"),
        ("solve solver.prototxt --snapshot nowhere.solverstate", "nowhere.solverstate: cannot "
         "read: no such file"),
        (
            f"solve solver.prototxt --weights {WEIGHTS} --snapshot {STATE}",
            "--weights starts a run and --snapshot goes on with one; give one",
        ),
        ("solve solver.prototxt --max-iter 0", "--max-iter 0: a run ends at iteration 1 or later"),
        (
            "solve solver.prototxt --keep 0",
            "--keep 0: at least 1 snapshot is kept",
        ),
        (
            f"solve solver.prototxt --resume --snapshot {STATE}",
            "--resume finds the newest snapshot itself, and --snapshot names one; give one",
        ),
        (
            f"solve solver.prototxt --snapshot {STATE} --max-iter 2",
            f"{STATE}: is at iteration 2, and the run ends at 2; --max-iter goes further",
        ),
    ],
)  # fmt: skip
def test_solve_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake(*arguments.split()) == message


def test_a_damaged_snapshot(here: Path) -> None:
    content = Path(STATE).read_bytes()
    Path(STATE).write_bytes(content[: len(content) // 2])
    assert mistake("solve", "solver.prototxt", "--snapshot", STATE).startswith(f"{STATE}: ")


def test_a_snapshot_of_another_net(here: Path) -> None:
    changed("net.prototxt", "num_output: 4", "num_output: 5")
    solver = changed("solver.prototxt", '"net.prototxt"', '"net_changed.prototxt"')
    message = mistake("solve", solver, "--snapshot", STATE)
    assert "4x3x3x3" in message
    assert "5x3x3x3" in message
    assert 'layer "conv"' in message


# test


def test_test_prints_outputs_and_metrics(here: Path) -> None:
    lines = output("test", "net.prototxt", WEIGHTS).splitlines()
    assert lines[0] == f"2 layers from {WEIGHTS}"
    assert re.fullmatch(rf"2 batches, loss ({NUMBER})", lines[1])
    loss = lines[1].split()[-1]
    assert lines[2] == f"    Test net output #0: loss = {loss} (* 1 = {loss} loss)"
    assert lines[4:6] == ["", "score"]
    table = dict(re.split(r"  +", line) for line in lines[6:])
    assert list(table) == [
        "pixel accuracy",
        "mean accuracy",
        "mean IU",
        "f.w. IU",
        *(f"IU {name}" for name in CLASSES),
    ]
    assert all(share == "nan" or 0 <= float(share) <= 1 for share in table.values())


def test_test_runs_as_many_batches_as_asked(here: Path) -> None:
    assert output("test", "net.prototxt", "--iterations", 3).startswith("3 batches, loss ")


TESTS = [
    ("nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("solver.prototxt", 'solver.prototxt:1: unknown field "net" in NetParameter; it belongs in a '
     "solver, but this file is read as a net"),
    ("net.prototxt nowhere.caffemodel", "nowhere.caffemodel: cannot read: no such file"),
    ("deploy.prototxt", "deploy.prototxt: no data layer feeds data, which an Input layer makes; "
     "give a net that has data layers"),
    ("net.prototxt --iterations 0", "0 test batches; at least 1 is needed"),
    ("net.prototxt --iterations -2", "-2 test batches; at least 1 is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), TESTS, ids=[arguments for arguments, _ in TESTS])
def test_test_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("test", *arguments.split()) == message


def test_truncated_weights(here: Path) -> None:
    content = Path(WEIGHTS).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        Path("cut.caffemodel").write_bytes(content[:length])
        assert mistake("test", "net.prototxt", "cut.caffemodel").startswith("cut.caffemodel: ")


def test_weights_that_do_not_fit(here: Path) -> None:
    net = changed("net.prototxt", "num_output: 4", "num_output: 5")
    assert mistake("test", net, WEIGHTS) == (
        f'{WEIGHTS}: layer "conv" (Convolution): weight is 4x3x3x3 in the file, 5x3x3x3 in the '
        "net; skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it"
    )


def test_a_label_out_of_range(here: Path) -> None:
    """The message names the file, the place in it and what is allowed."""
    labels = np.zeros((32, 40), np.uint8)
    labels[5, 7] = 6
    Image.fromarray(labels).save("voc/SegmentationClass/val_0001.png")
    message = (
        'net.prototxt:16: layer "loss" (SoftmaxWithLoss): label 6 at (x 7, y 5) of '
        "voc/SegmentationClass/val_0001.png; the net has 6 classes (0..5) and ignores 255"
    )
    assert mistake("test", "net.prototxt") == message
    solver = changed("solver.prototxt", "test_interval: 3", "test_interval: 1")
    assert mistake("solve", solver) == message


def test_missing_data(here: Path) -> None:
    """The message says what is missing and how one comes by it."""
    shutil.rmtree("voc")
    for verb in (["test", "net.prototxt"], ["solve", "solver.prototxt"]):
        message = mistake(*verb)
        line = 5 if verb[0] == "test" else 2
        assert message.startswith(
            f'net.prototxt:{line}: layer "data" (Python): voc_dir "voc": no such folder, from here '
            "or from the prototxt; get "
        )
        assert "set voc_dir to the folder" in message


def test_a_missing_sample(here: Path) -> None:
    Path("voc/JPEGImages/val_0001.jpg").unlink()
    assert mistake("test", "net.prototxt") == (
        'net.prototxt:5: layer "data" (Python): split "val" lacks 1 of its 4 files: '
        "voc/JPEGImages/val_0001.jpg"
    )


# segment


def test_segment_writes_labels_and_an_overlay(here: Path) -> None:
    """At each image's own size; also with a net that is made for training."""
    Image.new("RGB", (27, 19), (200, 30, 30)).save("other.png")
    images = ["voc/JPEGImages/val_0000.jpg", "other.png"]
    for net, folder in (("deploy.prototxt", "segmented"), ("net.prototxt", "out/deep")):
        option = [] if folder == "segmented" else ["-o", folder]
        result = run("segment", net, WEIGHTS, *images, *option)
        assert result.exit_code == 0, result.output
        assert result.stderr == "2 programs compiled for images of 2 sizes\n"
        assert result.stdout.splitlines() == [
            f"{folder}/{name}{suffix}.png"
            for name in ("val_0000", "other")
            for suffix in ("", "_overlay")
        ]
        for name, size in (("val_0000", (40, 32)), ("other", (27, 19))):
            with Image.open(f"{folder}/{name}.png") as labels:
                assert (labels.mode, labels.size) == ("P", size)
                assert np.asarray(labels).max() < 6
                # PASCAL VOC's colours of background, aeroplane and bicycle.
                assert (labels.getpalette() or [])[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            with Image.open(f"{folder}/{name}_overlay.png") as overlay:
                assert (overlay.mode, overlay.size) == ("RGB", size)
    for name in ("val_0000.png", "other.png"):
        first, second = (
            np.asarray(Image.open(Path(folder) / name)) for folder in ("segmented", "out/deep")
        )
        np.testing.assert_array_equal(first, second)


SEGMENTS = [
    (f"nowhere.prototxt {WEIGHTS} other.png", "nowhere.prototxt: no such file"),
    ("deploy.prototxt nowhere.caffemodel other.png", "nowhere.caffemodel: cannot read: no such "
     "file"),
    (f"deploy.prototxt {WEIGHTS} nowhere.png", "nowhere.png: no such file"),
    (f"deploy.prototxt {WEIGHTS} solver.prototxt", "solver.prototxt: damaged, or not an image "
     "(cannot identify image file)"),
    (f"deploy.prototxt {WEIGHTS} other.png -o log.txt", "log.txt/other.png: not a directory"),
    (f"deploy.prototxt {WEIGHTS} other.png -o .", "other.png would be written to other.png, which "
     "is an image to segment; write to another folder"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), SEGMENTS, ids=[arguments for arguments, _ in SEGMENTS]
)
def test_segment_mistakes(here: Path, arguments: str, message: str) -> None:
    Image.new("RGB", (40, 32)).save("other.png")
    assert mistake("segment", *arguments.split()) == message


# draw


def test_draw(here: Path) -> None:
    assert output("draw", "net.prototxt", "-o", "net.svg") == "net.svg\n"
    drawing = Path("net.svg").read_text()
    assert drawing.lstrip().startswith("<")
    assert "conv" in drawing
    assert "32" in drawing


def test_draw_another_phase_or_shape(here: Path) -> None:
    """Without being asked, the train net as its file has it; one that has no loss as it is used."""
    phases = "".join(
        f'layer {{ name: "in{phase}" type: "Input" top: "x" include {{ phase: {phase} }} '
        "input_param { shape { dim: [1, 2] } } }"
        for phase in ("TRAIN", "TEST")
    )
    phases += 'layer { name: "sum" type: "Reduction" bottom: "x" top: "sum" loss_weight: 1 }'
    Path("phases.prototxt").write_text(phases)
    for option, kept, gone in ((["--phase", "test"], "TEST", "TRAIN"), ([], "TRAIN", "TEST")):
        output("draw", "phases.prototxt", *option, "-o", "phases.dot")
        assert f"in{kept}" in Path("phases.dot").read_text()
        assert f"in{gone}" not in Path("phases.dot").read_text()
    assert "71" not in Path("deploy.prototxt").read_text()
    output("draw", "deploy.prototxt", "--shape", "data=1,3,71,53", "-o", "deploy.dot")
    assert "71" in Path("deploy.dot").read_text()
    output("draw", "deploy.prototxt", "-o", "deploy.svg")
    assert "phase TEST" in Path("deploy.svg").read_text()


def test_draw_without_the_data(here: Path) -> None:
    """Shapes that hang on data may be given; without them a net is drawn without."""
    shutil.rmtree("voc")
    assert output("draw", "net.prototxt", "-o", "net.dot") == (
        "without the shapes that hang on data, label, as the data is not here; "
        "give --shape data=1,3,500,500\nnet.dot\n"
    )
    assert 'label="conv ?"' in Path("net.dot").read_text()
    shapes = ["--shape", "data=1,3,71,53", "--shape", "label=1,1,71,53"]
    assert output("draw", "net.prototxt", "-o", "net.dot", *shapes) == "net.dot\n"
    assert "71" in Path("net.dot").read_text()


FORK = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 3, 5, 7] } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "grow" type: "Interp" bottom: "a" top: "b" }
layer { name: "next" type: "Convolution" bottom: "b" top: "c"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "side" type: "Pooling" bottom: "a" top: "d" pooling_param { kernel_size: 5 } }
layer { name: "more" type: "Interp" bottom: "d" top: "e" }
layer { name: "odd" type: "Poolng" bottom: "d" top: "f" }
"""
UNKNOWN = (
    'fork.prototxt:4: layer "grow" (Interp): unknown layer type "Interp" '
    "(DeepLab's and PSPNet's forks of Caffe)\n"
    'fork.prototxt:9: layer "odd" (Poolng): unknown layer type "Poolng"; did you mean "Pooling"?\n'
)


def test_draw_a_net_with_unknown_layers(here: Path) -> None:
    """They are drawn as what they are, once said for each type; to run them is refused."""
    Path("fork.prototxt").write_text(FORK)
    assert output("draw", "fork.prototxt", "-o", "fork.svg") == f"{UNKNOWN}fork.svg\n"
    drawing = Path("fork.svg").read_text()
    for words in ("Interp", "unknown", "1x2x5x7", ">?<", "as far as shapes are known"):
        assert words in drawing
    assert mistake("test", "fork.prototxt") == UNKNOWN.splitlines()[0]


def test_look_at_a_net_whose_python_is_elsewhere(here: Path) -> None:
    layer = """layer { name: "own" type: "Python" bottom: "data" top: "own"
  python_param { module: "elsewhere" layer: "Own" } }
"""
    Path("own.prototxt").write_text(DEPLOY + layer)
    said = (
        'own.prototxt:11: layer "own" (Python): no module "elsewhere" in the current folder or on '
        "PYTHONPATH; it should define the class Own\n"
    )
    assert output("draw", "own.prototxt", "-o", "own.svg") == f"{said}own.svg\n"
    table = output("summary", "own.prototxt")
    assert table.startswith(said)
    assert re.search(r"^own +Python( +\?){4}$", table, re.M)


def test_draw_a_net_with_an_unknown_field(here: Path) -> None:
    Path("fork.prototxt").write_text(
        FORK.replace('top: "b"', 'top: "b" interp_param { pad_beg: 0 }')
    )
    assert 'unknown field "interp_param"' in mistake("draw", "fork.prototxt", "-o", "fork.svg")


DRAWS = [
    ("nowhere.prototxt -o net.svg", "nowhere.prototxt: no such file"),
    (f"{WEIGHTS} -o net.svg", f"{WEIGHTS}: not a text file; weights (.caffemodel) are given beside "
     "the net, not instead of it"),
    ("net.prototxt -o log.txt/net.svg", "log.txt/net.svg: not a directory"),
    ("deploy.prototxt -o net.svg --shape data", "--shape data: write it as data=1,3,500,500"),
    ("deploy.prototxt -o net.svg --shape data=1,3,x,5", "--shape data=1,3,x,5: write it as "
     "data=1,3,500,500"),
    ("deploy.prototxt -o net.svg --shape dta=1,3,5,7", 'deploy.prototxt: no input blob "dta"; the '
     "net is fed data"),
    ("deploy.prototxt -o net.svg --shape data=1,3,-5,7", 'deploy.prototxt:1: layer "in" (Input): '
     'blob "data" is 1x3x-5x7; no size can be negative'),
    ("net.prototxt -o net.svg --shape data=1,3,7,5", 'net.prototxt:16: layer "loss" '
     "(SoftmaxWithLoss): scores 1x6x7x5 need 35 labels, one for each position off axis 1, but "
     "labels are 1x1x32x40"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), DRAWS, ids=[arguments for arguments, _ in DRAWS])
def test_draw_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("draw", *arguments.split()) == message
    assert not Path("net.svg").exists()


@pytest.mark.parametrize("out", ["net.pdf", "net", ".svg", "snap"])
def test_draw_to_another_kind_of_file(here: Path, out: str) -> None:
    message = mistake("draw", "deploy.prototxt", "-o", out)
    assert message.startswith(f"{out}: cannot draw ")
    assert message.endswith("ends in .svg, .png or .dot")


# summary


def test_summary(here: Path) -> None:
    lines = output("summary", "net.prototxt").splitlines()
    assert lines[3].split() == ["conv", "Convolution", "1x4x16x20", "112", "0.0", "0.0"]
    assert lines[-5].endswith("parameters, 502 of them learned; 0.0 GMAC a run")
    assert output("summary", "deploy.prototxt", "--phase", "test").count("\n") == 21
    assert "1x4x36x27" in output("summary", "deploy.prototxt", "--shape", "data=1,3,71,53")


def test_summary_of_what_is_known(here: Path) -> None:
    Path("fork.prototxt").write_text(FORK)
    assert output("summary", "fork.prototxt") == UNKNOWN + (
        "layer  type         top      params  MMAC  MiB\n"
        "-----  -----------  -------  ------  ----  ---\n"
        "in     Input        1x3x5x7                0.0\n"
        "conv   Convolution  1x2x5x7       8   0.0  0.0\n"
        "grow   Interp       ?             ?     ?    ?\n"
        "next   Convolution  ?             ?     ?    ?\n"
        "side   Pooling      1x2x1x3                0.0\n"
        "more   Interp       ?             ?     ?    ?\n"
        "odd    Poolng       ?             ?     ?    ?\n"
        "\n"
        "type         layers  params  MMAC   MiB\n"
        "-----------  ------  ------  ----  ----\n"
        "Input             1                 0.0\n"
        "Convolution       2      8+  0.0+  0.0+\n"
        "Interp            2       ?     ?     ?\n"
        "Pooling           1                 0.0\n"
        "Poolng            1       ?     ?     ?\n"
        "\n"
        "8 parameters, 8 of them learned, as far as shapes are known; 0.0 GMAC a run\n"
        "parameters       0.0 MiB\n"
        "momentum         0.0 MiB\n"
        "activations      0.0 MiB\n"
        "training, about  0.0 MiB\n"
    )


@pytest.mark.parametrize("form", ["csv", "json"])
def test_summary_for_other_programs(here: Path, form: str) -> None:
    """What is not known is said apart from it."""
    Path("fork.prototxt").write_text(FORK)
    result = run("summary", "fork.prototxt", "--format", form)
    assert (result.exit_code, result.stderr) == (0, UNKNOWN)
    found = (
        json.loads(result.stdout)
        if form == "json"
        else list(csv.reader(io.StringIO(result.stdout)))
    )
    assert len(found) == (4 if form == "json" else 14)


def test_summary_without_the_data(here: Path) -> None:
    shutil.rmtree("voc")
    note, *lines = output("summary", "net.prototxt", "--shape", "label=1,1,71,53").splitlines()
    assert note == (
        "without the shapes that hang on data, as the data is not here; "
        "give --shape data=1,3,500,500"
    )
    assert lines[2].split() == ["data", "Python", "?", "1x1x71x53", "0.0+"]


SUMMARIES = [
    ("nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("deploy.prototxt --shape data", "--shape data: write it as data=1,3,500,500"),
    ("deploy.prototxt --shape dta=1,3,5,7", 'deploy.prototxt: no input blob "dta"; the net is fed '
     "data"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), SUMMARIES, ids=[arguments for arguments, _ in SUMMARIES]
)
def test_summary_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("summary", *arguments.split()) == message


# rf


def test_rf(here: Path) -> None:
    assert output("rf", "deploy.prototxt") == (
        "in pixels of data\n"
        "\n"
        "blob   stride  field  offset\n"
        "-----  ------  -----  ------\n"
        "data        1      1       0\n"
        "conv        2      3       0\n"
        "up          1      5    -1.5\n"
        "score       1      5    -0.5\n"
        "\n"
        'no least pad: deploy.prototxt: layer "score" (Crop): cannot crop "up" to "data": offset '
        "15/2 is no whole number of pixels; change a pad or kernel by one\n"
    )
    even = changed("deploy.prototxt", "kernel_size: 4", "kernel_size: 3")
    assert output("rf", even).endswith("\nleast pad of conv that aligns every input size: 1\n")
    assert output("rf", "net.prototxt", "conv", "--phase", "train").splitlines()[2:5] == [
        "blob  stride  field  offset",
        "----  ------  -----  ------",
        "conv       2      3       0",
    ]
    # Of the pads that there might be, not of the one that there is.
    small = changed(even, "pad: 1", "pad: 0")
    result = run("rf", small)
    assert result.stdout.endswith("\nleast pad of conv that aligns every input size: 1\n")
    assert result.stderr.startswith(f"with the pads that it has it cannot run: {small}:")
    assert '\n\nloss sees all of "data": layer "loss" (SoftmaxWithLoss)\n\n' in output(
        "rf", "net.prototxt"
    )


RFS = [
    ("nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("deploy.prototxt scor", 'deploy.prototxt: no blob "scor"; did you mean "score"?'),
    ("net.prototxt loss", 'net.prototxt: "loss" sees all of "data": layer "loss" '
     "(SoftmaxWithLoss)"),
    ("deploy.prototxt --shape data", "--shape data: write it as data=1,3,500,500"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), RFS, ids=[arguments for arguments, _ in RFS])
def test_rf_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("rf", *arguments.split()) == message


# upgrade


def test_upgrade_a_net(here: Path) -> None:
    Path("old.prototxt").write_text('layers { name: "a" type: RELU bottom: "x" top: "y" }')
    assert output("upgrade", "old.prototxt", "new.prototxt") == "new.prototxt\n"
    (layer,) = read_net("new.prototxt").message.layer
    assert layer == LayerParameter(name="a", type="ReLU", bottom=["x"], top=["y"])


def test_upgrade_a_net_in_its_place(here: Path) -> None:
    before = graph("net.prototxt")
    output("upgrade", "net.prototxt", "net.prototxt")
    after = graph("net.prototxt")
    assert [node.layer.spec for node in after.nodes] == [node.layer.spec for node in before.nodes]


def test_upgrade_a_solver(here: Path) -> None:
    Path("old.prototxt").write_text('net: "n.prototxt" solver_type: ADAM')
    output("upgrade", "old.prototxt", "new.prototxt")
    assert Path("new.prototxt").read_text() == 'net: "n.prototxt"\ntype: "Adam"\n'


UPGRADES = [
    ("nowhere.prototxt new.prototxt", "nowhere.prototxt: no such file"),
    (f"{WEIGHTS} new.prototxt", f"{WEIGHTS}: not a text file; weights (.caffemodel) are given "
     "beside the net, not instead of it"),
    ("mixed.prototxt new.prototxt", "mixed.prototxt: has both 'layer' and 'layers'; rewrite the "
     "'layers { type: CONVOLUTION }' ones as 'layer { type: \"Convolution\" }'"),
    ("net.prototxt log.txt/new.prototxt", "log.txt/new.prototxt: not a directory"),
    ("net.prototxt snap", "snap: is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), UPGRADES, ids=[arguments for arguments, _ in UPGRADES]
)
def test_upgrade_mistakes(here: Path, arguments: str, message: str) -> None:
    Path("mixed.prototxt").write_text('layer { name: "a" } layers { name: "b" }')
    assert mistake("upgrade", *arguments.split()) == message
    assert not Path("new.prototxt").exists()


# data


def test_data_shapes(here: Path) -> None:
    assert output("data", "shapes", "set", "--train", 2, "--val", 1, "--seed", 3) == "set\n"
    lists = Path("set/ImageSets/Segmentation")
    assert lists.joinpath("train.txt").read_text().split() == ["train_0000", "train_0001"]
    assert lists.joinpath("val.txt").read_text().split() == ["val_0000"]


SETS = [
    ("snap", "snap: holds files, and none says that they are a synthetic set "
     "(.netspec-synthetic); name another folder"),
    ("log.txt", "log.txt: not a directory"),
    ("set --train 0", "0 and 40 images of 128x96; needed are some of each, 32x32 or more"),
    ("set --seed -1", "seed -1: needed is 0 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), SETS, ids=[arguments for arguments, _ in SETS])
def test_data_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("data", "shapes", *arguments.split()) == message


# layers


def test_layers_lists_what_there_is() -> None:
    head, rule, *rows = output("layers").splitlines()
    assert head.split() == ["type", "family", "bottoms", "tops", "blobs", "formula"]
    assert set(rule) == {"-", " "}
    assert [row.split()[0] for row in rows] == [entry.type for entry in entries()]


# The command itself


@pytest.mark.parametrize("verb", [[], *([name] for name in main.commands), ["data", "shapes"]])
def test_help(verb: list[str]) -> None:
    text = output(*verb, "--help")
    assert text.startswith("Usage: ")
    assert text == output(*verb, "-h")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("slove", "No such command 'slove'"),
        ("solve", "Missing argument 'SOLVER'"),
        ("draw net.prototxt", "Missing option '-o'"),
        ("solve solver.prototxt --max-iter many", "'many' is not a valid integer"),
        ("draw net.prototxt -o net.svg --phase tset", "'tset' is not one of 'train', 'test'"),
    ],
)
def test_usage(arguments: str, words: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr


def test_as_a_program(tmp_path: Path) -> None:
    """Status 1, the message on stderr, nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "netspec", "upgrade", "nowhere.prototxt", "new.prototxt"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "netspec: nowhere.prototxt: no such file\n"


def test_version() -> None:
    """Of a package that need not be installed."""
    assert output("--version").endswith(f", version {__version__}\n")
    assert __version__[0].isdecimal()
