"""The README tells the truth: its table, its Python, its commands."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from pages import missing_modules

from netspec.cli import main
from netspec.segmentation.shapes_set import write_dataset

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_code() -> None:
    assert load_tool("readme").written(README) == README


@pytest.mark.slow
def test_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As written, but for the number of steps."""
    monkeypatch.chdir(tmp_path)
    for folder in ("nets", "solvers"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    write_dataset("data/shapes", train=2, val=1)
    scope: dict[str, Any] = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(code.replace("step(100)", "step(2)"), scope)
    assert capsys.readouterr().out.startswith("(1, 6, 64, 64) (16, 3, 3, 3) (16,)")
    first, *_, last = scope["losses"]
    assert last < first
    assert scope["state"].exists()


def test_commands_exist() -> None:
    verbs = re.findall(r"^netspec ((?:data )?\w+)", "\n".join(code for _, code in BLOCKS), re.M)
    assert {"solve", "test", "segment", "draw", "upgrade", "data shapes"} <= set(verbs)
    for verb in set(verbs):
        result = CliRunner().invoke(main, [*verb.split(), "--help"])
        assert result.exit_code == 0, verb


def test_commands_that_may_run_python_say_so() -> None:
    """The list has --run-python for those that take it, and for no others."""
    listed = next(code for _, code in BLOCKS if code.startswith("netspec solve"))
    commands = re.findall(r"^netspec ((?:data )?\w+)(.*)$", listed.replace("\\\n", ""), re.M)
    assert {verb for verb, options in commands if "--run-python" in options} == {
        verb
        for verb, _ in commands
        if "--run-python" in CliRunner().invoke(main, [*verb.split(), "--help"]).output
    }


def test_ci_runs_the_test_command() -> None:
    (command,) = re.findall(r"^python3 -m venv .*pytest.*$", README, re.M)
    steps = [step.strip() for step in command.split("&&")]
    ci = (ROOT / ".ci" / "run").read_text()
    assert [step for step in steps if step not in ci] == []


def test_tools_the_readme_names_exist() -> None:
    named = set(re.findall(r"tools/\w+(?:\.py)?", README))
    assert named >= {"tools/demo", "tools/check"}
    for name in sorted(named):
        assert (ROOT / name).exists(), name


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_modules_that_the_pages_name_exist(page: Path) -> None:
    assert missing_modules(page.read_text(encoding="utf-8")) == []


def test_a_module_that_does_not_exist_is_found() -> None:
    text = "`netspec/errors.py`, `netspec/layers/precision.py`, netspec/a/b_c.py."
    assert missing_modules(text) == ["netspec/a/b_c.py", "netspec/layers/precision.py"]


def test_demo_uses_what_the_solver_writes() -> None:
    solver = (ROOT / "solvers" / "shapes-fcn8s.prototxt").read_text()
    prefix = re.search(r'snapshot_prefix: "(.*)"', solver)[1]
    iterations = re.search(r"max_iter: (\d+)", solver)[1]
    demo = (ROOT / "tools" / "demo").read_text()
    assert f"{prefix}_iter_{iterations}.caffemodel" in demo


@pytest.mark.parametrize("shell", [code for language, code in BLOCKS if language == "sh"])
def test_shell_is_well_formed(shell: str) -> None:
    plain = re.sub(r"[\[\]|]|\.\.\.", " ", shell)
    assert subprocess.run(["bash", "-n", "-c", plain], check=False).returncode == 0


def test_help_needs_no_jax() -> None:
    code = "import sys; from netspec.cli import main; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
