"""Several processes make the updates of one, and a process that is lost ends them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import jax
import numpy as np
import pytest
from scale_runs import environment, write_nets

from netspec.errors import Place, SolverError, SourceError, require
from netspec.frontend.net_graph import read_graph
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import TRAIN, LayerParameter
from netspec.solving.callback import Callback
from netspec.solving.distributed import rendezvous
from netspec.solving.distributed.launch import DeviceOptions, joined
from netspec.solving.distributed.mesh import Mesh, PassFeed
from netspec.solving.distributed.peers import Peers
from netspec.solving.distributed.rendezvous import Where, free_port, meet
from netspec.solving.evaluation import Evaluation
from netspec.solving.options import SolverOptions
from netspec.solving.snapshots import store
from netspec.solving.solver import Solver
from netspec.sources.base import Batch, ParallelSource
from netspec.sources.feed import Feed
from netspec.sources.shard import Share
from netspec.weights.caffemodel import read_weights

TWO = (
    'net: "sizes.prototxt" base_lr: 0.001 lr_policy: "fixed" momentum: 0.9 random_seed: 3 '
    "max_iter: {end} snapshot: 2 display: 1 test_iter: 2 test_interval: 2 "
    'snapshot_prefix: "{name}/run" iter_size: {iter_size}\n'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write_nets(tmp_path)
    return tmp_path


class Numbers(ParallelSource):
    """0, 1, 2, ...; ``made``: those that were asked for."""

    def __init__(self) -> None:
        super().__init__(LayerParameter(), TRAIN, 0, Place(""))
        self.position = 0
        self.made: list[int] = []

    @property
    def tops(self) -> dict[str, Shape]:
        return {"n": (self.position,)}

    def job(self) -> Any:
        number = self.position
        self.position += 1
        self.current = str(number)

        def make() -> Batch:
            self.made.append(number)
            return {"n": np.array([number], np.float32)}

        return make

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def restore(self, state: Any) -> None:
        self.position = state["position"]

    batches = 10

    def describe(self) -> str:
        return "numbers"


def test_processes_read_without_overlap() -> None:
    """Two of six each; all stand at the same place after each turn, wherever they begin."""
    for start, peeks in ((0, True), (6, False), (13, True)):
        read = []
        for process in range(3):
            source = Numbers()
            share = Share(source, 2 * process, 2, 6)
            share.restore({"position": start})
            if peeks:
                assert share.tops == {"n": (start + 2 * process,)}
                assert share.state() == {"position": start}
            for turn in range(1, 3):
                for _ in range(2):
                    read.append(int(share.next()["n"][0]))
                    assert share.current == str(read[-1])
                assert share.state() == {"position": start + 6 * turn}
            assert source.made == read[-4:]
        assert sorted(read) == list(range(start, start + 12))


@pytest.mark.parametrize("net", ["rows", "sizes"])
def test_shuffled_data_are_dealt_out(folder: Path, net: str) -> None:
    """To three processes in turn, over several passes."""
    graph = read_graph(f"{net}.prototxt", "train")
    with ExitStack() as stack:
        whole = stack.enter_context(Feed(graph, seed=3))
        parts = [
            stack.enter_context(Feed(graph, seed=3, share=partial(Share, first=i, count=1, of=3)))
            for i in range(3)
        ]
        for turn in range(12):
            expected, mine = whole.next(), parts[turn % 3].next()
            assert whole.current == parts[turn % 3].current
            for name, array in expected.items():
                np.testing.assert_array_equal(mine[name], array)
        assert all(part.state() == whole.state() for part in parts)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (DeviceOptions(devices="many"), '--devices many: a number from 1 on, or "all"'),
        (
            DeviceOptions(devices="99"),
            r"--devices 99: JAX finds \d+ cpu devices? \(to try it out: XLA_FLAGS=--xla_force_\w+"
            r"=99 makes virtual ones\)",
        ),
        (
            DeviceOptions(shard_params=True),
            "--shard-params lays a part .* and this run has one; give --dev",
        ),
        (DeviceOptions(processes="auto", process=1), "--processes auto asks the cluster for"),
        (DeviceOptions(processes="2"), "--coordinator, --processes and --process go together"),
        (
            DeviceOptions(coordinator="h:1", processes="2"),
            "--coordinator, --processes and --process go",
        ),
        (
            DeviceOptions("1", None, False, "h:1", "two", 0),
            '--processes two: a number from 1 on, or "auto',
        ),
        (
            DeviceOptions("1", None, False, "h:1", "2", 2),
            "--process 2: 2 processes are counted from 0 to",
        ),
        (DeviceOptions("1", None, False, "host", "2", 0), "--coordinator host: give HOST:PORT"),
    ],
)
def test_what_cannot_be_had(scale: DeviceOptions, message: str) -> None:
    with pytest.raises(SolverError, match=message), joined(scale):
        pass


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def initialize() -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    message = "^--processes auto: JAX finds no cluster here .*; give --coordinator"
    with pytest.raises(SolverError, match=message), joined(DeviceOptions(processes="auto")):
        pass


def by_hand(process: int, port: int) -> tuple[list[str], dict[str, str]]:
    """What one of two processes is started with: options, and what it finds in its environment."""
    where = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process", f"{process}"]
    return where, {}


def by_slurm(process: int, port: int) -> tuple[list[str], dict[str, str]]:
    """As ``srun`` starts it, and JAX finds out; it goes by a port that it makes of the job's."""
    found = {"JOB_ID": port, "STEP_NODELIST": "localhost", "NTASKS": 2}
    found |= {"PROCID": process, "LOCALID": process}
    return ["--processes", "auto"], {f"SLURM_{name}": f"{value}" for name, value in found.items()}


Launcher = Callable[[int, int], tuple[list[str], dict[str, str]]]


def start(folder: Path, solver: str, launcher: Launcher) -> list[subprocess.Popen[str]]:
    """Two processes of one run."""
    port = free_port()
    begun = []
    for process in range(2):
        options, found = launcher(process, port)
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "netspec", "solve", solver, "--shard-params", *options],
                cwd=folder,
                env={**environment(), **found},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return begun


@pytest.mark.slow
def test_two_processes_are_one(folder: Path) -> None:
    """They learn what one does, test as it does, and one of them talks and writes."""
    Path("two.prototxt").write_text(TWO.format(end=4, name="two", iter_size=1))
    Path("one.prototxt").write_text(TWO.format(end=4, name="one", iter_size=2))
    processes = start(folder, "two.prototxt", by_hand)
    tests: list[tuple[int, float]] = []

    class Tested(Callback):
        def test(self, solver: Solver, index: int, result: Evaluation) -> None:
            tests.append((solver.iteration, result.metrics["score"].mean_iu))

    one = Solver.from_file("one.prototxt", SolverOptions(Tested()))
    one.solve()
    one.close()
    (out, error), (quiet, quiet_error) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], error + quiet_error
    assert "devices   2 (cpu) of 2 processes, a batch each, learned arrays in parts" in out
    assert out.count("Snapshotting solver state") == 2
    # Gloo has a line of its own.
    assert [line for line in quiet.splitlines() if "Gloo" not in line] == []
    files = {path.name for path in Path("one").iterdir()}
    assert {path.name for path in Path("two").iterdir()} == files | {"run.log.jsonl"}
    logged = [json.loads(line) for line in Path("two/run.log.jsonl").read_text().splitlines()]
    assert [iteration for iteration, _ in tests] == [0, 2, 4]
    assert tests == [
        (event["iteration"], pytest.approx(event["metrics"]["score"]["mean_iu"], rel=1e-6))
        for event in logged
        if event["event"] == "test"
    ]
    for iteration in (2, 4):
        name = f"run_iter_{iteration}"
        mine, expected = (read_weights(f"{run}/{name}.caffemodel").layers for run in ("two", "one"))
        for layer, blobs in expected.items():
            for i, blob in blobs.items():
                np.testing.assert_allclose(mine[layer][i].array, blob.array, 2e-5, 1e-6)
        records = [
            json.loads(Path(f"{run}/{name}.resume.json").read_text().split("\n")[1])
            for run in ("two", "one")
        ]
        assert records[0]["data"] == records[1]["data"]
        np.testing.assert_allclose(records[0]["losses"], records[1]["losses"], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "launcher"), [(0, by_hand), (1, by_slurm)])
def test_a_lost_process_ends_the_others(folder: Path, lost: int, launcher: Launcher) -> None:
    Path("two.prototxt").write_text(TWO.format(end=100000, name="two", iter_size=1))
    processes = start(folder, "two.prototxt", launcher)
    left = processes[1 - lost]
    end = time.monotonic() + 300
    while not Path("two/run_iter_2.solverstate").exists() and time.monotonic() < end:
        assert left.poll() is None, left.communicate()[1]
        time.sleep(0.05)
    assert Path("two/run_iter_2.solverstate").exists(), "no snapshot in five minutes"
    os.kill(processes[lost].pid, signal.SIGKILL)
    _, error = left.communicate(timeout=60)
    processes[lost].communicate()
    # JAX may be faster to crash for want of the service that it has in process 0, and says so.
    if lost == 0 and left.returncode == -signal.SIGABRT:
        assert "because the JAX distributed service detected fatal errors" in error
    else:
        assert left.returncode == 1, error
        assert f"netspec: process {lost} of 2 (counted from 0) is lost: " in error
        assert "; the last snapshot is two/run_iter_" in error
    found = store.latest("two/run", lambda _: None)
    assert found is not None
    assert found.state.iteration >= 2


def all_meet(count: int) -> tuple[list[Future[Peers]], ThreadPoolExecutor]:
    """Processes that find each other where process 0 tells the others to."""
    told: SimpleQueue[Where] = SimpleQueue()

    def tell(where: Where) -> Where:
        for _ in range(count - 1):
            told.put(where)
        return where

    pool = ThreadPoolExecutor(count)
    first = pool.submit(meet, 0, count, (["nowhere.invalid", "127.0.0.1"], 0), tell)
    others = [pool.submit(meet, i, count, ([], 0), lambda _: told.get()) for i in range(1, count)]
    return [first, *others], pool


def test_processes_hear_each_other() -> None:
    """From the first word on, however soon it comes; and all hear of a loss, by its number."""
    met, pool = all_meet(3)
    with pool:
        one, two = (other.result() for other in met[1:])
        heard = [
            pool.submit(peers.exchange, value) for peers, value in ((one, {"lost": 0}), (two, [2]))
        ]
        zero = met[0].result()
        said = ["0", {"lost": 0}, [2]]
        assert zero.exchange("0") == said
        assert [each.result() for each in heard] == [said] * 2
    two.close()
    with (
        pytest.raises(SolverError, match=r"^process 2 of 3 .* is lost: .*; nothing is saved$"),
        zero.needed(lambda: "nothing is saved"),
    ):
        zero.exchange(None)
    with pytest.raises(SolverError, match=r"^process 2 of 3 .* is lost: .* cannot be reached$"):
        one.exchange(None)
    for left in (one, zero):
        left.close()


def test_a_mistake_is_told_though_a_process_is_lost() -> None:
    """All may leave for the same reason, one of them first."""
    met, pool = all_meet(2)
    with pool:
        zero, one = (each.result() for each in met)

    def fails() -> None:
        with zero.needed(lambda: "nothing is saved"):
            one.close()
            while zero.lost is None:
                time.sleep(0.01)
            raise SolverError("not finite")

    with pytest.raises(SolverError, match=r"^not finite$"):
        fails()
    zero.close()


def test_what_one_process_cannot_read_ends_all() -> None:
    """With its words. Before, what one of them wants, all do."""
    met, pool = all_meet(2)
    with pool:
        zero, one = (Mesh(peers=each.result()) for each in met)

        def feed(mesh: Mesh, bad: int, stop: bool) -> Future[list[PassFeed]]:
            def read(micro: int) -> PassFeed:
                require(micro != bad, "3.png: damaged", SourceError)
                return PassFeed(micro, {}, "")

            return pool.submit(mesh.feed, read, 1, {"stop": stop, "snapshot": False})

        fed = [feed(zero, bad=2, stop=False), feed(one, bad=2, stop=True)]
        assert [each.result()[0].micro for each in fed] == [0, 1]
        for mesh in (zero, one):
            assert mesh.wants("stop", False)
            assert not mesh.wants("snapshot", True)
        apart = [pool.submit(mesh.check_together, i) for mesh, i in ((zero, 0), (one, 6))]
        for goes_on in apart:
            with pytest.raises(
                SolverError, match=r"^process 1 goes on from iteration 6, process 0 "
            ):
                goes_on.result()
        failed = [feed(zero, bad=1, stop=False), feed(one, bad=1, stop=False)]
        for each, said in zip(failed, ("process 1: 3.png: damaged", "3.png: damaged"), strict=True):
            with pytest.raises(SourceError, match=f"^{said}$"):
                each.result()
    for mesh in (one, zero):
        mesh.peers.close()


def test_processes_that_do_not_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_PATIENCE", 1)
    port = free_port()
    here = (["127.0.0.1"], port)
    with pytest.raises(SolverError, match=f"^process 1 of 2 did not .* 1 s: 127.0.0.1:{port}: "):
        meet(1, 2, here)
    with pytest.raises(SolverError, match=r"^after 1 s process 1, 2 of 3 is not here \(0 others "):
        meet(0, 3, here)
    busy = f"^process 0 cannot listen at port {port}: Address"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(SolverError, match=busy):
        meet(0, 2, here)
    monkeypatch.setattr(rendezvous, "_PATIENCE", 20)
    with ThreadPoolExecutor(3) as pool:
        zero, one = pool.submit(meet, 0, 3, here), pool.submit(meet, 1, 3, here)
        peers = one.result()
        with pytest.raises(SolverError, match=r"^process 1 of 3: there is a process 1 already$"):
            meet(1, 3, here)
        with pytest.raises(SolverError, match=r"^process 1 of 2: process 0 is one of 3, and this "):
            meet(1, 2, here)
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        # One that was ended while it waited may be started again.
        asked = pool.submit(peers.exchange, None)
        peers.close()
        assert isinstance(asked.exception(), SolverError)
        peers = meet(1, 3, here)
        for each in (peers, meet(2, 3, here), zero.result()):
            each.close()
