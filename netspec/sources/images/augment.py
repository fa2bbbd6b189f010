"""Augment images and their label images together: scale, crop, mirror, and change colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from netspec.errors import SourceError, counted, require
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import TRAIN, LayerParameter
from netspec.sources.checks import require_blob
from netspec.sources.images.decode import subtract_mean
from netspec.sources.images.transform import read_mean
from netspec.sources.images.untransform import add_mean
from netspec.sources.sampling import generator

# In the order in which they are applied, and in which their factors are drawn.
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
_AS_IT_IS = (1.0, 1.0, 1.0)


class View(NamedTuple):
    """What a sample shows of an image that is brought to ``height`` and ``width``.

    top, left: where in that image the sample begins; negative if outside. flips: whether it is
    mirrored. factors: of brightness, contrast and saturation.
    """

    height: int
    width: int
    top: int
    left: int
    flips: bool = False
    factors: tuple[float, ...] = _AS_IT_IS


class _Span(NamedTuple):
    """What image and sample share along an axis: from and to, in the image; from, in the sample."""

    start: int
    stop: int
    at: int

    @property
    def inside(self) -> slice:
        """The shared part, in the sample."""
        return slice(self.at, self.at + self.stop - self.start)


class Augment:
    """Apply a ``segmentation_data_param`` to images and their labels, one pair at a time.

    In phase TRAIN an image is scaled by a factor between ``min_scale`` and ``max_scale``, a window
    of ``crop_size`` is cut out anywhere, half of the samples are mirrored if any, and brightness,
    contrast and saturation are multiplied by factors that differ from 1 by at most these. In TEST
    the window is cut out of the middle, and that is all. Scaling is bilinear, for labels to the
    nearest. Where a window reaches outside an image smaller than it, the sample is the mean (so 0)
    and its label ``ignore_label``.

    At last the mean is subtracted, ``mean_value`` or that of each channel of ``mean_file``, and
    the difference multiplied by ``scale``.
    """

    def __init__(self, spec: LayerParameter, phase: int, locate: Callable[[str], Path]) -> None:
        """Check the settings and read ``mean_file`` if there is one; raises SourceError.

        locate: where a path that the layer names leads.
        """
        self._param = param = spec.segmentation_data_param
        _check_ranges(spec)
        self._random = phase == TRAIN
        self._crop = tuple(param.crop_size) * (3 - len(param.crop_size)) if param.crop_size else ()
        self._mean: tuple[float, ...] = tuple(param.mean_value or (0.0,))
        if param.mean_file:
            path = locate(param.mean_file)
            mean = read_mean(path)
            require(
                len(mean) == 3,
                f"mean_file: {path}: {counted(len(mean), 'channel')}; 3 expected",
                SourceError,
            )
            self._mean = tuple(mean.mean(axis=(1, 2), dtype=np.float64))

    @property
    def crop(self) -> Shape:
        """Height and width of all samples; empty where each has its image's."""
        return self._crop

    def apply(
        self,
        image: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        blob: NDArray[np.float32],
        classes: NDArray[np.float32],
        seed: int,
        position: int,
    ) -> None:
        """Make a sample of an image (h, w, 3), red, green, blue, and its labels (h, w).

        blob, classes: where it is put, (3, H, W), in blue, green, red, and (H, W). seed, position:
        the layer's seed and the sample's place in the stream; they alone decide what is random.
        """
        (height, width), (rows, columns) = labels.shape, classes.shape
        view = self._draw(height, width, rows, columns, seed, position)
        down = _shared(view.top, view.height, rows)
        across = _shared(view.left, view.width, columns)
        if (view.height, view.width) == (height, width):
            window = np.s_[down.start : down.stop, across.start : across.stop]
            image, labels = image[window], labels[window]
        else:
            image = _scaled(image, view, down, across, Image.Resampling.BILINEAR)
            labels = _scaled(labels, view, down, across, Image.Resampling.NEAREST)
        blob[...] = 0
        classes[...] = self._param.ignore_label
        if view.flips:
            blob, classes = blob[:, :, ::-1], classes[:, ::-1]
        shown = blob[:, down.inside, across.inside]
        subtract_mean(_enhanced(image, view.factors), self._mean, shown)
        if self._param.scale != 1:
            shown *= np.float32(self._param.scale)
        classes[down.inside, across.inside] = labels

    def undo(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The pixels (N, 3, H, W) of images that `apply` made: undo the scale and add the mean."""
        return add_mean(images, self._mean, self._param.scale)

    def _draw(
        self, height: int, width: int, rows: int, columns: int, seed: int, position: int
    ) -> View:
        """What a sample of ``rows`` and ``columns`` shows of an image."""
        if not self._random:
            return View(height, width, (height - rows) // 2, (width - columns) // 2)
        # All are drawn whatever is needed, so that one setting does not change another's numbers.
        draws = generator(seed, "augment", position).random(7)
        p = self._param
        factor = p.min_scale + draws[0] * (p.max_scale - p.min_scale)
        height, width = (max(1, round(size * factor)) for size in (height, width))
        require_blob((3, height, width), f"an image scaled by {factor:g}")
        top, left = _start(height - rows, draws[1]), _start(width - columns, draws[2])
        most = (p.brightness, p.contrast, p.saturation)
        factors = tuple(1 + x * (2 * d - 1) for x, d in zip(most, draws[4:], strict=True))
        return View(height, width, top, left, bool(p.mirror and draws[3] < 0.5), factors)


def _check_ranges(spec: LayerParameter) -> None:
    """Raise SourceError unless a ``segmentation_data_param`` has settings that can work."""
    p = spec.segmentation_data_param
    for allowed, message in (
        (not (p.mean_value and p.mean_file), "mean_value and mean_file exclude each other"),
        (
            len(p.mean_value) in (0, 1, 3),
            f"{len(p.mean_value)} mean_value; give one, or three: blue, green, red",
        ),
        (
            len(p.crop_size) <= 2 and all(p.crop_size),
            f"crop_size {' '.join(map(str, p.crop_size))}; give height and width, or one for both, "
            "both positive",
        ),
        (
            0 < p.min_scale <= p.max_scale,
            f"min_scale {p.min_scale:g} and max_scale {p.max_scale:g}; "
            "needed is 0 < min_scale <= max_scale",
        ),
        (
            p.crop_size or p.min_scale == p.max_scale == 1,
            "min_scale and max_scale need crop_size: else every sample has a size of its own",
        ),
    ):
        require(allowed, message, SourceError)
    for name in ("brightness", "contrast", "saturation"):
        value = getattr(p, name)
        require(0 <= value <= 1, f"{name} {value:g}; must be from 0 to 1", SourceError)


def _start(room: int, draw: float) -> int:
    """Where a window begins that has ``room`` to move; if it has less than 0, the image has it."""
    return min(room, 0) + int(draw * (abs(room) + 1))


def _shared(start: int, size: int, wanted: int) -> _Span:
    """What a sample that begins at ``start`` of an image and is ``wanted`` long has of it."""
    return _Span(max(start, 0), min(start + wanted, size), max(-start, 0))


def _scaled(
    image: NDArray[np.uint8], view: View, down: _Span, across: _Span, how: Image.Resampling
) -> NDArray[np.uint8]:
    """The part of an image that a sample shows, as it is in the scaled image."""
    rows, columns = image.shape[:2]
    box = (
        across.start * columns / view.width,
        down.start * rows / view.height,
        across.stop * columns / view.width,
        down.stop * rows / view.height,
    )
    size = across.stop - across.start, down.stop - down.start
    return np.asarray(Image.fromarray(image).resize(size, how, box))


def _enhanced(image: NDArray[np.uint8], factors: tuple[float, ...]) -> NDArray[np.uint8]:
    """An image with its brightness, its contrast and its saturation multiplied."""
    if factors == _AS_IT_IS:
        return image
    picture = Image.fromarray(image)
    for enhancer, factor in zip(_ENHANCERS, factors, strict=True):
        if factor != 1:
            picture = enhancer(picture).enhance(factor)
    return np.asarray(picture)
