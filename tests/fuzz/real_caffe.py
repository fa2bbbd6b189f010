"""The check against a real Caffe, in a Python of its own: the same net, weights and inputs."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import checks
from .trial import Trial, Wrong

_WORKER = Path(__file__).parent / "caffe_worker.py"


class RealCaffe:
    """A process that runs nets with Caffe; started anew when Caffe has aborted."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._process: subprocess.Popen[str] | None = None
        self._log = Path(tempfile.mkdtemp(prefix="netspec_fuzz_")) / "caffe.log"

    def run(self, net: Path, phase: str, arrays: dict[str, Any]) -> dict[str, Any]:
        """What Caffe makes of a net; raises Wrong with its last words where it refuses it."""
        given, out = net.with_name("given.npz"), net.with_name("made.npz")
        np.savez(given, **arrays)  # type: ignore[arg-type]
        task = {"net_file": str(net), "phase": phase, "arrays": str(given), "out": str(out)}
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("fuzz "):
                break
        else:
            raise Wrong(f"Caffe aborts: {self._last_words()}")
        if line.strip() != "fuzz ok":
            raise Wrong(f"Caffe raises {line.removeprefix('fuzz ').strip()}")
        with np.load(out) as made:
            return dict(made)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            pipe = subprocess.PIPE
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [self._python, str(_WORKER)], stdin=pipe, stdout=pipe, stderr=log, text=True
                )
        return self._process

    def _last_words(self) -> str:
        assert self._process is not None
        self._process.wait()
        lines = self._log.read_text(errors="replace").splitlines()
        said = [line for line in lines if "Check failed" in line]
        return said[-1].split("] ", 1)[-1][:200] if said else "without a word"


def checks_with(python: str) -> dict[str, checks.Check]:
    """The checks against the Caffe that a Python imports."""
    real = RealCaffe(python)

    def caffe(trial: Trial) -> None:
        """Caffe's own passes give the same values and gradients."""
        trial.settled()
        checks.has_backward(trial)
        against(trial, real)

    return {"caffe": caffe}


def against(trial: Trial, real: RealCaffe) -> None:
    """Compare a net with what Caffe makes of it."""
    graph, face = trial.graph, trial.face
    start, seeds = checks.reached_seeds(trial)
    given = {f"in/{name}": trial.fed_by_name[name] for name in graph.inputs}
    for layer, blobs in checks.by_layer(trial).items():
        given |= {f"param/{layer}/{k}": array for k, array in enumerate(blobs)}
    given |= {f"seed/{name}": seed for name, seed in seeds.items()}
    made = real.run(trial.path, trial.draft.phase, given)
    params, fed, values, _ = trial.gradients(start)
    for name, i in graph.blobs.items():
        want = made[f"data/{name}"]
        checks.compare_value(trial, f"data of {name}", i, {**trial.fed, **values}[i], want)
    most = checks.greatest(*params.values(), *fed.values())
    for n, node in enumerate(graph.nodes):
        for k, key in enumerate(face.keys[n]):
            if face.trained(key) and face.learned[key]:
                want = made[f"param_diff/{node.name}/{k}"]
                got = params[key].reshape(want.shape)
                checks.compare(f"diff of {node.name}[{k}]", got, want, 1e-4, 1e-5 * most)
    for name in graph.inputs if face.forced() else ():
        i = graph.first_blobs[name]
        checks.compare(f"diff of {name}", fed[i], made[f"diff/{name}"], 1e-4, 1e-5 * most)
