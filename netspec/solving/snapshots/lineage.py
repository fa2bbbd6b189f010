"""Which snapshot of a prefix was written after which: told by numbers in them, never by a clock.

A clock may be set back between two runs, or between two machines that write to one folder. So each
manifest holds a sequence number, one more than those that stood there, and the names of the states
without a manifest, as Caffe writes them, that stood there as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from netspec.errors import WeightsError
from netspec.formats import manifest
from netspec.formats.manifest import Manifest

# Newer than whatever has a number.
_LAST = float("inf")


@dataclass(frozen=True)
class Written:
    """A snapshot on disk.

    state: its .solverstate or .solverstate.h5. manifest: None for one of Caffe's, or where it is
    damaged.
    """

    iteration: int
    state: Path
    manifest: Manifest | None
    damaged: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether netspec wrote it: a manifest, whole or damaged, stands beside it."""
        return self.manifest is not None or self.damaged


def states(prefix: str) -> list[tuple[int, Path]]:
    """The snapshots of a prefix: (iteration, .solverstate or .solverstate.h5), newest first.

    The newest is the one last written: there may be later iterations of a run given up before.
    Those of Caffe's that none of ours has seen were written after ours; among themselves they stand
    by iteration.
    """
    return [(each.iteration, each.state) for each in newest_first(prefix)]


def newest_first(prefix: str) -> list[Written]:
    """The snapshots of a prefix, the one last written first."""
    found = _found(prefix)
    numbered = [(each.iteration, each.manifest) for each in found if each.manifest is not None]
    seen: dict[str, float] = {}
    for _, ours in numbered:
        for name in ours.seen:
            seen[name] = min(seen.get(name, _LAST), ours.sequence)

    def key(each: Written) -> tuple[float, int, int]:
        if each.manifest is not None:
            return each.manifest.sequence, 1, each.iteration
        if each.damaged:
            # Its number cannot be read: it stands where its iteration does.
            before = [ours.sequence for i, ours in numbered if i <= each.iteration]
            return max(before, default=0), 2, each.iteration
        return seen.get(each.state.name, _LAST), 0, each.iteration

    return sorted(found, key=key, reverse=True)


def successor(prefix: str, state: Path) -> tuple[int, tuple[str, ...]]:
    """The ``sequence`` of the manifest of a new ``state``, and what it has ``seen``."""
    found = _found(prefix)
    last = max((each.manifest.sequence for each in found if each.manifest), default=0)
    # Of two states of one iteration, binary and HDF5, the new one takes the other's manifest.
    beside = manifest.path_beside(state)
    lacking = [
        each.state.name
        for each in found
        if not each.is_ours or manifest.path_beside(each.state) == beside
    ]
    return last + 1, tuple(sorted({*lacking} - {state.name}))


def manifest_of(state: Path) -> Manifest | None:
    """The manifest beside a state if it is its own; raises WeightsError where it is damaged."""
    beside = manifest.path_beside(state)
    if not beside.exists():
        return None
    read = manifest.read(beside)
    return read if state.name in read.files else None


def _found(prefix: str) -> list[Written]:
    name = Path(prefix).name
    pattern = re.compile(re.escape(name) + r"_iter_(\d+)\.solverstate(\.h5)?")
    try:
        files = list(Path(prefix).parent.iterdir())
    except OSError:
        return []
    matches = ((path, pattern.fullmatch(path.name)) for path in files)
    return [_look(int(match[1]), path) for path, match in matches if match]


def _look(iteration: int, state: Path) -> Written:
    try:
        return Written(iteration, state, manifest_of(state))
    except WeightsError:
        return Written(iteration, state, None, damaged=True)
