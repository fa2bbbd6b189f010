"""Old nets are upgraded as Caffe does: V1 layers, input fields, statistics and solvers."""

from pathlib import Path

import pytest
from google.protobuf.message import Message
from old_nets import failure, layer, message_of, upgraded

from netspec.errors import NetSpecError, SolverError
from netspec.frontend.prototxt import NetText, parse_net, read_net, read_solver
from netspec.frontend.upgrade import (
    upgrade,
    upgrade_file,
    upgrade_solver,
    upgrade_solver_type,
)
from netspec.frontend.upgrade_v1 import current_type
from netspec.proto.layers_pb2 import LayerParameter, ParamSpec
from netspec.proto.legacy_pb2 import V1LayerParameter
from netspec.proto.net_pb2 import NetParameter

GOLDEN = Path(__file__).parent / "golden" / "upgrade"
CASES = sorted(path.name.removesuffix(".old.prototxt") for path in GOLDEN.glob("*.old.prototxt"))


@pytest.mark.parametrize("name", CASES)
def test_upgraded_as_caffe_does(name: str, tmp_path: Path) -> None:
    upgrade_file(GOLDEN / f"{name}.old.prototxt", tmp_path / "new.prototxt")
    expected = read_net(GOLDEN / f"{name}.new.prototxt").message
    assert read_net(tmp_path / "new.prototxt").message == expected


@pytest.mark.parametrize("name", CASES)
def test_current_nets_stay_as_they_are(name: str) -> None:
    net = read_net(GOLDEN / f"{name}.new.prototxt")
    assert upgrade(net).message == net.message
    assert upgrade(net).places == net.places


@pytest.mark.parametrize("name", CASES)
def test_the_old_net_is_not_touched(name: str) -> None:
    net = read_net(GOLDEN / f"{name}.old.prototxt")
    before = net.message.SerializeToString()
    upgrade(net)
    assert net.message.SerializeToString() == before


def test_layers_keep_their_places() -> None:
    net = upgraded(
        'input: "x" input_dim: [1, 2, 3, 5]\n'
        'layers { name: "a" type: RELU bottom: "x" top: "a" }\n\n'
        'layers { name: "b" type: TANH bottom: "a" top: "b" }'
    )
    assert [
        (found.name, place.line) for found, place in zip(net.message.layer, net.places, strict=True)
    ] == [
        ("input", 1),
        ("a", 2),
        ("b", 4),
    ]


# V1

# Caffe: UpgradeV1LayerType in upgrade_proto.cpp.
TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}


def test_every_v1_type_has_its_current_name() -> None:
    assert {name: current_type(name) for name, _ in V1LayerParameter.LayerType.items()} == TYPES
    for old, new in TYPES.items():
        assert layer(f"layers {{ type: {old} }}") == LayerParameter(type=new)


def test_a_v1_layer_without_a_type_has_none() -> None:
    assert not layer('layers { name: "a" }').HasField("type")


def test_v1_multipliers_names_and_modes_become_params() -> None:
    """The four lists are filled up to the longest; what a list does not reach stays unset."""
    found = layer(
        'layers { param: "w" param: "b" param: "c" blob_share_mode: PERMISSIVE '
        "blobs_lr: 2 blobs_lr: 0 weight_decay: 3 }"
    )
    assert found == LayerParameter(
        param=[
            ParamSpec(name="w", share_mode=ParamSpec.PERMISSIVE, lr_mult=2, decay_mult=3),
            ParamSpec(name="b", lr_mult=0),
            ParamSpec(name="c"),
        ]
    )


def filled(message: Message, name: str) -> None:
    """Set a field to something; what is inside a message is left out."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        value = getattr(message, name)
        value.add() if field.is_repeated else value.SetInParent()
    elif name == "loss_weight":
        message.loss_weight.extend([2.0, 0.0])  # type: ignore[attr-defined]
    else:
        raise AssertionError(f"a field of another kind: {name}")


OWN_WORDS = {"bottom", "top", "name", "type", "blobs_lr", "weight_decay", "param", "layer"}
CARRIED = sorted(
    field.name
    for field in V1LayerParameter.DESCRIPTOR.fields
    if field.name not in OWN_WORDS | {"blob_share_mode"}
)


@pytest.mark.parametrize("name", CARRIED)
def test_every_other_v1_field_is_carried_over(name: str) -> None:
    old = NetText(NetParameter(), "net.prototxt", parse_net("layers { }").places)
    filled(old.message.layers.add(bottom=["x"], top=["y"], name="a"), name)
    expected = LayerParameter(bottom=["x"], top=["y"], name="a")
    filled(expected, name)
    assert upgrade(old).message.layer[0] == expected


@pytest.mark.parametrize(
    ("kind", "param"),
    [
        ("DATA", "data_param"),
        ("IMAGE_DATA", "image_data_param"),
        ("WINDOW_DATA", "window_data_param"),
    ],
)
def test_v1_transformations_move_to_their_own_message(kind: str, param: str) -> None:
    fields = 'scale: 0.5 mean_file: "m" crop_size: 7 mirror: true'
    old = f'layers {{ type: {kind} {param} {{ source: "s" {fields} }} }}'
    new = f'type: "{TYPES[kind]}" {param} {{ source: "s" }} transform_param {{ {fields} }}'
    assert upgraded(old).message == message_of(f"layer {{ {new} }}")


def test_transformations_of_other_types_stay() -> None:
    found = layer("layers { type: POWER data_param { scale: 0.5 } }")
    assert found == LayerParameter(type="Power", data_param={"scale": 0.5})


def test_the_rest_of_a_v1_net_stays() -> None:
    net = upgraded('name: "n" force_backward: true state { stage: "a" } layers { }').message
    assert net == message_of('name: "n" force_backward: true state { stage: "a" } layer { }')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('layer { name: "a" }\nlayers { name: "b" }', 2),
        ('\nlayers { name: "a" }\nlayer { name: "b" }\nlayers { name: "c" }', 2),
    ],
)
def test_layer_and_layers_do_not_mix(text: str, line: int) -> None:
    """The first old layer is named."""
    assert failure(text) == (
        f"net.prototxt:{line}: has both 'layer' and 'layers'; "
        "rewrite the 'layers { type: CONVOLUTION }' ones as 'layer { type: \"Convolution\" }'"
    )


# Inputs of the net


@pytest.mark.parametrize(
    "fields",
    [
        "input_shape { dim: 1 dim: 2 dim: 3 dim: 5 } input_shape { dim: [7, 2, 3, 1] }",
        "input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 5 input_dim: [7, 2, 3, 1]",
    ],
)
def test_input_fields_become_a_layer_in_front(fields: str) -> None:
    old = f'layer {{ name: "a" }} input: "x" input: "y" {fields}'
    new = """
      layer {
        name: "input" type: "Input" top: "x" top: "y"
        input_param { shape { dim: [1, 2, 3, 5] } shape { dim: [7, 2, 3, 1] } }
      }
      layer { name: "a" }
    """
    assert upgraded(old).message == message_of(new)


def test_input_shapes_of_any_rank() -> None:
    found = layer('input: "x" input_shape { dim: 7 dim: 3 }')
    assert [list(shape.dim) for shape in found.input_param.shape] == [[7, 3]]


def test_inputs_without_shapes_are_dropped() -> None:
    """As in the .caffemodel files of old."""
    assert upgraded('input: "x" layer { name: "a" }').message == message_of('layer { name: "a" }')


@pytest.mark.parametrize(
    ("fields", "shapes"),
    [
        ("input_shape { dim: 1 }", "1 shape"),
        ("input_dim: [1, 2, 3, 5, 7]", "2 shapes"),
        ("input_dim: [1, 2, 3, 5]", "1 shape"),
    ],
)
def test_inputs_and_shapes_must_pair(fields: str, shapes: str) -> None:
    message = failure(f'input: "x" input: "y" input: "z" {fields}')
    assert message == (
        f"net.prototxt: 3 inputs but {shapes}; give an input_shape, or four input_dim, for each "
        "input"
    )


# BatchNorm and solvers


def test_statistics_of_batch_norm_are_kept_from_training() -> None:
    old = 'layer { type: "BatchNorm" param { name: "m" lr_mult: 1 } param { } param { } }'
    assert layer(old) == LayerParameter(
        type="BatchNorm",
        param=[
            ParamSpec(name="m", lr_mult=0, decay_mult=0),
            ParamSpec(lr_mult=0, decay_mult=0),
            ParamSpec(lr_mult=0, decay_mult=0),
        ],
    )


@pytest.mark.parametrize(
    "text",
    [
        'layer { type: "BatchNorm" param { lr_mult: 1 } param { } }',
        'layer { type: "Convolution" param { } param { } param { } }',
    ],
)
def test_other_params_stay(text: str) -> None:
    assert upgraded(text).message == message_of(text)


def test_upgrading_batch_norm_leaves_the_old_net_alone() -> None:
    text = 'layer { type: "BatchNorm" param { } param { } param { } }'
    net = parse_net(text)
    upgrade(net)
    assert net.message == message_of(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
        ("5", "Adam"),
    ],
)
def test_solver_types(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "n" solver_type: {old}')
    upgrade_file(path, tmp_path / "new.prototxt")
    message = read_solver(tmp_path / "new.prototxt").message
    assert message.type == new
    assert not message.HasField("solver_type")
    assert message.net == "n"
    assert not message.HasField("snapshot_prefix")


def test_solver_type_twice(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text('solver_type: ADAM type: "Adam"')
    with pytest.raises(SolverError) as error:
        upgrade_solver_type(read_solver(path))
    assert str(error.value) == (
        f"{path}: solver_type and type are both given; type is the current form"
    )


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", "{0}/solver"), ('"runs/a"', "runs/a"), ('"{0}"', "{0}/solver")],
)
def test_snapshot_prefix(prefix: str, expected: str, tmp_path: Path) -> None:
    """Absent: the solver's path without its ending; a folder: the solver's name in it."""
    path = tmp_path / "solver.prototxt"
    path.write_text(f"snapshot_prefix: {prefix.format(tmp_path)}" if prefix else "")
    solver = upgrade_solver(read_solver(path))
    assert solver.message.snapshot_prefix == expected.format(tmp_path)


def test_an_upgraded_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NetSpecError) as error:
        upgrade_file(GOLDEN / "v1_lenet.old.prototxt", tmp_path / "file" / "new.prototxt")
    assert str(error.value) == f"{tmp_path}/file/new.prototxt: not a directory"
