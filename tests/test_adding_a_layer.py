"""docs/adding-a-layer.md tells the truth: what it says adds a layer that lacks nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, links

PAGE = ROOT / "docs" / "adding-a-layer.md"
BLOCK = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def follow(folder: Path) -> tuple[str, str]:
    """Do what the page says in a copy of the repository; its script, and what the page shows.

    A block names its file: a diff changes it, and other code goes to its end.
    """
    script, shown = "", ""
    for language, name, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "text":
            shown = code
        elif name == "use.py":
            script = code
        else:
            path = folder / name
            text = path.read_text(encoding="utf-8")
            path.write_text(
                changed(text, code) if language == "diff" else f"{text}\n\n{code}", encoding="utf-8"
            )
    return script, shown


def changed(text: str, diff: str) -> str:
    """A text after a diff whose lines are added or stay."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] == " ")
    assert text.count(before) == 1, f"the page changes what is not there:\n{diff}"
    return text.replace(before, "".join(line[1:] for line in lines))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the page changes or runs."""
    for name in ("netspec", "protos", "tools", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("golden"))
    (tmp_path / "tests" / "golden").symlink_to(ROOT / "tests" / "golden")
    for name in ("README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.slow
def test_the_page_adds_a_layer(copy: Path) -> None:
    pytest.importorskip("grpc_tools.protoc", reason="needs grpcio-tools")
    script, shown = follow(copy)
    environment = {**os.environ, "PYTHONPATH": str(copy)}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sources = [f"netspec/proto/{path.name}" for path in (copy / "protos").glob("*.proto")]
    python("-m", "grpc_tools.protoc", "-Inetspec/proto=protos", "--python_out=.", *sources)
    assert python("-c", script) == shown
    # The documentation is not written yet, and nothing else is missing.
    lacks = "from test_layer_contract import *; print(*missing(REGISTRY['HardSigmoid']), sep='\\n')"
    assert python("-c", f"import sys; sys.path.insert(0, 'tests'); {lacks}").splitlines() == [
        "docs/layers/activation.md: a section HardSigmoid; run tools/layer_docs.py",
        "README.md: a row of HardSigmoid; run tools/readme.py",
    ]
    python("tools/readme.py")
    python("tools/layer_docs.py")
    tests = ("layers", "layer_contract", "proto", "layer_docs")
    chosen = "HardSigmoid or LayerParameter or written"
    files = [f"tests/test_{name}.py" for name in tests]
    # What Caffe wrote is not in the copy.
    options = ("-v", "-p", "no:cacheprovider", "-o", "empty_parameter_set_mark=skip", "-k", chosen)
    ran = python("-m", "pytest", *options, *files)
    for test in ("forward_is_right", "backward_is_right", "layout_changes_nothing"):
        assert f"test_{test}[HardSigmoid] PASSED" in ran
    assert "test_a_type_lacks_nothing[HardSigmoid] PASSED" in ran


def test_links_lead_somewhere() -> None:
    links(PAGE)
