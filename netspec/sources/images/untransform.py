"""What sources feed, back to the pixels that it was made of, to be looked at."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netspec.layers.base import REGISTRY
from netspec.proto.layers_pb2 import TransformationParameter
from netspec.sources.base import Batch, LayerSource, Source
from netspec.sources.images import decode
from netspec.sources.images.batches import SampleSource
from netspec.sources.images.transform import Transform, read_mean
from netspec.sources.readers.segmentation_list import SegmentationData
from netspec.sources.readers.windows import WindowData
from netspec.sources.sets import nyud, siftflow
from netspec.sources.sets.base import SegmentationSource
from netspec.sources.sets.matlab import VOID
from netspec.sources.sets.nyud import NYUDSegData
from netspec.sources.sets.pascal_context import PASCALContextSegData
from netspec.sources.sets.siftflow import SIFTFlowSegData


@singledispatch
def pixels(source: Source, state: Mapping[str, Any], batch: Batch) -> Batch:
    """The images (N, C, H, W) of a batch before a mean was subtracted and they were scaled.

    state: where the source stood before the batch. Tops that no mean is known of are left out.
    """
    return {}


@pixels.register
def _(source: LayerSource, state: Mapping[str, Any], batch: Batch) -> Batch:
    """As the layer's own message says, or a Python layer's ``param_str``, for its first top."""
    top, *_ = source.spec.top
    known = REGISTRY.get(source.spec.type)
    if known is None or known.param_field is None:
        return {}
    own = getattr(source.spec, known.param_field)
    means = list(getattr(own, "mean_value", ()))
    if getattr(own, "mean_file", ""):
        means = read_mean(source.locate(own.mean_file)).mean((1, 2)).tolist()
    means = means or _mean_setting(getattr(own, "param_str", ""))
    images = batch[top]
    fits = images.ndim == 4 and len(means) in (1, images.shape[1])
    return {top: _add(images, means, getattr(own, "scale", 1))} if fits else {}


@pixels.register
def _(source: SampleSource, state: Mapping[str, Any], batch: Batch) -> Batch:
    """What ``transform_param`` makes of black is what it has subtracted, cropped and mirrored."""
    top, *_ = source.spec.top
    param = source.spec.transform_param
    images = batch[top]
    transform = Transform(param, source.phase, source.locate)
    size = read_mean(source.locate(param.mean_file)).shape if param.mean_file else images.shape[1:]
    black, made = np.zeros(size, np.float32), np.zeros_like(images)
    for i, out in enumerate(made):
        transform.apply(black, out, state["seed"], state["position"] + i)
    return {top: (images - made) / (param.scale or 1)}


@pixels.register
def _(source: WindowData, state: Mapping[str, Any], batch: Batch) -> Batch:
    top, *_ = source.spec.top
    param = source.spec.transform_param
    scale = param.scale * source.spec.window_data_param.scale
    return {top: _add(batch[top], _mean_of_windows(source, param), scale)}


def _mean_of_windows(source: WindowData, param: TransformationParameter) -> NDArray[np.float32]:
    """Of each pixel if there is a mean image: its middle, where its width says; or (C, 1, 1)."""
    if not param.mean_file:
        return _per_channel(list(param.mean_value) or [0])
    mean, crop = read_mean(source.locate(param.mean_file)), param.crop_size
    start = (mean.shape[2] - crop) // 2
    return mean[:, start : start + crop, start : start + crop]


@pixels.register
def _(source: PASCALContextSegData, state: Mapping[str, Any], batch: Batch) -> Batch:
    top, *_ = source.spec.top
    return {top: _add(batch[top], decode.MEAN)}


@pixels.register
def _(source: SIFTFlowSegData, state: Mapping[str, Any], batch: Batch) -> Batch:
    top, *_ = source.spec.top
    return {top: _add(batch[top], siftflow.MEAN)}


@pixels.register
def _(source: NYUDSegData, state: Mapping[str, Any], batch: Batch) -> Batch:
    """Of color and hha, whose channels stand the other way round; a logarithm is no pixel."""
    found = {}
    for top, kind in zip(source.spec.top, source.nouns, strict=True):
        if kind == "color":
            found[top] = _add(batch[top], nyud.COLOR_MEAN)
        elif kind == "hha":
            found[top] = _add(batch[top], nyud.HHA_MEAN)[:, ::-1]
    return found


@singledispatch
def labels_of(source: Source) -> dict[str, int]:
    """The tops that a source itself knows to hold class indices -> its index for no class."""
    return {}


@labels_of.register
def _(source: SegmentationSource) -> dict[str, int]:
    folders = [source.locate(source.settings[key]) for key in source.folders]
    parts = zip(source.spec.top, source.parts(*folders), strict=True)
    return {top: VOID for top, part in parts if part.labels}


@labels_of.register
def _(source: SegmentationData) -> dict[str, int]:
    _, top = source.spec.top
    return {top: source.spec.segmentation_data_param.ignore_label}


def _add(images: NDArray[np.float32], mean: ArrayLike, scale: float = 1) -> NDArray[np.float32]:
    """Images (N, C, H, W) = (pixels - mean) scale, back to the pixels."""
    restored: NDArray[np.float32] = images / np.float32(scale or 1) + _per_channel(mean)
    return restored


def _per_channel(mean: ArrayLike) -> NDArray[np.float32]:
    """A number, one a channel, or one a pixel, as (C, 1, 1) or (C, H, W)."""
    array = np.asarray(mean, np.float32)
    return array if array.ndim == 3 else array.reshape(-1, 1, 1)


def _mean_setting(param_str: str) -> list[float]:
    """The setting "mean" of a Python layer, as published layers have it: 1 or 3 numbers."""
    try:
        mean = ast.literal_eval(param_str.strip())["mean"]
        means = np.asarray(mean, np.float32).ravel().tolist()
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return []
    return means if len(means) in (1, 3) else []
