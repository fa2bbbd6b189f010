"""Text in the encodings that shells and editors write."""

from pathlib import Path

import pytest

from netspec.formats.text import decoded, encoding_of, read_text

SAID = 'name: "Größe 图"\r\nlayer {}\n'


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]
)
def test_marks_tell_the_encoding(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    path = tmp_path / "a.txt"
    path.write_bytes((mark + SAID).encode(encoding))
    assert read_text(path) == SAID.replace("\r\n", "\n")


def test_an_old_macs_line_ends() -> None:
    assert decoded(b"a\rb\r\nc") == "a\nb\nc"


def test_bytes_of_no_encoding() -> None:
    with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
        decoded(b"\xff")
    assert decoded(b"a\xffb", errors="replace") == "a\ufffdb"
    assert encoding_of(b"") == ("utf-8", 0)
