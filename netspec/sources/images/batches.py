"""The base of sources of single images: batches of transformed images, and their labels.

Caffe: ``base_data_layer.cpp``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, counted, fail, require
from netspec.frontend.ignored_fields import warn_once
from netspec.frontend.prototxt import who
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Batch, Job, ParallelSource, require_keys
from netspec.sources.images.transform import Transform
from netspec.sources.sampling import settle_seed

# Settings that old layers had in their own message -> their names in transform_param.
MOVED = {"scale": "scale", "mean_file": "mean_file", "crop_size": "crop_size", "mirror": "mirror"}


def warn_of_moved(spec: LayerParameter, place: Place, param: Any, moved: Mapping[str, str]) -> None:
    """Log a warning for each setting of a layer's own message that is ignored, as by Caffe."""
    for old, new in moved.items():
        if param.HasField(old):
            warn_once(
                f"{place}: {who(spec)}: {old} has no effect here, nor in Caffe; to have it, write "
                f"transform_param {{ {new}: ... }}"
            )


class LabelledImage(NamedTuple):
    """An image (C, H, W) of bytes or floats, its label if it has one, and its name."""

    image: NDArray[Any]
    label: int | None
    name: str


class LazyImage(NamedTuple):
    """An image that is not read yet: its name, and a function that reads it, in any thread."""

    name: str
    read: Callable[[], LabelledImage]


class ImageSource(ParallelSource):
    """Feeds images (N, C, H, W) and, if a second top is named, labels (N).

    The first image of a batch decides C, H and W. Samples are taken one after the other by `_take`.

    remedy: what makes images of several sizes one size.
    """

    remedy: ClassVar[str]

    def __init__(
        self, spec: LayerParameter, phase: int, seed: int | None, place: Place, batch_size: int
    ) -> None:
        super().__init__(spec, phase, seed, place)
        require(batch_size > 0, "batch_size must be given and positive", SourceError)
        self._size = batch_size
        self._transform = Transform(spec.transform_param, phase, self.locate)
        self._seed = settle_seed(seed)
        self._position = 0
        self._head: LazyImage | None = None

    @abstractmethod
    def _take(self, position: int) -> LazyImage:
        """The sample at a position of the stream; they are asked for in turn."""

    @property
    def tops(self) -> dict[str, Shape]:
        with self.blamed():
            shapes = (self._size, *self._output(self._peek())), (self._size,)
        return dict(zip(self.spec.top, shapes, strict=False))

    def job(self) -> Job:
        seed, position = self._seed, self._position
        with self.blamed():
            head = self._take_head()
            samples = [head, *(self._take(position + i) for i in range(1, self._size))]
        self.current = head.name if self._size == 1 else f"the batch that begins with {head.name}"
        self.sample = Path(head.name).stem if self._size == 1 else ""
        self.files = tuple(sample.name for sample in samples)
        self._position += self._size
        self._head = None
        return lambda: self._batch(samples, seed, position)

    def state(self) -> dict[str, Any]:
        return {"seed": self._seed, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        with self.blamed():
            require_keys(state, self.state())
        self._seed = state["seed"]
        self._position = state["position"]
        self._head = None

    def pixels(self, state: Mapping[str, Any], batch: Batch) -> Batch:
        top, *_ = self.spec.top
        return {top: self._transform.undo(batch[top], state["seed"], state["position"])}

    def _take_head(self) -> LazyImage:
        """The first sample of the next batch; however often it is asked for, it is read once."""
        if self._head is None:
            head = self._take(self._position)
            self._head = head._replace(read=cache(head.read))
        return self._head

    def _peek(self) -> LabelledImage:
        return self._take_head().read()

    def _batch(self, samples: list[LazyImage], seed: int, position: int) -> Batch:
        with self.blamed():
            shape = self._output(samples[0].read())
            images = np.empty((self._size, *shape), np.float32)
            labels = np.empty(self._size, np.float32)
            for i, unread in enumerate(samples):
                sample = unread.read()
                self._require_same(sample, shape)
                self._transform.apply(sample.image, images[i], seed, position + i)
                labels[i] = self._label(sample)
        return dict(zip(self.spec.top, (images, labels), strict=False))

    def _output(self, sample: LabelledImage) -> Shape:
        return self._transform.output(sample.image.shape, sample.name)

    def _require_same(self, sample: LabelledImage, shape: Shape) -> None:
        """Raise SourceError unless a sample comes out in the shape of its batch."""
        found = self._output(sample)
        if found == shape:
            return
        channels = (counted(each[0], "channel") for each in (found, shape))
        require(
            found[0] == shape[0],
            "{}: {}, but the batch that it is in began with {}; force_color or force_gray makes "
            "encoded images alike".format(sample.name, *channels),
            SourceError,
        )
        fail(
            f"{sample.name}: {text(found)} (channels, height, width), but the batch that it is in "
            f"began with {text(shape)}; {self.remedy} allows several sizes",
            SourceError,
        )

    def _label(self, sample: LabelledImage) -> int:
        if len(self.spec.top) == 1:
            return 0
        require(
            sample.label is not None,
            f'{sample.name}: has no label for top "{self.spec.top[1]}"; leave that top out',
            SourceError,
        )
        return sample.label or 0
