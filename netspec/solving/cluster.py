"""Starting a run on several devices: which ones, and how its processes find each other."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from netspec.errors import SolverError, fail, require
from netspec.solving.mesh import Mesh
from netspec.solving.peers import Peers, meet

# Room for what process 0 tells the others of how to reach it.
_BROADCAST = 1024


@dataclass(frozen=True)
class Scale:
    """What to train on.

    devices: how many of all processes together, or "all", which is what several processes take by
    default; one takes 1. batch_per_device: images that each takes at a time, in place of the data
    layers' batch_size. shard_params: let learned arrays rest in parts, one on each device.
    processes: how many there are, or "auto" if SLURM, a TPU pod or another cluster that JAX knows
    started them; coordinator: HOST:PORT, free in process 0; process: which one this is.
    """

    devices: str | None = None
    batch_per_device: int | None = None
    shard_params: bool = False
    coordinator: str | None = None
    processes: str | None = None
    process: int | None = None


@contextmanager
def joined(scale: Scale) -> Iterator[Mesh]:
    """The devices of a run; raises SolverError where they cannot be had as they are asked for.

    A process that leaves with an error leaves at once: there may be nobody left to wait for.
    """
    peers = Peers()
    try:
        if _joins(scale):
            peers = _join(scale)
        mesh = _mesh(scale, peers)
        yield mesh
    except BaseException:
        if peers.processes > 1:
            # Before JAX's own, which waits for all processes.
            atexit.register(_leave)
        raise
    finally:
        peers.close()


def _mesh(scale: Scale, peers: Peers) -> Mesh:
    if scale.devices in (None, "1") and peers.processes == 1:
        return Mesh(batch=scale.batch_per_device)
    devices = jax.devices()
    by_process = [
        [device for device in devices if device.process_index == process]
        for process in range(peers.processes)
    ]
    fewest = min(map(len, by_process))
    if scale.devices is None or scale.devices == "all":
        require(
            all(len(each) == fewest for each in by_process),
            f"the processes have {', '.join(str(len(each)) for each in by_process)} devices; each "
            "needs as many",
            SolverError,
        )
        each = fewest
    else:
        each = _devices_each(scale.devices, fewest, peers.processes)
    chosen = [device for mine in by_process for device in mine[:each]]
    return Mesh(chosen, scale.shard_params, peers, scale.batch_per_device)


def _devices_each(devices: str, most: int, processes: int) -> int:
    """How many devices each process takes."""
    wanted = int(devices) if devices.isdecimal() else 0
    require(wanted > 0, f'--devices {devices}: a number from 1 on, or "all"', SolverError)
    require(
        wanted % processes == 0,
        f"--devices {wanted}: {processes} processes take as many each, which {wanted} is no "
        "multiple of",
        SolverError,
    )
    have = most if processes == 1 else f"{most} a process, {most * processes} in all"
    require(
        wanted <= most * processes,
        f"--devices {wanted}: there are {have} ({jax.default_backend()})",
        SolverError,
    )
    return wanted // processes


def _joins(scale: Scale) -> bool:
    """Whether there are other processes; raises SolverError for half of what it takes."""
    if scale.processes == "auto":
        return True
    if scale.coordinator is None or scale.processes is None or scale.process is None:
        require(
            not (scale.coordinator or scale.processes or scale.process is not None),
            "--coordinator, --processes and --process go together (or --processes auto alone, "
            "where SLURM or a TPU pod started this process)",
            SolverError,
        )
        return False
    require(
        scale.processes.isdecimal() and int(scale.processes) > 0,
        f'--processes {scale.processes}: a number from 1 on, or "auto"',
        SolverError,
    )
    require(
        0 <= scale.process < int(scale.processes),
        f"--process {scale.process}: {scale.processes} processes are counted from 0 to "
        f"{int(scale.processes) - 1}",
        SolverError,
    )
    host, _, port = scale.coordinator.rpartition(":")
    require(
        host and port.isdecimal(),
        f"--coordinator {scale.coordinator}: give HOST:PORT, as every process reaches process 0",
        SolverError,
    )
    return int(scale.processes) > 1


def _join(scale: Scale) -> Peers:
    count = None if scale.processes == "auto" else int(scale.processes or 0)
    try:
        jax.distributed.initialize(scale.coordinator, count, scale.process)
    except (RuntimeError, ValueError, OSError) as error:
        why = str(error).splitlines()[0]
        if count is None:
            fail(
                f"--processes auto: JAX finds no cluster here: {why}; give --coordinator "
                "HOST:PORT, --processes P and --process I",
                SolverError,
            )
        fail(f"--coordinator {scale.coordinator}: process {scale.process}: {why}", SolverError)
    host = scale.coordinator.rpartition(":")[0].strip("[]") if scale.coordinator else None
    return meet(jax.process_index(), jax.process_count(), host, _broadcast)


def _broadcast(told: bytes) -> bytes:
    """What process 0 tells, in all processes."""
    padded = np.frombuffer(told.ljust(_BROADCAST), np.uint8)
    heard: bytes = np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
    return heard


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
