"""docs/differs.md and the tests name the same differences from Caffe."""

import re
from collections import Counter

import pytest
from pages import ROOT, anchors, links

PAGE = ROOT / "docs" / "differs.md"
ROW = re.compile(r"^\| `([^`]*)` \|(.*)\|$", re.MULTILINE)
TABLE_LINE = re.compile(r"^\|(?! row \||---).*$", re.MULTILINE)
NAMED = re.compile(r"""\bdiffers\(["']([^"']+)["']\)""")


def rows(page: str) -> list[str]:
    """The names of the page's rows."""
    return [match[1] for match in ROW.finditer(page)]


def named() -> set[str]:
    """The names of rows that tests give."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "test_differs.py"]
    return {name for path in files for name in NAMED.findall(path.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_every_row_is_named_by_a_test(page: str) -> None:
    missing = set(rows(page)) - named()
    assert not missing, f"no test names these rows: {sorted(missing)}"


def test_every_name_is_a_row(page: str) -> None:
    unknown = named() - set(rows(page))
    assert not unknown, f"docs/differs.md has no such rows: {sorted(unknown)}"


def test_every_row_is_once_and_whole(page: str) -> None:
    names = rows(page)
    assert len(names) > 1
    assert [name for name, times in Counter(names).items() if times > 1] == []
    for line in TABLE_LINE.findall(page):
        match = ROW.fullmatch(line)
        assert match, f"this row has no name: {line}"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", match[1])
        cells = [cell.strip() for cell in match[2].split(" | ")]
        assert len(cells) == 4, f"row {match[1]} has {len(cells)} cells behind its name"
        assert all(cells), f"row {match[1]} has an empty cell"


def test_a_row_without_a_test_is_found() -> None:
    assert rows("| `a-b` | w | c | n | y |\n| row | what |\n") == ["a-b"]
    assert NAMED.findall('@pytest.mark.differs("a-b")') == ["a-b"]
    assert NAMED.findall('"""Differs: differs("a")."""') == ["a"]


def test_the_readme_links_the_page() -> None:
    assert "docs/differs.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere(page: str) -> None:
    assert anchors(page) == {link for link in links(PAGE) if link.startswith("#")}
