"""WindowData: windows of images, of objects and of background, warped to one size.

Caffe: ``window_data_layer.cpp``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, counted, fail, require, unreadable
from netspec.formats.regular import read_bytes
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import LayerParameter, TransformationParameter
from netspec.sources.base import Batch, Job, ParallelSource, register, require_keys
from netspec.sources.checks import require_blob, require_files
from netspec.sources.images.batches import MOVED, warn_of_moved
from netspec.sources.images.decode import read_channels
from netspec.sources.images.resize import resize
from netspec.sources.images.transform import read_mean
from netspec.sources.images.untransform import add_mean
from netspec.sources.readers.window_file import CHANNELS, WindowBox, read_windows
from netspec.sources.sampling import generator, settle_seed

MODES = ("warp", "square")


class Cut(NamedTuple):
    """A cut of an image, and where it goes: slices of the image and of the square."""

    rows: slice
    columns: slice
    into_rows: slice
    into_columns: slice


@register("WindowData")
class WindowReader(ParallelSource):
    """Feeds windows (N, 3, S, S) in blue, green and red, S the ``crop_size``, and classes (N).

    Of a batch, the share ``fg_fraction`` are objects and stand last; all are drawn at random.
    ``crop_mode: "warp"`` stretches a window, ``"square"`` takes the square around it;
    ``context_pad`` pixels around it are shown too. Pixels outside the image are zero.

    Caffe: ``window_data_layer.cpp``. Differs: what is random follows from seed and position alone;
    ``scale`` counts in transform_param too, where Caffe puts an old net's and does not read it;
    paths that are not found from the current folder are tried beside the prototxt.
    """

    def __init__(self, spec: LayerParameter, phase: int, seed: int | None, place: Place) -> None:
        super().__init__(spec, phase, seed, place)
        self._param = param = spec.window_data_param
        transform = spec.transform_param
        _require_settings(spec, place)
        self._size, self._crop = param.batch_size, transform.crop_size
        require_blob((self._size, CHANNELS, self._crop, self._crop), f'blob "{spec.top[0]}"')
        self._mirror = transform.mirror
        self._scale = np.float32(param.scale) * np.float32(transform.scale)
        self._mean = _read_mean(transform, self.locate) if transform.mean_file else _mean(transform)
        # As Caffe counts: in single precision, rounded down.
        objects = int(np.float32(self._size) * np.float32(param.fg_fraction))
        self._shares = (self._size - objects, objects)
        self._list = self.locate(param.source)
        found = read_windows(self._list, param.fg_threshold, param.bg_threshold)
        self._kinds = (found.background, found.objects)
        for kind, share, name in zip(
            self._kinds, self._shares, ("background", "object"), strict=True
        ):
            require(
                kind or not share,
                f"{self._list}: has no {name} windows, but a batch needs {share}",
                SourceError,
            )
        self._paths = [self.locate(param.root_folder + image) for image in found.images]
        require_files(len(self._paths), self._lacks, str(self._list))
        cached = self._paths if param.cache_images else []
        self._cache = {path: _read_bytes(path) for path in cached}
        self._seed, self._position = settle_seed(seed), 0
        self._pending: Batch | None = None

    @property
    def tops(self) -> dict[str, Shape]:
        if self._pending is None:
            self._pending = self._read(self._seed, self._position)
        return {name: array.shape for name, array in self._pending.items()}

    def job(self) -> Job:
        seed, position, pending = self._seed, self._position, self._pending
        self._pending = None
        self._position += 1
        self.current = str(self._list)
        return lambda: self._read(seed, position) if pending is None else pending

    def state(self) -> dict[str, Any]:
        return {"seed": self._seed, "position": self._position, "windows": self._counts()}

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
            require(
                state["windows"] == self._counts(),
                f"the state is of {_text(state['windows'])}, but {self._list} has "
                f"{_text(self._counts())}",
                SourceError,
            )
        self._seed, self._position = state["seed"], state["position"]
        self._pending = None

    def pixels(self, state: Mapping[str, Any], batch: Batch) -> Batch:
        top, *_ = self.spec.top
        return {top: add_mean(batch[top], self._mean, float(self._scale))}

    @property
    def batches(self) -> int:
        return math.ceil(sum(self._counts()) / self._size)

    def describe(self) -> str:
        images = counted(len(self._paths), "image")
        return f"WindowData: {_text(self._counts())} of {images} that {self._list} lists"

    def _counts(self) -> list[int]:
        return [len(kind) for kind in self._kinds]

    def _lacks(self, index: int) -> Path | None:
        """The file of an image, if it is not there."""
        path = self._paths[index]
        return None if os.path.isfile(path) else path

    def _read(self, seed: int, position: int) -> Batch:
        images = np.zeros((self._size, CHANNELS, self._crop, self._crop), np.float32)
        labels = np.empty(self._size, np.float32)
        draw = generator(seed, "windows", position)
        with self.blamed():
            i = 0
            for kind, share in zip(self._kinds, self._shares, strict=True):
                for _ in range(share):
                    window = kind[draw.integers(len(kind))]
                    flips = self._mirror and draw.random() < 0.5
                    self._show(window, flips, images[i])
                    labels[i] = window.label
                    i += 1
        return dict(zip(self.spec.top, (images, labels), strict=True))

    def _show(self, window: WindowBox, flips: bool, out: NDArray[np.float32]) -> None:
        """Put a window into its square, which is zero."""
        path = self._paths[window.image]
        file = BytesIO(self._cache[path]) if path in self._cache else path
        image = read_channels(file, True, path)
        square = self._param.crop_mode == "square"
        cut = place(window, image.shape[:2], self._crop, self._param.context_pad, square, flips)
        if cut is None:
            height, width, _ = image.shape
            fail(f"{path}: {window} lies outside of the image, {width}x{height}", SourceError)
        into = np.s_[:, cut.into_rows, cut.into_columns]
        view = out[into]
        warped = resize(image[cut.rows, cut.columns], *view.shape[1:])
        view[...] = (warped[:, ::-1] if flips else warped).transpose(2, 0, 1)
        view -= np.broadcast_to(self._mean, out.shape)[into]
        view *= self._scale


def place(
    window: WindowBox, size: tuple[int, int], crop: int, pad: int, square: bool, flips: bool
) -> Cut | None:
    """Where a window with its context is cut out of an image, and where that goes.

    size: the image's height and width. crop: the edge of the square. None where nothing can be cut
    out. Caffe: ``window_data_layer.cpp`` (``load_batch``).
    """
    height, width = size
    if not (pad or square):
        inside = window.x1 >= 0 and window.y1 >= 0 and window.x2 < width and window.y2 < height
        whole = slice(0, crop)
        rows, columns = slice(window.y1, window.y2 + 1), slice(window.x1, window.x2 + 1)
        return Cut(rows, columns, whole, whole) if inside else None
    # In single precision, as Caffe computes, so that halves fall on the same side.
    half = np.array([window.y2 - window.y1 + 1, window.x2 - window.x1 + 1], np.float32) / 2
    centre = np.array([window.y1, window.x1], np.float32) + half
    reach = (np.repeat(half.max(), 2) if square else half) * (
        np.float32(crop) / np.float32(crop - 2 * pad)
    )
    spans = [
        _span(_round(c - r), _round(c + r), edge, crop, mirrored)
        for c, r, edge, mirrored in zip(centre, reach, size, (False, flips), strict=True)
    ]
    if spans[0] is None or spans[1] is None:
        return None
    (rows, into_rows), (columns, into_columns) = spans[0], spans[1]
    return Cut(rows, columns, into_rows, into_columns)


def _span(
    first: int, last: int, edge: int, crop: int, mirrored: bool
) -> tuple[slice, slice] | None:
    """One axis: what of pixels ``first`` to ``last`` lies in an image, and where that goes."""
    before, after = max(0, -first), max(0, last - edge + 1)
    inside = slice(first + before, last - after + 1)
    scale = np.float32(crop) / np.float32(last - first + 1)
    size = _round(np.float32(inside.stop - inside.start) * scale)
    start = _round(np.float32(after if mirrored else before) * scale)
    # Rounding may push it over the edge.
    size = min(size, crop - start)
    return (inside, slice(start, start + size)) if inside.start < inside.stop and size > 0 else None


def _round(value: np.float32) -> int:
    """To the nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def _require_settings(spec: LayerParameter, place: Place) -> None:
    param, transform = spec.window_data_param, spec.transform_param
    moved = {old: new for old, new in MOVED.items() if old != "scale"}
    warn_of_moved(spec, place, param, moved)
    checks = (
        (param.source, "source must be given: the list of windows"),
        (param.batch_size > 0, "batch_size must be given and positive"),
        (transform.crop_size > 0, "needs transform_param { crop_size: ... }: windows' size"),
        (
            transform.crop_size > 2 * param.context_pad or not transform.crop_size,
            f"context_pad {param.context_pad} on both sides leaves nothing of crop_size "
            f"{transform.crop_size}",
        ),
        (
            param.crop_mode in MODES,
            f'unknown crop_mode "{param.crop_mode}" ({", ".join(MODES)})',
        ),
        (
            0 <= param.fg_fraction <= 1,
            f"fg_fraction {param.fg_fraction:g} must lie in 0..1",
        ),
        (
            not (transform.mean_file and transform.mean_value),
            "mean_file and mean_value exclude each other",
        ),
        (not transform.force_gray, "force_gray has no meaning here: windows are read in color"),
    )
    for holds, message in checks:
        require(holds, message, SourceError)


def _mean(transform: TransformationParameter) -> NDArray[np.float32]:
    """The mean of each channel, (3, 1, 1); zeros if none is given."""
    means = transform.mean_value or [0]
    require(
        len(means) in (1, CHANNELS),
        f"{len(means)} mean_value for {CHANNELS} channels; give one for all, or one for each",
        SourceError,
    )
    return np.broadcast_to(np.array(means, np.float32)[:, None, None], (CHANNELS, 1, 1))


def _read_mean(
    transform: TransformationParameter, locate: Callable[[str], Path]
) -> NDArray[np.float32]:
    """The middle of the mean image, (3, S, S); where it begins, its width alone decides."""
    path, crop = locate(transform.mean_file), transform.crop_size
    mean = read_mean(path)
    channels, height, width = mean.shape
    start = (width - crop) // 2
    require(
        channels == CHANNELS and 0 <= start <= height - crop,
        f"mean_file: {path}: {text(mean.shape)} (channels, height, width), too small for "
        f"windows of {text((CHANNELS, crop, crop))}",
        SourceError,
    )
    return mean[:, start : start + crop, start : start + crop]


def _read_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        fail(unreadable(path, error), SourceError)


def _text(counts: list[int]) -> str:
    return f"{counts[0]} background and {counts[1]} object windows"
