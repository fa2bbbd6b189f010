"""Layers of the current schema as the two schemas before it spelled them.

Written by hand from Caffe's own proto files, not from netspec's upgrade, which is what it tests.
"""

from typing import Any

from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter

_V1_ENUM = V1LayerParameter.DESCRIPTOR.enum_types_by_name["LayerType"]
_V1_NAMES = {name.replace("_", "").lower(): name for name in _V1_ENUM.values_by_name}
_V1_NAMES["softmaxwithloss"] = _V1_NAMES.pop("softmaxloss")
del _V1_NAMES["none"]

# V0 type -> (V1 type, {field there: field of V0}).
_V0: dict[str, tuple[str, str, dict[str, str]]] = {
    "Convolution": (
        "conv",
        "convolution_param",
        {
            "num_output": "num_output",
            "bias_term": "biasterm",
            "weight_filler": "weight_filler",
            "bias_filler": "bias_filler",
            "pad": "pad",
            "kernel_size": "kernelsize",
            "stride": "stride",
            "group": "group",
        },
    ),
    "InnerProduct": (
        "innerproduct",
        "inner_product_param",
        {
            "num_output": "num_output",
            "bias_term": "biasterm",
            "weight_filler": "weight_filler",
            "bias_filler": "bias_filler",
        },
    ),
    "Pooling": (
        "pool",
        "pooling_param",
        {"pool": "pool", "kernel_size": "kernelsize", "stride": "stride", "pad": "pad"},
    ),
    "Dropout": ("dropout", "dropout_param", {"dropout_ratio": "dropout_ratio"}),
    "LRN": (
        "lrn",
        "lrn_param",
        {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"},
    ),
    "Concat": ("concat", "concat_param", {"concat_dim": "concat_dim"}),
    "Accuracy": ("accuracy", "", {}),
    "BNLL": ("bnll", "", {}),
    "EuclideanLoss": ("euclidean_loss", "", {}),
    "Flatten": ("flatten", "", {}),
    "MultinomialLogisticLoss": ("multinomial_logistic_loss", "", {}),
    "ReLU": ("relu", "", {}),
    "Sigmoid": ("sigmoid", "", {}),
    "Softmax": ("softmax", "", {}),
    "SoftmaxWithLoss": ("softmax_loss", "", {}),
    "Split": ("split", "", {}),
    "TanH": ("tanh", "", {}),
}

V0_TYPES = frozenset(_V0)


def v1_type(layer_type: str) -> str | None:
    """The name in V1's enum, if there is one."""
    return _V1_NAMES.get(layer_type.lower())


def fits_v1(layer: LayerParameter) -> bool:
    """Whether V1 could say all that a layer says."""
    fields = V1LayerParameter.DESCRIPTOR.fields_by_name
    return (
        v1_type(layer.type) is not None
        and all(descriptor.name in fields for descriptor, _ in layer.ListFields())
        and _alike(layer)
    )


def fits_v0(layer: LayerParameter) -> bool:
    """Whether V0 could say all that a layer says."""
    if layer.type not in _V0:
        return False
    _, home, names = _V0[layer.type]
    said = {descriptor.name for descriptor, _ in layer.ListFields()}
    if not said <= {"name", "type", "bottom", "top", "param", home}:
        return False
    if not _alike(layer) or any(
        spec.HasField("name") or spec.HasField("share_mode") for spec in layer.param
    ):
        return False
    settings = getattr(layer, home).ListFields() if home else []
    return all(
        descriptor.name in names and (not hasattr(value, "extend") or len(value) == 1)
        for descriptor, value in settings
    )


def _alike(layer: LayerParameter) -> bool:
    """Whether each ``param`` says the same things: old schemas have a list of each."""
    said = {tuple(d.name for d, _ in spec.ListFields()) for spec in layer.param}
    return len(said) < 2 and () not in said


def v1(layer: LayerParameter) -> V1LayerParameter:
    """The layer in V1."""
    old = V1LayerParameter(type=v1_type(layer.type))
    for descriptor, value in layer.ListFields():
        if descriptor.name not in ("type", "param"):
            _put(old, descriptor.name, value)
    for spec in layer.param:
        if spec.HasField("name"):
            old.param.append(spec.name)
        if spec.HasField("share_mode"):
            old.blob_share_mode.append(spec.share_mode)
        if spec.HasField("lr_mult"):
            old.blobs_lr.append(spec.lr_mult)
        if spec.HasField("decay_mult"):
            old.weight_decay.append(spec.decay_mult)
    return old


def v0(layer: LayerParameter) -> list[V1LayerParameter]:
    """The layer in V0; its ``pad``, if any, as a padding layer in front."""
    kind, home, names = _V0[layer.type]
    flat = V0LayerParameter(name=layer.name, type=kind)
    for spec in layer.param:
        flat.blobs_lr.extend([spec.lr_mult] if spec.HasField("lr_mult") else [])
        flat.weight_decay.extend([spec.decay_mult] if spec.HasField("decay_mult") else [])
    for descriptor, value in getattr(layer, home).ListFields() if home else ():
        single = value[0] if hasattr(value, "extend") else value
        _put(flat, names[descriptor.name], single)
    old = V1LayerParameter(bottom=layer.bottom, top=layer.top, layer=flat)
    if not flat.pad or len(layer.bottom) != 1 or layer.bottom[0] == layer.top[0]:
        return [old]
    padded = f"{layer.name}_padded"
    before = V1LayerParameter(bottom=layer.bottom, top=[padded])
    before.layer.CopyFrom(V0LayerParameter(name=padded, type="padding", pad=flat.pad))
    flat.ClearField("pad")
    return [before, V1LayerParameter(bottom=[padded], top=layer.top, layer=flat)]


def _put(message: Any, name: str, value: Any) -> None:
    if hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    elif isinstance(value, int | float | str | bool):
        setattr(message, name, value)
    else:
        getattr(message, name).extend(value)
