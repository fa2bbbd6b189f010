"""The command's groups know their verbs without importing them."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from netspec.cli import main
from netspec.cli.lazy import LazyCommand, add_lazily

ROOT = Path(__file__).resolve().parents[1]
CLI = ROOT / "netspec" / "cli"


def verbs(group: click.Group, prefix: str = "") -> dict[str, LazyCommand]:
    found: dict[str, LazyCommand] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= verbs(command, f"{prefix}{name} ")
        else:
            assert isinstance(command, LazyCommand)
            found[f"{prefix}{name}"] = command
    return found


VERBS = verbs(main)


def run(script: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_all_verbs_are_there() -> None:
    assert {"solve", "segment", "data lmdb", "caffe train", "caffe draw_net"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_summary_is_that_of_the_docstring(verb: str) -> None:
    command = VERBS[verb].command
    assert command.name == verb.split()[-1]
    for limit in (20, 60, 200):
        assert VERBS[verb].get_short_help_str(limit) == command.get_short_help_str(limit)


def test_every_command_of_a_module_is_in_a_group() -> None:
    """A verb that no group names could not be called."""
    reachable = {id(verb.command) for verb in VERBS.values()}
    for path in sorted(CLI.glob("*.py")):
        module = import_module(f"netspec.cli.{path.stem}")
        for name, value in vars(module).items():
            if isinstance(value, click.Command) and not isinstance(value, click.Group):
                assert id(value) in reachable, f"{path.stem}.{name}"


def test_a_command_is_imported_when_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    group = click.Group("group")
    add_lazily(group, {"upgrade": {"upgrade": "Say."}, "nowhere": {"lost": "Fail."}})
    monkeypatch.delitem(sys.modules, "netspec.cli.upgrade", raising=False)
    group(["--help"], standalone_mode=False)
    assert "netspec.cli.upgrade" not in sys.modules
    assert "upgrade  Say." in capsys.readouterr().out
    group(["upgrade", "--help"], standalone_mode=False)
    assert "netspec.cli.upgrade" in sys.modules
    with pytest.raises(ModuleNotFoundError):
        group(["lost"], standalone_mode=False)


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["caffe", "--help"]])
def test_help_of_a_group_imports_no_verb(arguments: list[str]) -> None:
    """Nor a library but click: that is what keeps it under 0.2 s."""
    done = run(
        "import sys\nbefore = set(sys.modules)\nfrom netspec.cli import main\n"
        f"try:\n    main({arguments})\n"
        "finally:\n    print(*sorted(set(sys.modules) - before))"
    )
    assert done.stdout.startswith("Usage:"), done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    ours = {name for name in loaded if name.split(".")[0] == "netspec"}
    assert ours <= {
        "netspec", "netspec.reporting.version", "netspec.errors", "netspec.reporting",
        "netspec.reporting.glog", "netspec.cli",
        *(f"netspec.cli.{part}" for part in ("verbs", "lazy", "data", "caffe", "caffe_flags")),
    }  # fmt: skip
    libraries = {name.split(".")[0] for name in loaded - ours} - set(sys.stdlib_module_names)
    assert libraries <= {"click"}


@pytest.mark.parametrize(
    "command",
    [
        "caffe upgrade_net_proto_text old.prototxt new.prototxt",
        "caffe upgrade_solver_proto_text lost new.prototxt",
        "caffe -nonsense train",
    ],
)
def test_verbs_that_compute_nothing_import_no_jax(command: str, tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text('layers { type: RELU name: "a" bottom: "x" top: "x" }')
    done = run(
        "import sys\nfrom netspec.cli import main\n"
        f"try:\n    main({command.split()})\nfinally:\n    print('jax' in sys.modules)",
        tmp_path,
    )
    assert done.stdout.endswith("False\n"), done.stderr


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.stem)
def test_modules_import_at_their_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in tree.body
    ]
    assert late == []
