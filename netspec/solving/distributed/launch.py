"""Starts a run on several devices: chooses them, and joins its processes."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from netspec.errors import SolverError, counted, fail, require
from netspec.solving.distributed.mesh import Mesh
from netspec.solving.distributed.peers import Peers
from netspec.solving.distributed.rendezvous import Where, free_port, here, meet

# The bytes in which process 0 tells the others how to reach it.
_BROADCAST = 1024


@dataclass(frozen=True)
class DeviceOptions:
    """The devices and processes to train on, as the command line names them.

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
def joined(scale: DeviceOptions) -> Iterator[Mesh]:
    """Join the devices of a run; raises SolverError where there are none as asked for.

    A process that leaves with an error leaves at once: there may be nobody left to wait for.
    """
    peers = Peers()
    try:
        if scale.processes == "auto":
            peers = _join_cluster(scale)
        elif _joins(scale):
            peers = _join(scale)
        yield _mesh(scale, peers)
    except BaseException:
        if peers.processes > 1:
            # Before JAX's own, which waits for all processes.
            atexit.register(_leave)
        raise
    finally:
        peers.close()


def _mesh(scale: DeviceOptions, peers: Peers) -> Mesh:
    asked = scale.devices or ("all" if scale.processes == "auto" or peers.processes > 1 else "1")
    if peers.processes == 1 and asked == "1":
        chosen: list[jax.Device] = []
    else:
        by_process = [
            [device for device in jax.devices() if device.process_index == process]
            for process in range(peers.processes)
        ]
        each = _devices_each(asked, list(map(len, by_process)))
        chosen = [device for mine in by_process for device in mine[:each]]
    require(
        len(chosen) > 1 or not scale.shard_params,
        "--shard-params lays a part of each array on each device, and this run has one; give "
        "--devices",
        SolverError,
    )
    return Mesh(chosen, scale.shard_params, peers, scale.batch_per_device)


def _devices_each(asked: str, have: Sequence[int]) -> int:
    """How many devices each process takes; have: how many each has."""
    fewest, processes = min(have), len(have)
    if asked == "all":
        require(
            max(have) == fewest,
            f"the processes have {', '.join(map(str, have))} devices; each needs as many",
            SolverError,
        )
        return fewest
    wanted = int(asked) if asked.isdecimal() else 0
    require(wanted > 0, f'--devices {asked}: a number from 1 on, or "all"', SolverError)
    require(
        wanted % processes == 0,
        f"--devices {wanted}: {processes} processes take as many each, which {wanted} is no "
        "multiple of",
        SolverError,
    )
    there = counted(fewest * processes, f"{jax.default_backend()} device")
    where = f", {fewest} a process" if processes > 1 else ""
    virtual = (
        f" (to try it out: XLA_FLAGS=--xla_force_host_platform_device_count={wanted // processes} "
        "makes virtual ones)"
    )
    require(
        wanted <= fewest * processes,
        f"--devices {wanted}: JAX finds {there}{where}"
        + (virtual if jax.default_backend() == "cpu" else ""),
        SolverError,
    )
    return wanted // processes


def _joins(scale: DeviceOptions) -> bool:
    """Whether there are other processes; raises SolverError where an option is missing."""
    given = [scale.coordinator, scale.processes, scale.process]
    if given == [None] * 3:
        return False
    if scale.coordinator is None or scale.processes is None or scale.process is None:
        fail(
            "--coordinator, --processes and --process go together (or --processes auto alone, "
            "where SLURM or a TPU pod started this process)",
            SolverError,
        )
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


def _join(scale: DeviceOptions) -> Peers:
    """Join the processes that the options name."""
    host, _, port = (scale.coordinator or "").rpartition(":")
    process, processes = scale.process or 0, int(scale.processes or 0)
    peers = meet(process, processes, ([host.strip("[]")], int(port)))
    # JAX's own service is elsewhere on the same machine.
    address = peers.exchange(f"{host}:{free_port()}" if process == 0 else None)[0]
    try:
        jax.distributed.initialize(address, processes, process)
    except (RuntimeError, OSError) as error:
        fail(
            f"processes met, but JAX could not join them at {address}, a port that was free; "
            f"processes must reach process 0 at any port: {str(error).splitlines()[0]}",
            SolverError,
        )
    return peers


def _join_cluster(scale: DeviceOptions) -> Peers:
    """Join the processes that a cluster has started."""
    require(
        scale.coordinator is None and scale.process is None,
        "--processes auto asks the cluster for --coordinator and --process, too; leave them out",
        SolverError,
    )
    try:
        jax.distributed.initialize()
    # Of what is missing JAX says no more than which of its own arguments that would be.
    except ValueError:
        fail(
            "--processes auto: JAX finds no cluster here that started this process (SLURM, Open "
            "MPI, a TPU pod); give --coordinator HOST:PORT, --processes P and --process I",
            SolverError,
        )
    except (RuntimeError, OSError) as error:
        fail(f"--processes auto: {str(error).splitlines()[0]}", SolverError)
    return meet(jax.process_index(), jax.process_count(), (here(), 0), _broadcast)


def _broadcast(where: Where) -> Where:
    """Give all processes what process 0 passes in."""
    padded = np.frombuffer(json.dumps(where).encode().ljust(_BROADCAST), np.uint8)
    heard: bytes = np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
    hosts, port = json.loads(heard)
    return hosts, port


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
