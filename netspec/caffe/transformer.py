"""pycaffe's ``caffe.io.Transformer``: an image as a net's input takes it, and back.

Caffe: ``python/caffe/io.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage

Image = np.ndarray


def resize_image(im: Image, new_dims: Iterable[int], interp_order: int = 1) -> Image:
    """An image (H, W, K) at another size (height, width), as float32.

    interp_order: of the spline between pixels; 1 is linear. Of 1 or 3 channels a pixel is a small
    square, and beyond the edge lies the image's darkest value, as pycaffe's library for images has
    it; with other channels a pixel is a point, and corners stay on corners.
    """
    size = tuple(map(int, new_dims))
    zoom = (*(new / old for new, old in zip(size, im.shape, strict=False)), 1)
    if im.shape[-1] not in (1, 3):
        return ndimage.zoom(im, zoom, order=interp_order).astype(np.float32)
    darkest = im.min()
    if im.max() == darkest:
        return np.full((*size, im.shape[-1]), darkest, np.float32)
    resized: Image = ndimage.zoom(
        im - darkest, zoom, order=interp_order, mode="grid-constant", grid_mode=True
    )
    # Splines swing beyond what they go through.
    return (resized.clip(0, im.max() - darkest) + darkest).astype(np.float32)


def oversample(images: Sequence[Image], crop_dims: Iterable[int]) -> np.ndarray:
    """Ten crops of each image (H, W, K): corners, centre, and all of them mirrored.

    crop_dims: (height, width). (10 N, height, width, K) as float32, the ten of an image together.
    """
    height, width = map(int, crop_dims)
    bottom, right = images[0].shape[0] - height, images[0].shape[1] - width
    starts = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = []
    for image in images:
        five = [image[y : y + height, x : x + width] for y, x in starts]
        crops += [*five, *(crop[:, ::-1] for crop in five)]
    return np.array(crops, np.float32)


class Transformer:
    """Turns images into what input blobs take, and back: each input has settings of its own.

    inputs: blob name -> its shape (N, C, H, W). The settings come in this order: resize, transpose,
    channel swap, raw scale, mean, input scale.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: Image) -> np.ndarray:
        """An image (H', W', C) as a row of an input blob, (C, H, W) if it is transposed so."""
        array = np.asarray(data).astype(np.float32)
        size = self._shape(in_)[2:]
        if array.shape[:2] != size:
            array = resize_image(array, size)
        if in_ in self.transpose:
            array = array.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            array = array[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            array = array * self.raw_scale[in_]
        if in_ in self.mean:
            array = array - self.mean[in_]
        if in_ in self.input_scale:
            array = array * self.input_scale[in_]
        return np.asarray(array, np.float32)

    def deprocess(self, in_: str, data: np.ndarray) -> Image:
        """The image behind a row of an input blob, at the blob's size."""
        self._shape(in_)
        array = np.array(data).squeeze()
        if in_ in self.input_scale:
            array = array / self.input_scale[in_]
        if in_ in self.mean:
            array = array + self.mean[in_]
        if in_ in self.raw_scale:
            array = array / self.raw_scale[in_]
        if in_ in self.channel_swap:
            array = array[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            array = array.transpose(np.argsort(self.transpose[in_]))
        return array

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of axes: (2, 0, 1) makes (H, W, C) into (C, H, W)."""
        if len(order) != len(self._shape(in_)) - 1:
            raise ValueError(
                f"{len(order)} axes to transpose; a row of {in_} has {len(self._shape(in_)) - 1}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of channels, which are the first axis by then: (2, 1, 0) makes RGB into BGR."""
        if len(order) != self._shape(in_)[1]:
            raise ValueError(f"{len(order)} channels to swap; {in_} has {self._shape(in_)[1]}")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """A factor before the mean is subtracted: 255 for nets that take values from 0 to 255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """What is subtracted: a value a channel, or an image (C, H, W) or (H, W), made to fit."""
        shape = self._shape(in_)
        if mean.ndim == 1:
            if len(mean) != shape[1]:
                raise ValueError(f"the mean has {len(mean)} channels; {in_} has {shape[1]}")
            self.mean[in_] = mean[:, np.newaxis, np.newaxis]
            return
        if mean.ndim not in (2, 3):
            raise ValueError(f"the mean has {mean.ndim} axes; it needs 1, 2 or 3")
        image = mean if mean.ndim == 3 else mean[np.newaxis]
        if image.shape != shape[1:]:
            resized = resize_image(image.transpose(1, 2, 0), shape[2:])
            image = resized.transpose(2, 0, 1)
        self.mean[in_] = image

    def set_input_scale(self, in_: str, scale: float) -> None:
        """A factor after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the net's inputs: {', '.join(self.inputs)}")
        return tuple(self.inputs[in_])
