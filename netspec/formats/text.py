"""Text files as people's editors and shells write them: byte order marks and UTF-16 too.

Windows PowerShell 5's ``>`` writes UTF-16 with a mark, and Notepad's "UTF-8" begins with one.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from netspec.formats.regular import read_bytes

# UTF-32's mark begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def encoding_of(data: bytes) -> tuple[str, int]:
    """The encoding that a byte order mark states, "utf-8" without one; and the mark's length."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def decoded(data: bytes, errors: str = "strict") -> str:
    """The text of a file's bytes, without its mark; every line ends in one newline character.

    errors: what becomes of bytes that are not of its encoding, as `bytes.decode` has it; raises
    UnicodeDecodeError where "strict".
    """
    encoding, mark = encoding_of(data)
    text = data[mark:].decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | Path, errors: str = "strict") -> str:
    """The text of a file, see `decoded`; raises OSError and UnicodeDecodeError."""
    return decoded(read_bytes(path), errors)
