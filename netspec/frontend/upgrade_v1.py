"""V1 layers, ``layers { type: CONVOLUTION }``, in the current schema.

Caffe: ``UpgradeV1Net``, ``UpgradeNetDataTransformation`` in ``upgrade_proto.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netspec.errors import GraphError, Place, blame, require
from netspec.frontend.prototxt import NetText
from netspec.frontend.upgrade_v0 import V1, from_v0, without_padding
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.legacy_pb2 import V1LayerParameter

# The types whose name is not the enum's name in CamelCase.
_ODD_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_TRANSFORMED = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}


def from_v1(net: NetText) -> NetText:
    """A net of V0 or V1 layers in the current schema; raises GraphError with a layer's place."""
    with blame(net.places[len(net.message.layer)]):
        require(
            not net.message.layer,
            "has both 'layer' and 'layers'; rewrite the 'layers { type: CONVOLUTION }' ones as "
            "'layer { type: \"Convolution\" }'",
            GraphError,
        )
    layers: list[V1] = []
    for layer, place in zip(net.message.layers, net.places, strict=True):
        copy = V1LayerParameter()
        copy.CopyFrom(layer)
        layers.append((copy, place))
    if any(layer.HasField("layer") for layer, _ in layers):
        layers = [_guarded(from_v0, layer) for layer in without_padding(net, layers)]
    return net.with_layers([_guarded(_current, _guarded(_transform, layer)) for layer in layers])


def _guarded(convert: Callable[[Any], Any], layer: V1) -> tuple[Any, Place]:
    """The layer converted, its place and name added to whatever goes wrong."""
    message, place = layer
    with blame(place, f'layer "{message.layer.name or message.name}"'):
        return convert(message), place


def _transform(layer: V1LayerParameter) -> V1LayerParameter:
    """Transformation fields inside a V1 data layer's own message, moved to transform_param.

    Caffe moves them for V1 data layers only; in the current schema they stay where they are.
    """
    home = _TRANSFORMED.get(layer.type)
    if home:
        for name in _TRANSFORM_FIELDS:
            if layer.HasField(home) and getattr(layer, home).HasField(name):
                setattr(layer.transform_param, name, getattr(getattr(layer, home), name))
                getattr(layer, home).ClearField(name)
    return layer


def _current(old: V1LayerParameter) -> LayerParameter:
    require(not old.HasField("layer"), "mixes a V0 layer into a V1 net", GraphError)
    new = LayerParameter()
    specs = max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))
    for _ in range(specs):
        new.param.add()
    for fields, name in (
        (old.param, "name"),
        (old.blob_share_mode, "share_mode"),
        (old.blobs_lr, "lr_mult"),
        (old.weight_decay, "decay_mult"),
    ):
        for spec, value in zip(new.param, fields, strict=False):
            setattr(spec, name, value)
    for descriptor, value in old.ListFields():
        name = descriptor.name
        if name == "type":
            new.type = current_type(V1LayerParameter.LayerType.Name(value))
        elif name not in ("param", "blob_share_mode", "blobs_lr", "weight_decay", "layer"):
            if isinstance(value, str):
                setattr(new, name, value)
            elif hasattr(value, "CopyFrom"):
                getattr(new, name).CopyFrom(value)
            else:
                getattr(new, name).extend(value)
    return new


def current_type(v1: str) -> str:
    """The type string for a V1 enum name: ``INNER_PRODUCT`` is ``InnerProduct``."""
    return _ODD_TYPES.get(v1, "".join(word.capitalize() for word in v1.split("_")))
