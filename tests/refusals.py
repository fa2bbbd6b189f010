"""Where a module refuses what it is given, and which of these places a test has reached."""

import ast
from collections.abc import Iterable
from pathlib import Path

from netspec.errors import NetSpecError

Site = tuple[str, int, int]


def sites(files: Iterable[Path]) -> set[Site]:
    """(file, first line, last line) of every call of `require` and `fail`."""
    return {
        (str(file), node.lineno, node.end_lineno or node.lineno)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("require", "fail")
    }


def reached(errors: Iterable[NetSpecError], among: set[Site]) -> set[Site]:
    """The places that these errors came from."""
    found = set()
    for error in errors:
        trace = error.__traceback__
        while trace is not None:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
            found |= {site for site in among if site[0] == file and site[1] <= line <= site[2]}
            trace = trace.tb_next
    return found
