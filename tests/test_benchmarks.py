"""How figures are taken; the figures themselves stand in the documents."""

from pathlib import Path

import pytest

from benchmarks import data, lowering, rounds, scale, shapes
from netspec.runtime.masked_shapes import rounded


def test_runs_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round is not counted."""
    now = 0.0
    turns: list[str] = []
    seconds = {"a": iter([9.0, 1.0, 5.0, 2.0]), "b": iter([9.0, 4.0, 4.0, 0.5])}

    def run(name: str, things: int) -> int:
        nonlocal now
        turns.append(name)
        now += next(seconds[name])
        return things

    def used() -> float:
        """Two cores, all the time."""
        return 2 * now

    monkeypatch.setattr(rounds, "perf_counter", lambda: now)
    monkeypatch.setattr(rounds, "process_time", used)
    found = rounds.rates({"a": lambda: run("a", 6), "b": lambda: run("b", 2)}, 3)
    assert turns == ["a", "b"] * 4
    assert found == {"a": (3, 2), "b": (0.5, 2)}


def test_a_device_stands_idle_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps may be under way before the host waits for the first."""
    now = 10.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(data, "perf_counter", lambda: now)
    monkeypatch.setattr(data, "sleep", sleep)
    device = data.Device(made=None)  # type: ignore[arg-type]
    device.update(None)
    device.idle = 0.0
    device.update(None)
    assert now == 10.0
    device.update(None)
    assert now == pytest.approx(10 + data.STEP)
    # The third ends after three steps; the host is late by half a step.
    now = 10 + 3.5 * data.STEP
    device.update(None)
    assert device.idle == pytest.approx(0.5 * data.STEP)


def test_layers_of_the_benchmark_read_the_same(tmp_path: Path) -> None:
    folder = data.write_dataset(tmp_path / "set", train=2, val=1, size=(32, 48))
    assert data.opened(data.listed_layer(folder)).batches == 3
    with data.opened(data.voc_layer(folder)) as source:
        assert data.drained(source, 2) == 2
        assert source.tops["data"] == (1, 3, 32, 48)
    augmented = data.opened(data.listed_layer(folder, data.AUGMENTED))
    assert augmented.next()["label"].shape == (1, 1, 321, 321)
    rows = [data.Row("a", 1.2345, "b", "c"), data.Row("a", 12345, "b", cores=0.5)]
    assert data.table(rows).splitlines()[2:] == [
        "| a | 1.23 b |  | c |",
        "| a | 12,345 b | 0.50 |  |",
    ]


def test_images_of_vocs_sizes_need_few_programs_and_little_room() -> None:
    """What the first one has to itself counts, too."""
    sizes = shapes.sizes()
    assert len(sizes) == 200
    assert len(set(sizes)) == 120
    assert all(max(size) == 500 and min(size) >= 281 for size in sizes)
    assert {height > width for height, width in sizes} == {True, False}
    assert 1 + len({(rounded(height), rounded(width)) for height, width in sizes}) <= 8
    assert 0 < shapes.pixels_added(sizes, sizes[0]) < 0.15
    assert shapes.pixels_added([(100, 200), (100, 100)], (100, 100)) == pytest.approx(5088 / 30000)


def test_efficiency_is_steps_over_those_of_one_device() -> None:
    """Devices take a batch each."""
    assert scale.counts(1) == [1]
    assert scale.counts(6) == [1, 2, 4, 6]
    assert scale.counts(8) == [1, 2, 4, 8]
    cases, found = [(1, False), (4, True)], [rounds.Rate(10, 1.5), rounds.Rate(9, 2)]
    assert scale.rows(cases, found, [None, 3 << 20])[1] == {
        "devices": "4",
        "learned arrays": "in parts",
        "steps/s": 9,
        "batches/s": 36,
        "efficiency": 0.9,
        "MiB a device": 3,
        "cores had": 2,
    }


def test_layers_are_measured_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    small = lowering.convolution((1, 5, 7, 2), 3, lowering.square(3, pad=1))
    monkeypatch.setattr(lowering, "WORKS", {"conv": small})
    rows = list(lowering.measure("conv", rounds=1))
    assert [row["work"] for row in rows] == ["forward", "with gradients"]
    assert all(row["image"] == "1x5x7x2" and float(row["times"] or 0) > 0 for row in rows)
