"""Old nets and solvers in the current schema, as Caffe's own upgrade leaves them.

V0 ``layers { layer { type: "conv" } }``, V1 ``layers { type: CONVOLUTION }``, transformation fields
inside V1 data layers, net-level ``input`` fields, BatchNorm layers with three ``param``, and the
solver's ``solver_type``. Caffe: ``util/upgrade_proto.cpp``.

Differs: what Caffe's upgrade logs and drops (a V0 field that its layer type does not have) is an
error here, with the layer's place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from netspec.errors import (
    GraphError,
    NetSpecError,
    Place,
    SolverError,
    blame,
    counted,
    nearest,
    require,
    unreadable,
)
from netspec.formats.atomic import atomic_write
from netspec.frontend.prototxt import (
    AnyMessage,
    NetText,
    SolverText,
    is_solver,
    read_binary_net,
    read_net,
    read_solver,
    write,
)
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter
from netspec.proto.net_pb2 import NetParameter

V1 = tuple[V1LayerParameter, Place]

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
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_TRANSFORMED = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}


def upgrade(net: NetText) -> NetText:
    """The same net in the current schema: ``layer`` only, no net-level inputs.

    Raises GraphError for a net that mixes ``layer`` and ``layers``, or an old layer that has no
    current form.
    """
    if net.message.layers:
        net = _from_v1(net)
    if net.message.input:
        net = _input_layer(net)
    return net.with_layers(
        [(_fixed(layer), place) for layer, place in zip(net.message.layer, net.places, strict=True)]
    )


def _fixed(layer: LayerParameter) -> LayerParameter:
    """A BatchNorm layer with its three statistics kept from training; others as they are."""
    if layer.type != "BatchNorm" or len(layer.param) != 3:
        return layer
    fixed = LayerParameter()
    fixed.CopyFrom(layer)
    for param in fixed.param:
        param.lr_mult = param.decay_mult = 0
    return fixed


def upgrade_solver(solver: SolverText) -> SolverText:
    """A solver in the current schema, and with a ``snapshot_prefix`` where it names none.

    An absent prefix becomes the solver's path without its ending, a folder gets the solver's name.
    """
    solver = upgrade_solver_type(solver)
    stem = Path(solver.file).with_suffix("")
    if not solver.message.HasField("snapshot_prefix"):
        solver.message.snapshot_prefix = str(stem)
    elif (
        solver.message.snapshot_prefix.endswith("/")
        or Path(solver.message.snapshot_prefix).is_dir()
    ):
        solver.message.snapshot_prefix = str(Path(solver.message.snapshot_prefix) / stem.name)
    return solver


def upgrade_solver_type(solver: SolverText) -> SolverText:
    """A copy with ``solver_type: NESTEROV`` as ``type: "Nesterov"``; raises SolverError."""
    message = type(solver.message)()
    message.CopyFrom(solver.message)
    if message.HasField("solver_type"):
        with blame(Place(solver.file)):
            require(
                not message.HasField("type"),
                "solver_type and type are both given; type is the current form",
                SolverError,
            )
        names = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
        message.type = names[message.solver_type]
        message.ClearField("solver_type")
    return SolverText(message, solver.file, solver.nets, solver.lines)


def upgrade_file(old: str | Path, new: str | Path) -> None:
    """Write a net's or a solver's prototxt in the current schema; raises ParseError, GraphError."""
    (upgrade_solver_file if is_solver(old) else upgrade_net_file)(old, new)


def upgrade_net_file(old: str | Path, new: str | Path) -> bool:
    """Write a net's prototxt in the current schema; whether it was in another."""
    net = read_net(old)
    return _write_upgraded(net.message, upgrade(net).message, new)


def upgrade_solver_file(old: str | Path, new: str | Path) -> bool:
    """Write a solver's prototxt in the current schema; whether it was in another."""
    solver = read_solver(old)
    return _write_upgraded(solver.message, upgrade_solver_type(solver).message, new)


def upgrade_weights_file(old: str | Path, new: str | Path) -> bool:
    """Write a binary net, a .caffemodel, in the current schema; whether it was in another."""
    net = read_binary_net(old)
    return _write_upgraded(net.message, upgrade(net).message, new, binary=True)


def _write_upgraded(
    was: AnyMessage, message: AnyMessage, path: str | Path, binary: bool = False
) -> bool:
    content = message.SerializeToString() if binary else write(message).encode()
    try:
        with atomic_write(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise NetSpecError(unreadable(path, error)) from None
    return was != message


def _from_v1(net: NetText) -> NetText:
    with blame(Place(net.file)):
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
        layers = [_guarded(_from_v0, layer) for layer in _without_padding(net, layers)]
    return net.with_layers([_guarded(_current, _guarded(_transform, layer)) for layer in layers])


def _guarded(convert: Callable[[Any], Any], layer: V1) -> tuple[Any, Place]:
    """The layer converted, its place and name added to whatever goes wrong."""
    message, place = layer
    with blame(place, f'layer "{message.layer.name or message.name}"'):
        return convert(message), place


def _without_padding(net: NetText, layers: list[V1]) -> list[V1]:
    """V0's padding layers folded into the ``pad`` of the convolution or pooling behind them."""
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


def _from_v0(old: V1LayerParameter) -> V1LayerParameter:
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


def _input_layer(net: NetText) -> NetText:
    """Net-level ``input`` fields as an Input layer in front; without shapes they are dropped."""
    message = net.message
    layers = list(zip(message.layer, net.places, strict=True))
    shapes = [list(shape.dim) for shape in message.input_shape]
    if message.input_dim and not shapes:
        dims = list(message.input_dim)
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if shapes:
        with blame(Place(net.file)):
            require(
                len(shapes) == len(message.input) and all(shapes),
                f"{counted(len(message.input), 'input')} but {counted(len(shapes), 'shape')}; "
                "give an input_shape, or "
                "four input_dim, for each input",
                GraphError,
            )
        layer = LayerParameter(name="input", type="Input", top=message.input)
        for dims in shapes:
            layer.input_param.shape.add(dim=dims)
        layers.insert(0, (layer, Place(net.file, 1)))
    stripped = NetParameter()
    stripped.CopyFrom(message)
    for name in ("input", "input_shape", "input_dim"):
        stripped.ClearField(name)
    return NetText(stripped, net.file, net.places).with_layers(layers)
