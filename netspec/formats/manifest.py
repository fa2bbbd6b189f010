"""A snapshot's manifest: checksums of its files, and all that Caffe's files have no place for.

``PREFIX_iter_N.resume.json`` belongs to ``PREFIX_iter_N.caffemodel`` and ``.solverstate``, binary
or HDF5.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from netspec.errors import Place, WeightsError, blame, require, unreadable
from netspec.formats.regular import open_regular, read_bytes

_FORMAT = 3
# The formats that can be read: that of older versions too.
_READABLE = (2, 3)
SUFFIX = ".resume.json"
# What comes of values that no netspec wrote, where they are used.
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_TYPES = {
    "iteration": int,
    "seed": int,
    "solver": str,
    "data": dict,
    "memory": dict,
    "home": dict,
    "dtype": str,
    "files": dict,
    "sequence": int,
}


@dataclass(frozen=True)
class Manifest:
    """What a run needs, besides weights and solver state, to go on as if it had never stopped.

    Its fields are those of the file. files: name -> SHA-256 of the snapshot's other files. seed:
    the run's. losses: the last ones, whose mean is the smoothed loss. data: the state of the train
    net's sources. memory: the carried state of layers, which no weight file holds: layer -> name
    -> array, as nested lists. home: by blob, the shape of the train data that is compiled exactly,
    without a size bucket: see `SizeBuckets`. tests: ``data``, ``memory`` and ``home`` of each test
    net that was run. solver: its type. dtype: the floating-point type of the arithmetic, see
    `ComputePolicy`. sequence: one more than those of the snapshots that stood there when it was
    written. seen: the names of the states that stood there without a manifest, as Caffe writes
    them.
    """

    iteration: int
    seed: int
    solver: str
    losses: tuple[float, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    tests: tuple[Mapping[str, Any], ...] = ()
    memory: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    home: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dtype: str = "f32"
    files: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0
    seen: tuple[str, ...] = ()


def path_beside(path: str | Path) -> Path:
    """Where the manifest of a snapshot stands, given one of its other files."""
    path = Path(path)
    name = path.name.removesuffix(".h5")
    return path.with_name(name.rpartition(".")[0] + SUFFIX)


def digest(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, manifest: Manifest) -> None:
    """Write a manifest, with a checksum of its own; raises OSError."""
    content = json.dumps({"netspec": _FORMAT, **asdict(manifest)}, separators=(",", ":"))
    path.write_text(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}\n", "utf-8")


def read(path: Path) -> Manifest:
    """Read a manifest; raises WeightsError where it is damaged."""
    with blame(Place(str(path))):
        try:
            check, _, rest = read_bytes(path).partition(b"\n")
        except OSError as error:
            raise WeightsError(unreadable("cannot read", error)) from None
        content = rest.removesuffix(b"\n")
        require(
            hashlib.sha256(content).hexdigest().encode() == check,
            "is damaged: its checksum does not fit",
            WeightsError,
        )
        try:
            return _parsed(json.loads(content))
        # Whatever a file with a right checksum may hold that no netspec wrote.
        except _NONSENSE:
            raise WeightsError("is damaged: it is no manifest") from None


def _parsed(values: dict[str, Any]) -> Manifest:
    """Build a manifest from JSON values; raises TypeError or KeyError for what is none."""
    version = values.pop("netspec")
    require(
        version in _READABLE,
        "was written by another version of netspec; use that one, or delete the file to go on "
        "as from Caffe's files",
        WeightsError,
    )
    # Older versions ordered snapshots by the clock.
    values.pop("written", None)
    for name in ("losses", "tests", "seen"):
        values[name] = tuple(values.get(name, ()))
    found = Manifest(**values)
    for name, kind in _TYPES.items():
        if not isinstance(getattr(found, name), kind):
            raise TypeError(name)
    if not 0 <= found.seed < 1 << 63 or not all(isinstance(name, str) for name in found.seen):
        raise ValueError("seed")
    for home in (found.home, *(test.get("home", {}) for test in found.tests)):
        if not all(type(n) is int and 0 <= n < 1 << 31 for shape in home.values() for n in shape):
            raise ValueError("home")
    return replace(found, losses=tuple(map(float, found.losses)))


@contextmanager
def applied() -> Iterator[None]:
    """Raise WeightsError where a manifest's values are of no use to the run that takes them."""
    try:
        yield
    # Values of the right type that no netspec wrote.
    except _NONSENSE:
        raise WeightsError(
            "is damaged: its values fit no run. Delete it to go on as from Caffe's files"
        ) from None


def verify(path: Path) -> None:
    """Raise WeightsError unless a file has the checksum that the manifest beside it states.

    Files without a manifest, as Caffe writes them, are accepted as they are.
    """
    manifest = path_beside(path)
    if not os.path.exists(manifest):
        return
    try:
        written = read(manifest).files.get(path.name)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; {path.name} cannot be checked. Delete {manifest.name} to use it all the same"
        ) from None
    require(
        written is None or written == digest(path),
        f"is damaged: its bytes are not those that were written. If it was changed on purpose, "
        f"delete {manifest.name}",
        WeightsError,
    )
