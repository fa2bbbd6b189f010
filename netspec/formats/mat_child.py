"""The program that reads MATLAB files, in a process of its own: SciPy's parser can crash.

Run by `netspec.formats.mat`. A request is a line of JSON, [path, name of a variable, field, ...];
an answer is a line of JSON, {"error": ...} or {"dtype": ..., "shape": [...]}, and then the bytes of
the array. Imports nothing of netspec, so that it starts fast.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import BinaryIO

import numpy as np

MEMORY = 4 << 30
"""Bytes of address space that a file may take: a packed one states any sizes."""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        path, *names = json.loads(line)
        try:
            array = _read(path, names)
        # A damaged file can fail anywhere in the parser, with any error.
        except Exception as error:
            what = str(error) or type(error).__name__
            answers.write(json.dumps({"error": " ".join(what.split())}).encode() + b"\n")
        else:
            about = {"dtype": array.dtype.str, "shape": array.shape}
            answers.write(json.dumps(about).encode() + b"\n")
            answers.write(array.tobytes())
        answers.flush()


def _read(path: str, names: list[str]) -> np.ndarray:
    from scipy.io import loadmat

    found = loadmat(path, variable_names=names[:1])[names[0]]
    for field in names[1:]:
        found = found[field][0, 0]
    array = np.asarray(found)
    if array.dtype.hasobject or array.dtype.names:
        raise ValueError(f"{array.dtype.kind} values, not numbers")
    return array


def main() -> None:
    """Serve standard input, and keep whatever is printed out of the answers."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with suppress(ImportError, ValueError, OSError):
        # Not every system has limits.
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
