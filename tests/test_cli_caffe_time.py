"""Caffe's verb ``time``, and the devices that runs are given."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from caffe_command_line import NUMBER, WEIGHTS, lines, run
from caffe_command_line import here as here
from caffe_command_line import made as made
from caffe_command_line import settings as settings
from caffe_command_line import trained as trained

from netspec.cli import train
from netspec.cli.train import Options
from netspec.errors import NetSpecError
from netspec.runtime import devices
from netspec.solving.distributed.launch import DeviceOptions

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
    steps = log[began + 2 : times]
    assert len(steps) == 2
    assert all(
        re.fullmatch(rf"Iteration: {i} forward-backward time: {NUMBER} ms\.", line)
        for i, line in enumerate(steps, 1)
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


@pytest.mark.differs("gpu-number")
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
        assert asked.pop().scale == DeviceOptions(devices=count)
        numbers = "0, 1" if count == "2" else "1"
        assert told == [f"Using GPUs {numbers}", *(f"GPU {i}: G" for i in numbers.split(", "))]
    refused = run("train", f"--solver={solver}", "--gpu=1,0")
    assert "CUDA_VISIBLE_DEVICES=1,0 and --gpu=all take these" in refused.output
