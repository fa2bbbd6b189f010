"""The pages in docs/layers are what tools/layer_docs.py writes, and their links lead somewhere."""

import re

import pytest
from pages import ROOT
from test_readme import load_tool

from netspec.layers import REGISTRY

FOLDER = ROOT / "docs" / "layers"
PAGES = load_tool("layer_docs").pages()


def test_pages_are_as_written() -> None:
    assert {path.name for path in FOLDER.glob("*.md")} == PAGES.keys(), "run tools/layer_docs.py"
    for name, text in PAGES.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, "run tools/layer_docs.py"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        page, _, anchor = link.partition("#")
        text = (FOLDER / page).read_text(encoding="utf-8")
        headings = {heading.lower() for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)}
        assert not anchor or anchor in headings, link


def test_a_section_says_what_the_type_takes() -> None:
    section = PAGES["pooling.md"].split("## Pooling\n")[1].split("\n## ")[0]
    assert "| `pool` | MAX or AVE or STOCHASTIC | MAX |" in section
    assert "| `kernel_size` | uint32 |  |" in section
    assert "Caffe: `pooling_layer.cpp`" in section
    assert "- learned blobs: none" in section
    assert "- learned blobs: weight, bias" in PAGES["vision.md"]


def test_every_type_has_a_section() -> None:
    text = "\n".join(PAGES.values())
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == sorted(REGISTRY)
