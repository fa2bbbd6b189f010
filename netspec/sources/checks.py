"""Checks of what the host feeds, made before it reaches a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SourceError

if TYPE_CHECKING:
    from netspec.layers.base import Labels


def check_labels(array: NDArray[Any], labels: Labels, name: str) -> None:
    """Raise SourceError at the first value that is no class index and is not ignored.

    array: labels of any shape; (N, 1, H, W) for images. name: the file or blob they come from.
    """
    valid = (array >= 0) & (array < labels.classes) & (array == np.trunc(array))
    if labels.ignore is not None:
        valid |= array == labels.ignore
    if valid.all():
        return
    where = np.unravel_index(int(np.argmin(valid)), array.shape)
    value = float(array[where])
    ignores = "" if labels.ignore is None else f" and ignores {labels.ignore}"
    remedy = (
        "; loss_param { ignore_label: 255 } skips such pixels"
        if value == 255 and labels.ignore is None
        else ""
    )
    raise SourceError(
        f"label {value:g}{_position(array.shape, where)} of {name}; the net has "
        f"{labels.classes} classes (0..{labels.classes - 1}){ignores}{remedy}"
    )


def _position(shape: tuple[int, ...], where: tuple[Any, ...]) -> str:
    """Where in its blob a value stands: ``at (x 12, y 30)``, ``in sample 3``, or both."""
    parts = []
    if len(shape) >= 3:
        parts.append(f"at (x {where[-1]}, y {where[-2]})")
    if len(shape) >= 1 and (shape[0] > 1 or len(shape) < 3):
        parts.append(f"in sample {where[0]}")
    return "".join(f" {part}" for part in parts)
