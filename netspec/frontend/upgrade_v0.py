"""V0 layers, ``layers { layer { type: "conv" } }``, as V1 ones.

Caffe: ``UpgradeV0LayerParameter``, ``UpgradeV0PaddingLayers`` in ``upgrade_proto.cpp``. Differs:
a field that its layer type does not have, which Caffe logs and drops, is an error.
"""

from __future__ import annotations

from typing import Any

from netspec.errors import GraphError, Place, blame, nearest, require
from netspec.frontend.prototxt import NetText
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter

V1 = tuple[V1LayerParameter, Place]

# V0's type strings that are not the V1 enum's name in lower case.
_V0_TYPES = {
    "conv": "CONVOLUTION",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
}
_V0_PLAIN = (
    "accuracy bnll concat data dropout euclidean_loss flatten hdf5_data hdf5_output im2col "
    "infogain_loss lrn multinomial_logistic_loss relu sigmoid softmax softmax_loss split tanh "
    "window_data"
).split()

# Where V0's flat fields went: field -> (layer type -> its message, the field's name there).
_LEARNED = {"conv": "convolution_param", "innerproduct": "inner_product_param"}
_WINDOWED = {"conv": "convolution_param", "pool": "pooling_param"}
_DATA = {
    "data": "data_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "window_data": "window_data_param",
}
_IMAGES = {"images": "image_data_param"}
_WINDOWS = {"window_data": "window_data_param"}
_V0_FIELDS: dict[str, tuple[dict[str, str], str]] = {
    "num_output": (_LEARNED, "num_output"),
    "biasterm": (_LEARNED, "bias_term"),
    "weight_filler": (_LEARNED, "weight_filler"),
    "bias_filler": (_LEARNED, "bias_filler"),
    "pad": (_WINDOWED, "pad"),
    "kernelsize": (_WINDOWED, "kernel_size"),
    "stride": (_WINDOWED, "stride"),
    "group": ({"conv": "convolution_param"}, "group"),
    "pool": ({"pool": "pooling_param"}, "pool"),
    "dropout_ratio": ({"dropout": "dropout_param"}, "dropout_ratio"),
    "local_size": ({"lrn": "lrn_param"}, "local_size"),
    "alpha": ({"lrn": "lrn_param"}, "alpha"),
    "beta": ({"lrn": "lrn_param"}, "beta"),
    "k": ({"lrn": "lrn_param"}, "k"),
    "source": ({**_DATA, "infogain_loss": "infogain_loss_param"}, "source"),
    "batchsize": (_DATA, "batch_size"),
    "rand_skip": ({"data": "data_param", **_IMAGES}, "rand_skip"),
    "shuffle_images": (_IMAGES, "shuffle"),
    "new_height": (_IMAGES, "new_height"),
    "new_width": (_IMAGES, "new_width"),
    "concat_dim": ({"concat": "concat_param"}, "concat_dim"),
    "det_fg_threshold": (_WINDOWS, "fg_threshold"),
    "det_bg_threshold": (_WINDOWS, "bg_threshold"),
    "det_fg_fraction": (_WINDOWS, "fg_fraction"),
    "det_context_pad": (_WINDOWS, "context_pad"),
    "det_crop_mode": (_WINDOWS, "crop_mode"),
    "hdf5_output_param": ({"hdf5_output": "hdf5_output_param"}, "hdf5_output_param"),
}
_V0_TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}


def without_padding(net: NetText, layers: list[V1]) -> list[V1]:
    """V0's padding layers folded into the ``pad`` of the convolution or pooling that reads them."""
    producer: dict[str, V1LayerParameter | None] = dict.fromkeys(net.message.input)
    kept: list[V1] = []
    for layer, place in layers:
        kind = layer.layer.type
        with blame(place, f'layer "{layer.layer.name}"'):
            if kind != "padding":
                kept.append((layer, place))
            for i, bottom in enumerate(list(layer.bottom)):
                require(
                    bottom in producer,
                    f'unknown bottom "{bottom}"{nearest(bottom, producer)}',
                    GraphError,
                )
                source = producer[bottom]
                if source is None or source.layer.type != "padding":
                    continue
                require(
                    kind in _WINDOWED and len(layer.bottom) == 1,
                    "a padding layer can only feed a conv or pool layer with one bottom",
                    GraphError,
                )
                require(
                    len(source.bottom) == len(source.top) == 1,
                    "its padding layer needs exactly one bottom and one top",
                    GraphError,
                )
                layer.layer.pad = source.layer.pad
                layer.bottom[i] = source.bottom[0]
        producer.update(dict.fromkeys(layer.top, layer))
    return kept


def from_v0(old: V1LayerParameter) -> V1LayerParameter:
    """A V0 layer, the ``layer`` in one of V1, as a V1 layer; raises GraphError."""
    require(old.HasField("layer"), "mixes a V1 layer into a V0 net", GraphError)
    new = V1LayerParameter(bottom=old.bottom, top=old.top)
    flat: V0LayerParameter = old.layer
    for descriptor, value in flat.ListFields():
        name = descriptor.name
        if name == "name":
            new.name = value
        elif name == "type":
            new.type = getattr(V1LayerParameter, _v0_type(value))
        elif name in ("blobs", "blobs_lr", "weight_decay"):
            getattr(new, name).extend(value)
        elif name in _V0_TRANSFORM:
            setattr(new.transform_param, _V0_TRANSFORM[name], value)
        elif name in _V0_FIELDS:
            homes, there = _V0_FIELDS[name]
            require(
                flat.type in homes,
                f'"{name}" means nothing to a layer of type "{flat.type}"',
                GraphError,
            )
            home = homes[flat.type]
            _put(new if there == home else getattr(new, home), there, value)
    return new


def _v0_type(name: str) -> str:
    known = {**_V0_TYPES, **{plain: plain.upper() for plain in _V0_PLAIN}}
    require(name in known, f'unknown V0 layer type "{name}"{nearest(name, known)}', GraphError)
    return known[name]


def _put(message: Any, name: str, value: Any) -> None:
    """Set a field that may be singular, repeated or a message."""
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if descriptor.message_type is not None:
        getattr(message, name).CopyFrom(value)
    elif isinstance(getattr(message, name), int | float | str | bool):
        setattr(message, name, value)
    else:
        getattr(message, name).append(value)
