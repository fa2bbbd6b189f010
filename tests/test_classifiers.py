"""The small classifiers learn from a user's databases, by the commands that the nets name."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sweeps import first_of_each

from netspec.cli import main
from netspec.weights.caffemodel import read_weights

ROOT = Path(__file__).resolve().parents[1]


# What runs twice is not worth the time that making it fast takes.
pytestmark = pytest.mark.usefixtures("hasty")


def command(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def databases(train: str, test: str, size: int, channels: int) -> None:
    """Ten plain images, each of its own brightness, in both."""
    Path("images").mkdir()
    for label in range(10):
        pixels = np.full((size, size, channels), 25 * label, np.uint8)
        Image.fromarray(pixels.squeeze()).save(f"images/{label}.png")
    Path("list.txt").write_text("".join(f"{label}.png {label}\n" for label in range(10)))
    gray = ["--gray"] if channels == 1 else []
    for folder in (train, test):
        command("data", "lmdb", "list.txt", folder, "--root", "images", *gray)


@pytest.mark.parametrize(
    ("name", "data", "size", "channels"),
    first_of_each([("lenet", "mnist", 28, 1), ("cifar10_quick", "cifar10", 32, 3)]),
)
def test_a_net_learns_from_a_database(
    name: str, data: str, size: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    databases(f"data/{data}_train_lmdb", f"data/{data}_test_lmdb", size, channels)
    for phase in ("train", "val"):
        path = Path("nets") / name / f"{phase}.prototxt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"batch_size: \d+", "batch_size: 5", (ROOT / path).read_text()))
    solver = (ROOT / "solvers" / f"{name}.prototxt").read_text()
    fewer = {"max_iter": 2, "test_iter": 1, "test_interval": 2, "display": 1}
    for field, value in fewer.items():
        solver = re.sub(rf"{field}: \d+", f"{field}: {value}", solver)
    Path("solver.prototxt").write_text(f"{solver}random_seed: 1\n")
    if name == "cifar10_quick":
        # As the nets' module says.
        said = re.search(r"netspec (data mean .*)", (ROOT / "nets" / "classifiers.py").read_text())
        assert said is not None
        command(*said[1].split())
    log = command("solve", "solver.prototxt")
    assert "Optimization Done." in log
    accuracies = re.findall(r"Test net output #\d: accuracy = ([\d.]+)", log)
    assert len(accuracies) == 2
    learned = read_weights(f"snapshots/{name}_iter_2.caffemodel").learned
    assert {"conv1", "conv2", "ip1", "ip2"} <= {*learned}
