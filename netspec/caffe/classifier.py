"""pycaffe's ``caffe.Classifier``: images to the probabilities of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netspec.caffe import transformer
from netspec.caffe.net import Net
from netspec.caffe.transformer import Transformer
from netspec.proto.layers_pb2 import TEST


def transformer_of(net: Net, **settings: Any) -> Transformer:
    """What turns images into a net's first input: ``mean``, ``raw_scale`` ..., where not None."""
    (name, *_) = net.inputs
    made = Transformer({name: net.blobs[name].shape})
    made.set_transpose(name, (2, 0, 1))
    for setting, value in settings.items():
        if value is not None:
            getattr(made, f"set_{setting}")(name, value)
    return made


class Classifier(Net):
    """A net that classifies whole images, by one crop or ten.

    image_dims: (height, width) that images are scaled to before they are cropped to the net's
    input; by default the input's own. mean, input_scale, raw_scale, channel_swap: as `Transformer`
    takes them.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_of(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """The net's first output for each image (H, W, K), as `load_image` gives it: (N, C).

        oversample: the mean over ten crops (`caffe.io.oversample`), not the central one alone.
        """
        images = [transformer.resize_image(image, self.image_dims) for image in inputs]
        if oversample:
            crops = transformer.oversample(images, self.crop_dims)
        else:
            crops = np.array([self._central(image) for image in images])
        name = self.inputs[0]
        rows: Any = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: rows})[self.outputs[0]]
        if oversample:
            return predictions.reshape(len(images), 10, -1).mean(1)
        return predictions

    def _central(self, image: np.ndarray) -> np.ndarray:
        top, left = (np.array(image.shape[:2]) - self.crop_dims) // 2
        height, width = self.crop_dims
        return image[top : top + height, left : left + width]
