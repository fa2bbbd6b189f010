"""Contenders of a benchmark and what is told of them; the compiler's time is in proportion."""

import json
import os
import sys
from pathlib import Path
from types import FrameType

import jax
import numpy as np
import pytest

from benchmarks import contenders, fcn8s, figures, frontend, ours, peers
from benchmarks.contenders import Absent, Child, Work
from netspec.frontend.net_graph import read_graph
from netspec.frontend.shapes import infer
from netspec.layers.fillers import fill
from netspec.proto.layers_pb2 import FillerParameter


def test_contenders_have_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that cannot, or compute something else, are left out with the reason."""
    names = ["first", "second"]
    monkeypatch.setattr(fcn8s, "CONTENDERS", dict.fromkeys(names, ("toys:Toy", {})))
    work = Work(5, "f32", "cpu", str(tmp_path))
    rows = list(fcn8s.measure(work, names, 1))
    assert [(row["work"], row["by"], row["peak MiB"]) for row in rows] == [
        ("forward", "first", 5.0),
        ("forward", "second", 5.0),
    ]
    assert capsys.readouterr().out == "".join(
        f"step without {name}: does not train\n" for name in names
    )
    child = Child("toys:Toy", work)
    assert child.ask("forward") != os.getpid()
    child.close()
    with pytest.raises(Absent, match=r"^computes in f32$"):
        Child("toys:Toy", Work(5, "bf16", "cpu", ""))
    with pytest.raises(Absent, match=r"^no_such_module is not installed$"):
        Child("no_such_module:Toy", work)


class Answers:
    """What a child answers, without a process."""

    def __init__(self, scores: float) -> None:
        self.found = scores

    def ask(self, method: str) -> np.ndarray:
        return np.array([10.0, self.found])


def test_who_computes_something_else_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    children = {name: Answers(x) for name, x in (("a", 5), ("b", 5.005), ("c", 6))}
    kept = fcn8s.agreeing(children, 1e-3)  # type: ignore[arg-type]
    assert list(kept) == ["a", "b"]
    assert capsys.readouterr().out == "without c: its scores are 0.1 from those of the first\n"


def test_figures_are_told_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[figures.Row] = [
        {"what": "a", "ms": 1.2345, "aim": None},
        {"what": "b", "ms": 12345.6, "aim": "less"},
    ]
    path = tmp_path / "figures.json"
    figures.tell([rows], {"cores": 2}, str(path))
    assert capsys.readouterr().out.splitlines() == [
        "cores 2",
        "",
        "| what | ms | aim |",
        "| --- | --- | --- |",
        "| a | 1.23 |  |",
        "| b | 12,346 | less |",
        "",
        str(path),
    ]
    assert json.loads(path.read_text()) == {"machine": {"cores": 2}, "tables": [rows]}
    assert figures.machine("numpy", "no-such-package").keys() >= {"processor", "cores", "numpy"}


def calls(layers: int) -> int:
    """How many Python functions the compiler calls for a net of so many layers."""
    found = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal found
        found += event == "call"

    compiler = frontend.stages(frontend.residual(layers))["all"]
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        compiler()
    finally:
        sys.setprofile(before)
    return found


def test_the_compiler_takes_time_in_proportion() -> None:
    """Counted in calls: a clock would err."""
    calls(100)
    assert calls(400) / calls(200) == pytest.approx(2, abs=0.05)


def test_peers_have_the_weights_of_the_published_net() -> None:
    """The upsampling of the peers is the filler's, and the work is that of the literature."""
    for kernel in (4, 16):
        filler = FillerParameter(type="bilinear_diagonal")
        ups = fill(filler, (21, 21, kernel, kernel), jax.random.key(0))
        np.testing.assert_array_equal(peers.bilinear(kernel), ups)
    net = infer(read_graph(ours.NETS / "deploy.prototxt"), {"data": (1, 3, 500, 500)})
    once = sum(once for once, _ in ours._products(net))
    assert once == pytest.approx(181.3e9, rel=2e-3)


def test_images_of_the_benchmark_have_labels_to_ignore() -> None:
    work = Work(20, "f32", "cpu", "folder")
    assert work.image().shape == (1, 3, 20, 20)
    assert set(np.unique(work.label())) <= {*map(float, range(contenders.CLASSES)), 255.0}
    assert 255 in work.label()
