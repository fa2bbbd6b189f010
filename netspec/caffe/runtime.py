"""pycaffe's switches for the whole process: device, seed, logs, and what several GPUs need."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from typing import Any

import jax

from netspec.layers.registry import REGISTRY
from netspec.reporting import glog
from netspec.runtime.devices import accelerators

_LOG = logging.getLogger("netspec.caffe")
# glog's severities from INFO on.
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class _Chosen:
    """Which GPU `set_device` chose, whether the CPU goes first, what `set_random_seed` started."""

    device = 0
    cpu = False
    numbers: random.Random | None = None


def set_mode_cpu() -> None:
    """Compute on the CPU from now on."""
    _Chosen.cpu = True
    jax.config.update("jax_default_device", jax.devices("cpu")[0])


def set_mode_gpu() -> None:
    """Compute on the accelerator that `set_device` chose, or the first; on the CPU without one.

    Differs: with neither mode set, an accelerator is used if there is one.
    """
    _Chosen.cpu = False
    devices = accelerators()
    jax.config.update("jax_default_device", devices[_Chosen.device] if devices else None)


def set_device(device_id: int) -> None:
    """Choose an accelerator by its number, for `set_mode_gpu`; raises ValueError without it.

    On a machine without any, the number has no meaning.
    """
    devices = accelerators()
    if devices and not 0 <= device_id < len(devices):
        raise ValueError(f"no device {device_id}: there are {len(devices)}, counted from 0")
    _Chosen.device = device_id if devices else 0
    if not _Chosen.cpu:
        set_mode_gpu()


def set_random_seed(seed: int) -> None:
    """Let what later nets and solvers draw depend on ``seed``; a solver's own seed wins."""
    _Chosen.numbers = random.Random(seed)


def next_seed() -> int:
    """The seed of the next net or solver."""
    if _Chosen.numbers is None:
        return int.from_bytes(os.urandom(4), "little") >> 1
    return _Chosen.numbers.getrandbits(31)


def layer_type_list() -> list[str]:
    """The types of all layers."""
    return sorted(REGISTRY)


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Show what `log` is given, from glog's ``level`` on (0 is INFO), on standard error.

    stderr: as Caffe takes it; there is no log file to write to instead.
    """
    if not _LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        _LOG.addHandler(handler)
    _LOG.setLevel(_LEVELS[min(max(level, 0), len(_LEVELS) - 1)])


def log(message: str) -> None:
    """Log a line at level INFO."""
    _LOG.info(message)


def is_quiet() -> bool:
    """Whether Caffe would not log lines of level INFO.

    `init_log` says so, or before it the environment's GLOG_minloglevel.
    """
    if _LOG.handlers:
        return _LOG.level > logging.INFO
    return not glog.is_told("I")


class Timer:
    """Wall-clock time between `start` and `stop`."""

    def __init__(self) -> None:
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """End."""
        self._ended = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds between the two."""
        return (self._ended - self._began) * 1000


class _Processes:
    """What Caffe's processes know of each other; here each is alone."""

    count = 1
    rank = 0


def solver_count() -> int:
    """How many solvers share the work."""
    return _Processes.count


def set_solver_count(count: int) -> None:
    """Say how many solvers share the work; each still does its own."""
    _Processes.count = count


def solver_rank() -> int:
    """Which of them this is."""
    return _Processes.rank


def set_solver_rank(rank: int) -> None:
    """Say which of them this is."""
    _Processes.rank = rank


def set_multiprocess(multiprocess: bool) -> None:
    """Accept Caffe's setting, which has no meaning here."""


def has_nccl() -> bool:
    """Whether gradients can be exchanged by NCCL: no."""
    return False


class NCCL:
    """Caffe's NCCL as in a build without it: it can be made, and does nothing."""

    def __init__(self, solver: Any, uid: str | bytes) -> None:
        self.solver = solver
