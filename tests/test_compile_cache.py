"""Compiling is counted, and what was compiled serves the next start."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner

from netspec.cli import main
from netspec.cli.train import _Compiled
from netspec.runtime import compile_cache
from netspec.runtime.compile_cache import Compiles, keep_programs


class Config(SimpleNamespace):
    """JAX's settings, so far as they matter."""

    def update(self, name: str, value: Any) -> None:
        setattr(self, name, value)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """Settings of a user who set nothing, whose caches are in ``tmp_path / "home"``."""
    found = Config(jax_compilation_cache_dir=None, jax_enable_compilation_cache=True)
    monkeypatch.setattr(compile_cache, "jax", SimpleNamespace(config=found))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    return found


def kept() -> list[str]:
    """What is warned of."""
    warnings: list[str] = []
    keep_programs(warnings.append)
    return warnings


def test_programs_are_kept_where_only_the_user_may_write(config: Config, tmp_path: Path) -> None:
    assert kept() == []
    folder = Path(config.jax_compilation_cache_dir)
    assert folder.parent == tmp_path / "home" / "netspec"
    for made in (folder, folder.parent, tmp_path / "home"):
        assert made.stat().st_mode & 0o777 == 0o700
    assert config.jax_compilation_cache_max_size == 2 << 30
    assert config.jax_persistent_cache_min_compile_time_secs == 0.1


def test_what_the_user_set_stays(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    assert kept() == []
    assert not hasattr(config, "jax_persistent_cache_min_compile_time_secs")


@pytest.mark.parametrize(
    "given",
    [
        {"jax_compilation_cache_dir": "mine", "jax_enable_compilation_cache": True},
        {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": False},
    ],
)
def test_a_folder_of_ones_own_and_none_at_all(
    config: Config, tmp_path: Path, given: dict[str, Any]
) -> None:
    config.__dict__.update(given)
    assert kept() == []
    assert config.__dict__ == given
    assert not (tmp_path / "home").exists()


def opened(home: Path) -> None:
    (home / "netspec").mkdir(parents=True)
    (home / "netspec").chmod(0o770)


def filled(home: Path) -> None:
    home.mkdir()
    (home / "netspec").write_text("")


@pytest.mark.parametrize(
    ("prepare", "uid", "reason"),
    [
        (opened, None, "others may write to {home}/netspec"),
        (filled, None, "{home}/netspec: file exists"),
        (Path.mkdir, 12345, "{home} belongs to another user"),
        (opened, 12345, "{home}/netspec belongs to another user"),
    ],
)
def test_a_folder_that_cannot_be_trusted_is_not_used(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], None],
    uid: int | None,
    reason: str,
) -> None:
    home = tmp_path / "home"
    prepare(home)
    if uid is not None:
        monkeypatch.setattr(os, "getuid", lambda: uid)
    with pytest.raises(UserWarning, match=_whole(reason.format(home=home))):
        keep_programs(_raise)
    assert config.jax_compilation_cache_dir is None


def _whole(reason: str) -> str:
    return f"^compiled programs are not kept: {reason}; JAX_COMPILATION_CACHE_DIR names another$"


def _raise(warning: str) -> None:
    raise UserWarning(warning)


def test_root_makes_nothing_in_another_users_home(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = os.stat_result((0o40755, 0, 0, 2, 12345, 12345, 0, 0, 0, 0))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(Path, "stat", lambda self, **_: theirs)
    assert kept() == [
        f"compiled programs are not kept: {tmp_path}/home belongs to another user; "
        "JAX_COMPILATION_CACHE_DIR names another"
    ]


def test_without_a_home_nothing_is_kept(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    (warning,) = kept()
    assert "there is no home folder" in warning
    assert config.jax_compilation_cache_dir is None


def test_compiles_are_counted_while_it_is_open() -> None:
    def double(x: jax.Array) -> jax.Array:
        return jnp.linalg.norm(x) * 2

    function, x, y = jax.jit(double), jnp.ones((3, 2)), jnp.ones((5, 2))
    with Compiles() as compiles:
        function(x)
        assert compiles.count == 1
        function(x)
        assert compiles.count == 1
        function(y)
        assert compiles.count == 2
    function(jnp.ones((7, 2)))
    assert compiles.count == 2
    assert 0 < compiles.xla < compiles.seconds


def test_spans_within_spans_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function traced inside another, then that, then what XLA does, then one of another."""
    trace, _, compiled = compile_cache._STAGES
    compiles = Compiles()
    for now, event, seconds in (
        (2.0, trace, 0.5),
        (3.0, trace, 2.0),
        (13.0, compiled, 9.5),
        (20.0, "/jax/something/else", 6.0),
        (21.0, compiled, 1.0),
    ):
        monkeypatch.setattr(compile_cache, "perf_counter", lambda now=now: now)
        compiles._hear(event, seconds, fun_name="f")
    assert str(compiles) == "compiled in 12.5 s (XLA 10.5)"
    assert compiles.count == 2
    for _ in range(2):
        compiles._hear(compile_cache._READ, 0.1)
    assert str(compiles) == "compiled before: read back in 12.5 s"


def test_a_run_says_once_what_compiling_took() -> None:
    """After the first step; nothing if nothing was compiled."""
    for compiles, expected in ((Compiles(), []), (Compiles(), ["compiled in 2.0 s (XLA 2.0)"])):
        said: list[str] = []
        told = _Compiled(compiles, cast(Any, SimpleNamespace(say=said.append)))
        for event in [compile_cache._COMPILED] * len(expected):
            compiles._hear(event, 2.0)
        for _ in range(2):
            told.step(cast(Any, None), cast(Any, None))
        assert said == expected


SCRIPT = """
import jax
import netspec
netspec.load
assert jax.config.jax_compilation_cache_dir is None, "changed by an import"
from netspec.runtime.compile_cache import Compiles, keep_programs
keep_programs(print)
with Compiles() as compiles:
    jax.jit(lambda x: x + 1)(1.0)
print(compiles.count, compiles.read)
"""


def test_the_second_start_reads_back(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    }
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    command = [sys.executable, "-c", SCRIPT]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    ]
    assert [done.stdout.split() for done in said] == [["1", "0"], ["1", "1"]]
    assert [done.stderr for done in said] == ["", ""]


@pytest.mark.parametrize("command", ["solve no", "test no", "segment no no no"])
def test_verbs_that_compile_keep_programs(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they do anything else."""
    monkeypatch.setattr(compile_cache, "keep_programs", lambda warn: warn("here"))
    result = CliRunner().invoke(main, command.split())
    assert result.stderr.startswith("netspec: warning: here\nnetspec: no: no such file")
