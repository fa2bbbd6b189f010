"""Contenders that processes of their own import quickly."""

import os

import numpy as np

from benchmarks.contenders import Absent, Work


class Toy:
    """A contender of little worth."""

    def __init__(self, work: Work) -> None:
        """Refuses bf16, as some do."""
        if work.dtype == "bf16":
            raise Absent("computes in f32")
        self.work = work

    def forward(self) -> int:
        return os.getpid()

    def memory(self) -> float:
        return 2.0**20 * self.work.size

    def scores(self) -> np.ndarray:
        return np.full(3, self.work.size, np.float32)

    def step(self) -> None:
        raise ValueError("does not train")
