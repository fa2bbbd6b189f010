"""Programs that do the same work, each in a process of its own.

Apart, they neither share threads nor a device's memory, and the memory of each can be told.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

CLASSES = 21


class Absent(Exception):
    """A contender that cannot take part, with the reason."""


@dataclass(frozen=True)
class Work:
    """What to compute: FCN-8s on one image.

    size: the image's height and width. dtype: f32, tf32 or bf16. device: cpu or gpu. folder: where
    contenders leave files for each other; weights are in ``weights.npz`` there, ``layer/i`` each.
    options: of the contender, by name.
    """

    size: int
    dtype: str
    device: str
    folder: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> str:
        """The file that all contenders take their weights from."""
        return os.path.join(self.folder, "weights.npz")

    def image(self) -> np.ndarray:
        """(1, 3, size, size) float32, as an image less its mean."""
        draws = np.random.default_rng(0)
        return draws.normal(0, 60, (1, 3, self.size, self.size)).astype(np.float32)

    def label(self) -> np.ndarray:
        """(1, 1, size, size) float32: classes, some of them to be ignored."""
        draws = np.random.default_rng(1)
        label = draws.integers(0, CLASSES, (1, 1, self.size, self.size))
        return np.where(draws.random(label.shape) < 0.05, 255, label).astype(np.float32)


class Contender(Protocol):
    """Does a `Work`; each method returns when the work is done."""

    def forward(self) -> None:
        """Compute the scores of the image."""

    def step(self) -> None:
        """Take a training step: forward, backward, update."""

    def scores(self) -> np.ndarray:
        """(1, 21, size, size): the scores that `forward` computes."""

    def memory(self) -> float:
        """Bytes of memory at most taken so far."""


class Child:
    """A contender in a process of its own: ``Child("benchmarks.peers:PyTorch", work)``."""

    def __init__(self, where: str, work: Work) -> None:
        """Raises Absent where it cannot take part."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, where, work), daemon=True)
        self._process.start()
        other.close()
        self._answer()

    def ask(self, method: str) -> Any:
        """What a method of the contender returns; raises Absent where it fails."""
        # That it ended is told where its answer is missed.
        with suppress(BrokenPipeError):
            self._pipe.send(method)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            fine, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            fine, answer = False, f"its process ended with status {self._process.exitcode}"
        if not fine:
            raise Absent(answer)
        return answer


def resident() -> float:
    """Bytes of memory that this process held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _serve(pipe: Connection, where: str, work: Work) -> None:
    """Do what is asked for, until nobody asks any more."""
    os.environ["JAX_PLATFORMS"] = "cpu" if work.device == "cpu" else "cuda"
    # A GPU has to have room for them all.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    module, name = where.split(":")
    made: list[Contender] = []
    _try(pipe, lambda: made.append(getattr(import_module(module), name)(work)))
    # Whoever asked closes the pipe in the end.
    with suppress(EOFError):
        while made:
            method = pipe.recv()
            _try(pipe, getattr(made[0], method))


def _try(pipe: Connection, do: Callable[[], Any]) -> None:
    """Answer with what came of it."""
    try:
        pipe.send((True, do()))
    except ModuleNotFoundError as error:
        pipe.send((False, f"{error.name} is not installed"))
    except Exception as error:
        pipe.send((False, str(error) or type(error).__name__))
