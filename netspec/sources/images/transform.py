"""Transform images as ``transform_param`` says: crop, mirror, subtract a mean, scale.

Caffe: ``data_transformer.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SourceError, WeightsError, counted, fail, require, unreadable
from netspec.formats import protobuf_wire
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import TRAIN, TransformationParameter
from netspec.sources.sampling import generator


class Transform:
    """Apply a ``transform_param`` to images, one at a time.

    A square of ``crop_size`` is cut out: anywhere in phase TRAIN, from the middle in TEST. Half of
    the images are mirrored, if any, in both phases. Then the mean is subtracted, of each channel
    or of each pixel, the latter cropped and mirrored like the image; then all is scaled.

    color: how encoded images are read: True in color, False in grey, None as they are stored.

    Caffe: ``data_transformer.cpp``. Differs: what is random follows from seed and position alone,
    so layers with the same settings crop and mirror in the same way.
    """

    def __init__(
        self, param: TransformationParameter, phase: int, locate: Callable[[str], Path]
    ) -> None:
        """Read the settings, and ``mean_file`` if there is one; raises SourceError.

        locate: where a path that the layer names leads.
        """
        require(
            not (param.force_color and param.force_gray),
            "force_color and force_gray exclude each other",
            SourceError,
        )
        require(
            not (param.mean_file and param.mean_value),
            "mean_file and mean_value exclude each other",
            SourceError,
        )
        self.color = param.force_color if param.force_color or param.force_gray else None
        self._crop = param.crop_size
        self._roams = phase == TRAIN and param.crop_size > 0
        self._mirror = param.mirror
        self._scale = np.float32(param.scale)
        self._mean_file = locate(param.mean_file) if param.mean_file else None
        self._mean: NDArray[np.float32] | None = None
        if self._mean_file:
            self._mean = read_mean(self._mean_file)
        elif param.mean_value:
            self._mean = np.array(param.mean_value, np.float32)[:, None, None]

    def output(self, size: Shape, name: str) -> Shape:
        """(C, H, W) of an image to what `apply` makes of it; raises SourceError if it cannot.

        name: the image's, for messages.
        """
        channels, height, width = size
        require(
            self._crop <= min(height, width),
            f"{name}: crop_size {self._crop} is larger than the image, {width}x{height}",
            SourceError,
        )
        if self._mean_file and self._mean is not None:
            require(
                self._mean.shape == size,
                f"{name}: {text(size)} (channels, height, width), but the mean in "
                f"{self._mean_file} is {text(self._mean.shape)}; both must be the same before "
                "cropping",
                SourceError,
            )
        elif self._mean is not None:
            require(
                len(self._mean) in (1, channels),
                f"{name}: {len(self._mean)} mean_value for {counted(channels, 'channel')}; "
                "give one for all, or one for each",
                SourceError,
            )
        return channels, self._crop or height, self._crop or width

    def apply(
        self, image: NDArray[Any], out: NDArray[np.float32], seed: int, position: int
    ) -> None:
        """Transform an image (C, H, W) into ``out``, of the shape that `output` says.

        seed, position: the layer's seed and the sample's place in the stream; they alone decide
        what is random.
        """
        (_, height, width), (_, rows, columns) = image.shape, out.shape
        top, left, flips = self._draw(height - rows, width - columns, seed, position)
        window = np.s_[:, top : top + rows, left : left + columns]
        view = out[:, :, ::-1] if flips else out
        view[...] = image[window]
        if self._mean is not None:
            view -= np.broadcast_to(self._mean, image.shape)[window]
        if self._scale != 1:
            out *= self._scale

    def undo(self, images: NDArray[np.float32], seed: int, position: int) -> NDArray[np.float32]:
        """The pixels (N, C, H, W) of images that `apply` made; they stay cropped and mirrored.

        seed, position: those of the first image. Applied to a black image, the transform gives the
        negative mean, cropped and mirrored like the image.
        """
        size = self._mean.shape if self._mean_file and self._mean is not None else images.shape[1:]
        black, made = np.zeros(size, np.float32), np.zeros_like(images)
        for i, out in enumerate(made):
            self.apply(black, out, seed, position + i)
        pixels: NDArray[np.float32] = (images - made) / (self._scale or 1)
        return pixels

    def _draw(self, down: int, right: int, seed: int, position: int) -> tuple[int, int, bool]:
        """Where the crop begins, at most ``down`` and ``right``, and whether it is mirrored."""
        if not (self._roams or self._mirror):
            return down // 2, right // 2, False
        # All are drawn whatever is needed: layers of one seed then agree on what they share.
        flip, row, column = generator(seed, "transform", position).random(3)
        flips = self._mirror and flip < 0.5
        if not self._roams:
            return down // 2, right // 2, flips
        return int(row * (down + 1)), int(column * (right + 1)), flips


def read_mean(path: Path) -> NDArray[np.float32]:
    """The mean image (C, H, W) in a .binaryproto, as a BlobProto; raises SourceError."""
    try:
        array = protobuf_wire.blob(protobuf_wire.mapped(path)).array
    except OSError as error:
        fail(f"mean_file: {unreadable(path, error)}", SourceError)
    except WeightsError as error:
        fail(f"mean_file: {path}: {error.message}", SourceError)
    require(
        array.ndim >= 3 and array.size and array.shape[:-3] == (1,) * (array.ndim - 3),
        f"mean_file: {path}: {text(array.shape)} numbers; one image (channels, height, width) "
        "expected",
        SourceError,
    )
    return array.reshape(array.shape[-3:]).astype(np.float32)
