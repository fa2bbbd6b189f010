"""pycaffe's ``caffe.Detector``: a net run on windows of images, as R-CNN does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from netspec.caffe.classifier import transformer_of
from netspec.caffe.io import load_image
from netspec.caffe.net import Net
from netspec.caffe.transformer import resize_image
from netspec.errors import require
from netspec.proto.layers_pb2 import TEST


class Detector(Net):
    """A net that is run on windows of images.

    mean, input_scale, raw_scale, channel_swap: as `Transformer` takes them. context_pad: how many
    pixels of the input, on each side, show what lies around a window.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_of(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context; outside an image it is the mean, as `load_image` scales it."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_dims = np.array((height, width, channels))
        self.context_pad = context_pad
        mean = np.zeros((channels, height, width), np.float32)
        if name in self.transformer.mean:
            mean = mean + self.transformer.mean[name]
        if name in self.transformer.channel_swap:
            mean = mean[np.argsort(self.transformer.channel_swap[name])]
        self.crop_mean = mean.transpose(1, 2, 0) / self.transformer.raw_scale.get(name, 1)

    def detect_windows(
        self, images_windows: Iterable[tuple[str, Iterable[Sequence[int]]]]
    ) -> list[dict[str, Any]]:
        """The net's first output for each window of each image file.

        images_windows: (file, windows (ymin, xmin, ymax, xmax)). A dict a window: ``filename``,
        ``window``, ``prediction``.
        """
        name = self.inputs[0]
        found: list[dict[str, Any]] = []
        rows = []
        for filename, windows in images_windows:
            image = load_image(filename)
            for window in windows:
                found.append({"window": window, "filename": filename})
                rows.append(self.transformer.preprocess(name, self.crop(image, window)))
        if not rows:
            return found
        given: Any = np.array(rows)
        predictions = self.forward_all(**{name: given})[self.outputs[0]]
        for entry, prediction in zip(found, predictions, strict=True):
            entry["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Sequence[str]) -> list[dict[str, Any]]:
        """`detect_windows` on the proposals of Selective Search.

        They come from the Python module of R-CNN's authors, which runs MATLAB; raises ImportError
        without it.
        """
        search = import_module("selective_search_ijcv_with_python")
        files = [os.path.abspath(file) for file in image_fnames]
        windows = search.get_windows(files, cmd="selective_search_rcnn")
        return self.detect_windows(zip(files, windows, strict=True))

    def crop(self, im: np.ndarray, window: Sequence[int]) -> np.ndarray:
        """A window (ymin, xmin, ymax, xmax) of an image (H, W, K).

        With context it has the input's size already, and the mean beyond the image's edge.
        Caffe: ``python/caffe/detector.py``.
        """
        ymin, xmin, ymax, xmax = window
        if not self.context_pad:
            return im[ymin:ymax, xmin:xmax]
        size = int(self.crop_dims[1])
        require(
            size > 2 * self.context_pad,
            f"context_pad {self.context_pad} on both sides leaves nothing of the net's input of "
            f"{size} pixels; give a smaller one",
        )
        growth = size / (size - 2 * self.context_pad)
        rows = _grown(ymin, ymax, growth, im.shape[0], size)
        columns = _grown(xmin, xmax, growth, im.shape[1], size)
        inside = im[rows.source, columns.source]
        crop = np.array(self.crop_mean, np.float32)
        crop[rows.target, columns.target] = resize_image(inside, (rows.length, columns.length))
        return crop


class _Part:
    """Along an axis: which pixels of the image go where in the crop."""

    def __init__(self, source: slice, start: int, length: int) -> None:
        self.source, self.length = source, length
        self.target = slice(start, start + length)


def _grown(low: float, high: float, growth: float, limit: int, size: int) -> _Part:
    """A window's axis with its context, clipped to an image and scaled to the net's ``size``."""
    half = (high - low + 1) / 2
    first = round(low + half - growth * half)
    last = round(low + half + growth * half)
    scale = size / (last - first + 1)
    start = round(max(0, -first) * scale)
    first, last = max(first, 0), min(last, limit)
    length = min(round((last - first + 1) * scale), size - start)
    return _Part(slice(first, last), start, length)
