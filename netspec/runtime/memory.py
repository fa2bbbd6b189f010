"""How much memory a training step takes: predicted from shapes, and as XLA counts it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from netspec.frontend.shapes import Shapes
from netspec.layers.base import count
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.remat import FLOAT_BYTES, Segment, loads, segments

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Prediction:
    """Bytes that a training step is expected to take at its peak.

    parameters: all learned arrays and statistics. history: what the update rule keeps. data: what
    the host feeds. passes: what forward and backward make, where it is most: blobs, gradients, and
    both as products take them.
    """

    parameters: int
    history: int
    data: int
    passes: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.history + self.data + self.passes


def predict(
    shapes: Shapes, policy: ComputePolicy, slots: int, sums: bool = False, parts: int = 1
) -> Prediction:
    """What a step at these shapes takes.

    slots: history arrays of each learned array. sums: whether gradients of several passes add up.
    parts: how many devices keep one each of learned arrays and history.
    """
    graph = shapes.graph
    learned = FLOAT_BYTES * sum(
        count(blob.shape)
        for key, blob in shapes.params.items()
        if blob.learned and shapes.param_specs[key].lr_mult
    )
    parameters = FLOAT_BYTES * sum(count(blob.shape) for blob in shapes.params.values())
    whole = (Segment(range(len(graph.nodes)), rematerialised=False),)
    passed = segments(shapes, policy.blob_bytes) if policy.remat else whole
    return Prediction(
        parameters=parameters - learned + learned // parts,
        history=(slots + sums) * learned // parts,
        data=FLOAT_BYTES * sum(map(count, shapes.fed.values())),
        # Products take a copy of the weights in a layout of their own.
        passes=loads(shapes, policy.blob_bytes).peak(passed) + parameters,
    )


def of_program(compiled: Any) -> int | None:
    """The bytes that a compiled program takes at its peak, arguments included, if XLA says."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def capacity() -> int | None:
    """The bytes that the device has for us: on a CPU, those of the machine or of our share of it.

    None where it does not say.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    limits = []
    with suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        limits.append(int(_GROUP_LIMIT.read_text(encoding="utf-8")))
    return min(limits, default=None)


def size(number: int) -> str:
    """A number of bytes as people read it: ``12.3 MiB``, ``1.9 GiB``."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
