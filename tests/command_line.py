"""The command line, on a set of tiny pictures and a net to go with them."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from netspec.cli import main
from netspec.segmentation.shapes_set import write_dataset

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


@pytest.fixture(scope="session")
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


def changed(name: str, old: str, new: str) -> str:
    """A copy of a file with something else in it, by its own name with ``_changed``."""
    text = Path(name).read_text()
    assert old in text
    copy = name.replace(".", "_changed.")
    Path(copy).write_text(text.replace(old, new))
    return copy


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
