"""The order of samples, sequential, random or shuffled; it can be resumed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SourceError, require
from netspec.sources.base import require_keys


def settle_seed(*candidates: int | None) -> int:
    """The first seed given, or else a new one, so that a run without a seed can resume, too."""
    given = [seed for seed in candidates if seed is not None]
    return given[0] if given else random.SystemRandom().getrandbits(32)


def generator(seed: int, purpose: str, moment: int = 0) -> np.random.Generator:
    """A generator for one purpose at one moment, independent of what was drawn before."""
    return np.random.default_rng((abs(seed), zlib.crc32(purpose.encode()), moment))


def require_same_kind(seed: int | None, own: int | None) -> None:
    """Raise SourceError if one order is random (it has a seed) and the other is not."""
    was, now = ("in turn" if kind is None else "at random" for kind in (seed, own))
    require(was == now, f"the state is of samples {was}, but they come {now}", SourceError)


class Order:
    """An endless order of ``count`` samples: in turn, or each drawn at random if there is a seed.

    Draws are those of ``random.seed(seed)`` and one ``random.randint(0, count - 1)`` a sample,
    so the position alone determines the state of the stream.
    """

    def __init__(self, count: int, seed: int | None) -> None:
        self.count = count
        self._start(seed, 0)

    def _start(self, seed: int | None, position: int) -> None:
        self.seed = seed
        self._position = position
        self._random = None if seed is None else random.Random(seed)
        if self._random:
            for _ in range(position):
                self._random.randint(0, self.count - 1)
        self.index = self._draw()

    def _draw(self) -> int:
        if self._random:
            return self._random.randint(0, self.count - 1)
        return self._position % self.count

    def step(self) -> None:
        """Set ``index`` to the next sample."""
        self._position += 1
        self.index = self._draw()

    def state(self) -> dict[str, Any]:
        """Seed and position, and the count that they belong to."""
        return {"samples": self.count, "seed": self.seed, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; raises SourceError if it is that of other samples."""
        require_keys(state, self.state())
        require(
            state["samples"] == self.count,
            f"the state is of {state['samples']} samples, but there are {self.count}",
            SourceError,
        )
        require_same_kind(state["seed"], self.seed)
        self._start(state["seed"], state["position"])


class Passes:
    """An endless order of ``count`` samples, each once a pass: in turn, or shuffled by a seed.

    skip: how many samples the first pass leaves out at its beginning.
    """

    def __init__(self, count: int, seed: int | None, skip: int = 0) -> None:
        self._count = count
        self._seed = seed
        self._skip = skip
        self._shuffled: tuple[int, NDArray[np.intp]] | None = None

    def index(self, position: int) -> int:
        """Which sample stands at a position of the stream."""
        pass_, turn = divmod(position + self._skip, self._count)
        if self._seed is None:
            return turn
        if self._shuffled is None or self._shuffled[0] != pass_:
            order = generator(self._seed, "shuffle", pass_).permutation(self._count)
            self._shuffled = pass_, order
        return int(self._shuffled[1][turn])
