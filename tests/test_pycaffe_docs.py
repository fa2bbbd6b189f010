"""docs/pycaffe.md and its pages tell the truth: their scripts run and print what is shown."""

import re
from pathlib import Path

import pytest
from pages import NEAR, ROOT, anchors, commands, find, follow, links

INDEX = ROOT / "docs" / "pycaffe.md"
FOLDER = ROOT / "docs" / "pycaffe"
# In the order of the index: later ones use what the first one learns.
PAGES = [
    INDEX,
    *(FOLDER / name for name in re.findall(r"\(pycaffe/([\w-]+\.md)\)", INDEX.read_text("utf-8"))),
]


@pytest.mark.slow
def test_scripts_print_what_the_pages_show(tmp_path: Path) -> None:
    environment = commands(tmp_path)
    for page in PAGES:
        follow(page.read_text(encoding="utf-8"), tmp_path, environment, NEAR)


def test_every_page_is_in_the_index_once() -> None:
    assert sorted(PAGES[1:]) == sorted(FOLDER.glob("*.md"))
    chapters = anchors(INDEX.read_text(encoding="utf-8"))
    assert chapters
    assert chapters <= set(links(INDEX))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links(page)


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("loss 1.85, 0.65 right\n", "loss 1.8, 0.61 right\n", True),
        ("loss 0.03\n", "loss 0.001\n", True),
        ("loss 1.85\n", "loss 1.2\n", False),
        ("at -1.22\n", "at 1.22\n", False),
        ("iteration 21\n", "iteration 20\n", False),
        ("(1, 10)\n", "(2, 10)\n", False),
        ("[18. 18.]\n", "[18. 36.]\n", False),
        ("loss 1.85\n", "loss nan\n", False),
    ],
)
def test_decimals_may_differ_a_little(shown: str, printed: str, fits: bool) -> None:
    assert (find(shown, printed, NEAR) is not None) == fits
