"""docs/glossary.md: its modules exist, and its words stand in order, each once."""

import re
from pathlib import Path

import pytest
from pages import ROOT, anchors, links

DOC = ROOT / "docs" / "glossary.md"
TEXT = DOC.read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<word>[^|]+) \| (?P<meaning>[^|]+) \| `(?P<module>[^|`]+)` \|$")


def parts() -> dict[str, list[re.Match[str]]]:
    """Heading -> the rows of its table."""
    found: dict[str, list[re.Match[str]]] = {}
    for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        title, *lines = part.splitlines()
        rows = [line for line in lines if line.startswith("|")]
        assert rows[:2] == ["| word | meaning | module |", "|---|---|---|"]
        matches = [ROW.match(row) for row in rows[2:]]
        assert None not in matches, rows[2 + matches.index(None)]
        found[title] = [match for match in matches if match]
    return found


PARTS = parts()


def test_there_are_three_parts() -> None:
    assert list(PARTS) == ["Caffe's words", "Words of the field", "Our own words"]
    assert min(map(len, PARTS.values())) >= 10


@pytest.mark.parametrize("part", PARTS)
def test_words_are_sorted_and_unique(part: str) -> None:
    words = [row["word"].casefold() for row in PARTS[part]]
    assert words == sorted(set(words))


def test_no_word_has_two_meanings() -> None:
    words = [row["word"].casefold() for rows in PARTS.values() for row in rows]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("part", PARTS)
def test_each_word_has_a_module(part: str) -> None:
    """That it exists is checked for all pages, in tests/test_readme.py."""
    modules = [row["module"] for row in PARTS[part]]
    assert [name for name in modules if not re.fullmatch(r"netspec/[\w/]+\.py", name)] == []


def test_meanings_are_one_plain_phrase() -> None:
    for rows in PARTS.values():
        for row in rows:
            assert not row["meaning"].endswith("."), row["word"]


def test_the_page_is_linked() -> None:
    assert anchors(TEXT) == {link for link in links(DOC) if link.startswith("#")}
    assert "docs/glossary.md" in Path(ROOT, "README.md").read_text(encoding="utf-8")
