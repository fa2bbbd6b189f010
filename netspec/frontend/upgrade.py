"""Old nets and solvers in the current schema, as Caffe's own upgrade leaves them.

V0 ``layers { layer { type: "conv" } }``, V1 ``layers { type: CONVOLUTION }``, transformation fields
inside V1 data layers, net-level ``input`` fields, BatchNorm layers with three ``param``, and the
solver's ``solver_type``. Caffe: ``util/upgrade_proto.cpp``.

Differs: see `netspec.frontend.upgrade_v0`.
"""

from __future__ import annotations

from pathlib import Path

from netspec.errors import (
    GraphError,
    NetSpecError,
    Place,
    SolverError,
    blame,
    counted,
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
from netspec.frontend.upgrade_v1 import from_v1
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter


def upgrade(net: NetText) -> NetText:
    """The same net in the current schema: ``layer`` only, no net-level inputs.

    Raises GraphError for a net that mixes ``layer`` and ``layers``, or an old layer that has no
    current form.
    """
    if net.message.layers:
        net = from_v1(net)
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


def _input_layer(net: NetText) -> NetText:
    """Net-level ``input`` fields as an Input layer in front; without shapes they are dropped.

    Shapes and dims that no input is left for are dropped, too.
    """
    message = net.message
    layers = list(zip(message.layer, net.places, strict=True))
    inputs = len(message.input)
    shapes = [list(shape.dim) for shape in message.input_shape[:inputs]]
    if message.input_dim and not shapes:
        dims = list(message.input_dim[: 4 * inputs])
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if shapes:
        with blame(Place(net.file)):
            require(
                len(shapes) == inputs,
                f"{counted(inputs, 'input')} but {counted(len(shapes), 'shape')}; "
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
