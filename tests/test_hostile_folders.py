"""Folders that turn unwritable, fill up, or hold links and damaged files that others put there."""

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from command_line import DEPLOY

from netspec.errors import SolverError, nearest
from netspec.formats.atomic import exclusive_lock, open_no_link, remove_leftovers
from netspec.frontend.prototxt import parse_net
from netspec.proto.solver_pb2 import SolverParameter
from netspec.reporting import event_logs
from netspec.reporting.event_logs import JsonLog
from netspec.solving.snapshots.store import Store


def test_a_lock_is_given_back_in_a_folder_that_turned_unwritable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / ".t.lock"

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    def run() -> None:
        with exclusive_lock(lock) as other:
            assert other is None
            monkeypatch.setattr(Path, "unlink", refused)
            raise SolverError("cannot write snapshot")

    with pytest.raises(SolverError, match=r"^cannot write snapshot$"):
        run()
    (tmp_path / ".t_iter_1.x.999999999.part").touch()
    remove_leftovers(tmp_path, "t")
    # The file stays, and keeps nobody out.
    assert lock.exists()
    with exclusive_lock(lock) as other:
        assert other is None


def test_links_are_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("mine")
    link.symlink_to(target)
    with pytest.raises(OSError, match="link"):
        open_no_link(link)
    with exclusive_lock(link) as other:
        assert other is None
    said: list[str] = []
    JsonLog(link, said.append).warn("trouble")
    assert len(said) == 1
    assert said[0].startswith(f"cannot write the log {link}: ")
    assert target.read_text() == "mine"


def test_a_lock_that_is_a_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".t.lock").symlink_to(tmp_path / "target")
    param = SolverParameter(snapshot_prefix=str(tmp_path / "t"))
    store = Store(param, None, print, print, print)
    with pytest.raises(SolverError) as raised:
        store.claimed().__enter__()
    assert str(raised.value) == (
        f"{tmp_path}/.t.lock: a symbolic link, where the run's lock is to be; remove it"
    )
    assert (tmp_path / "target").read_text() == "mine"


def test_a_line_without_room_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, said = tmp_path / "log.jsonl", list[str]()
    log = JsonLog(path, said.append)
    log.warn("one")

    class Full:
        """A file on a disk that has room for a few bytes."""

        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, line: bytes) -> int:
            return self.file.write(line[:9])

    with monkeypatch.context() as patch:
        opened = open
        patch.setattr(event_logs, "open", lambda *a, **k: Full(opened(*a, **k)), raising=False)
        log.warn("two")
    log.warn("three")
    assert said == [f"cannot write the log {path}: no space left on device"]
    lines = path.read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one", "three"]


DAMAGE = {"empty": lambda content: b"", "cut": lambda content: content[: len(content) // 2]}
SCRIPT = """
import jax
from netspec.runtime.compile_cache import Compiles, keep_programs
keep_programs(print)
with Compiles() as compiles:
    jax.jit(lambda x: x + 1)(1.0)
print(compiles.count, compiles.read)
"""


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_of_the_compile_cache_is_replaced(damage: str, tmp_path: Path) -> None:
    chosen = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "XDG_CACHE_HOME": str(tmp_path),
    }

    def start() -> list[str]:
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stderr == ""
        return done.stdout.split()

    assert start() == ["1", "0"]
    [entry] = tmp_path.rglob("*-cache")
    entry.write_bytes(DAMAGE[damage](entry.read_bytes()))
    assert start() == ["1", "0"]
    assert start() == ["1", "1"]


def test_a_name_of_megabytes_takes_time_and_memory_in_proportion() -> None:
    text = DEPLOY.replace('name: "conv"', f'name: "{"n" * 10_000_000}"')
    tracemalloc.start()
    start = time.perf_counter()
    net = parse_net(text)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(net.message.layer[1].name) == 10_000_000
    assert seconds < 10
    assert peak < 200e6


def test_a_name_of_megabytes_is_compared_with_none() -> None:
    start = time.perf_counter()
    assert nearest("n" * 1_000_000 + "x", ["n" * 1_000_000]) == ""
    assert nearest("relu", ["n" * 1_000_000, "ReLU"]) == '; did you mean "ReLU"?'
    assert time.perf_counter() - start < 1
