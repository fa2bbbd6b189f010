"""docs/inspecting.md tells the truth: its commands run and print what it shows."""

import shutil
from pathlib import Path

import pytest
from pages import DECIMAL, ROOT, Numbers, commands, follow, links

DOC = ROOT / "docs" / "inspecting.md"
# Nothing is measured: every machine prints the same.
EXACT = Numbers(DECIMAL, 0, 0)


@pytest.mark.slow
def test_commands_print_what_the_text_shows(tmp_path: Path) -> None:
    for name in ("voc-fcn8s", "voc-fcn32s"):
        shutil.copytree(ROOT / "nets" / name, tmp_path / "nets" / name)
    text = DOC.read_text(encoding="utf-8")
    assert text.count("```sh") == 2
    follow(text, tmp_path, commands(tmp_path), EXACT)


def test_links_lead_somewhere() -> None:
    links(DOC)
