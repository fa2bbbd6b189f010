from pathlib import Path

import pytest
from google.protobuf.message import Message

from netspec.errors import GraphError, NetSpecError, SolverError
from netspec.frontend.prototxt import NetText, parse_net, read_net, read_solver
from netspec.frontend.upgrade import (
    current_type,
    upgrade,
    upgrade_file,
    upgrade_solver,
    upgrade_solver_type,
)
from netspec.proto.layers_pb2 import LayerParameter, ParamSpec
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter
from netspec.proto.net_pb2 import NetParameter

GOLDEN = Path(__file__).parent / "golden" / "upgrade"
CASES = sorted(path.name.removesuffix(".old.prototxt") for path in GOLDEN.glob("*.old.prototxt"))


def upgraded(text: str) -> NetText:
    return upgrade(parse_net(text, "net.prototxt"))


def layer(text: str) -> LayerParameter:
    """The only layer of an upgraded net."""
    (found,) = upgraded(text).message.layer
    return found


def v0(fields: str) -> LayerParameter:
    return layer(f'layers {{ layer {{ name: "a" {fields} }} bottom: "x" top: "y" }} input: "x"')


def message_of(text: str) -> NetParameter:
    return parse_net(text).message


def failure(text: str) -> str:
    with pytest.raises(GraphError) as error:
        upgraded(text)
    return str(error.value)


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


def test_layer_and_layers_do_not_mix() -> None:
    assert failure('layer { name: "a" }\nlayers { name: "b" }') == (
        "net.prototxt: has both 'layer' and 'layers'; rewrite the 'layers { type: CONVOLUTION }' "
        "ones as 'layer { type: \"Convolution\" }'"
    )


# V0

V0_TYPES = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}


@pytest.mark.parametrize(("old", "new"), V0_TYPES.items())
def test_v0_types(old: str, new: str) -> None:
    assert v0(f'type: "{old}"') == LayerParameter(name="a", type=new, bottom=["x"], top=["y"])


# Every V0 setting: as written, the types that have it, and what it becomes there.
GAUSSIAN = '{ type: "gaussian" std: 0.5 }'
V0_FIELDS = {
    "num_output: 7": {
        "conv": "convolution_param { num_output: 7 }",
        "innerproduct": "inner_product_param { num_output: 7 }",
    },
    "biasterm: false": {
        "conv": "convolution_param { bias_term: false }",
        "innerproduct": "inner_product_param { bias_term: false }",
    },
    f"weight_filler {GAUSSIAN}": {
        "conv": f"convolution_param {{ weight_filler {GAUSSIAN} }}",
        "innerproduct": f"inner_product_param {{ weight_filler {GAUSSIAN} }}",
    },
    f"bias_filler {GAUSSIAN}": {
        "conv": f"convolution_param {{ bias_filler {GAUSSIAN} }}",
        "innerproduct": f"inner_product_param {{ bias_filler {GAUSSIAN} }}",
    },
    "pad: 2": {"conv": "convolution_param { pad: 2 }", "pool": "pooling_param { pad: 2 }"},
    "kernelsize: 5": {
        "conv": "convolution_param { kernel_size: 5 }",
        "pool": "pooling_param { kernel_size: 5 }",
    },
    "stride: 3": {"conv": "convolution_param { stride: 3 }", "pool": "pooling_param { stride: 3 }"},
    "group: 2": {"conv": "convolution_param { group: 2 }"},
    "pool: MAX": {"pool": "pooling_param { pool: MAX }"},
    "pool: AVE": {"pool": "pooling_param { pool: AVE }"},
    "pool: STOCHASTIC": {"pool": "pooling_param { pool: STOCHASTIC }"},
    "dropout_ratio: 0.25": {"dropout": "dropout_param { dropout_ratio: 0.25 }"},
    "local_size: 3": {"lrn": "lrn_param { local_size: 3 }"},
    "alpha: 0.25": {"lrn": "lrn_param { alpha: 0.25 }"},
    "beta: 0.25": {"lrn": "lrn_param { beta: 0.25 }"},
    "k: 2": {"lrn": "lrn_param { k: 2 }"},
    'source: "s"': {
        "data": 'data_param { source: "s" }',
        "hdf5_data": 'hdf5_data_param { source: "s" }',
        "images": 'image_data_param { source: "s" }',
        "infogain_loss": 'infogain_loss_param { source: "s" }',
        "window_data": 'window_data_param { source: "s" }',
    },
    "batchsize: 7": {
        "data": "data_param { batch_size: 7 }",
        "hdf5_data": "hdf5_data_param { batch_size: 7 }",
        "images": "image_data_param { batch_size: 7 }",
        "window_data": "window_data_param { batch_size: 7 }",
    },
    "rand_skip: 3": {
        "data": "data_param { rand_skip: 3 }",
        "images": "image_data_param { rand_skip: 3 }",
    },
    "shuffle_images: true": {"images": "image_data_param { shuffle: true }"},
    "new_height: 5": {"images": "image_data_param { new_height: 5 }"},
    "new_width: 7": {"images": "image_data_param { new_width: 7 }"},
    "concat_dim: 0": {"concat": "concat_param { concat_dim: 0 }"},
    "det_fg_threshold: 0.25": {"window_data": "window_data_param { fg_threshold: 0.25 }"},
    "det_bg_threshold: 0.25": {"window_data": "window_data_param { bg_threshold: 0.25 }"},
    "det_fg_fraction: 0.5": {"window_data": "window_data_param { fg_fraction: 0.5 }"},
    "det_context_pad: 2": {"window_data": "window_data_param { context_pad: 2 }"},
    'det_crop_mode: "square"': {"window_data": 'window_data_param { crop_mode: "square" }'},
    'hdf5_output_param { file_name: "f" }': {"hdf5_output": 'hdf5_output_param { file_name: "f" }'},
    # What every type takes.
    "scale: 0.5": dict.fromkeys(V0_TYPES, "transform_param { scale: 0.5 }"),
    'meanfile: "m"': dict.fromkeys(V0_TYPES, 'transform_param { mean_file: "m" }'),
    "cropsize: 7": dict.fromkeys(V0_TYPES, "transform_param { crop_size: 7 }"),
    "mirror: true": dict.fromkeys(V0_TYPES, "transform_param { mirror: true }"),
    "blobs_lr: 2 blobs_lr: 0": dict.fromkeys(V0_TYPES, "param { lr_mult: 2 } param { lr_mult: 0 }"),
    "weight_decay: 2": dict.fromkeys(V0_TYPES, "param { decay_mult: 2 }"),
    "blobs { num: 2 data: 5 }": dict.fromkeys(V0_TYPES, "blobs { num: 2 data: 5 }"),
}


def test_every_v0_field_is_in_the_table() -> None:
    known = {field.name for field in V0LayerParameter.DESCRIPTOR.fields}
    # Caffe knows the last two no longer, and drops them.
    known -= {"name", "type", "new_num", "new_channels"}
    assert {field.split(":")[0].split(" ")[0] for field in V0_FIELDS} == known


@pytest.mark.parametrize("field", V0_FIELDS)
def test_v0_fields(field: str) -> None:
    """In a type that has it, a field moves; in another, it is refused rather than dropped."""
    name = field.split(":")[0].split(" ")[0]
    for kind, current in V0_TYPES.items():
        if kind in V0_FIELDS[field]:
            new = f'name: "a" type: "{current}" bottom: "x" top: "y" {V0_FIELDS[field][kind]}'
            assert v0(f'type: "{kind}" {field}') == message_of(f"layer {{ {new} }}").layer[0]
        else:
            text = f'\nlayers {{ layer {{ name: "a" type: "{kind}" {field} }} }}'
            assert failure(text) == (
                f'net.prototxt:2: layer "a": "{name}" means nothing to a layer of type "{kind}"'
            )


def test_unknown_v0_type() -> None:
    assert failure('\nlayers { layer { name: "a" type: "convo" } }') == (
        'net.prototxt:2: layer "a": unknown V0 layer type "convo"; did you mean "conv"?'
    )


def padded(kind: str, extra: str = "") -> str:
    """A net where a V0 layer reads a padding layer that reads an input, each on a line."""
    return f"""input: "x"
layers {{ layer {{ name: "p" type: "padding" pad: 2 }} bottom: "x" top: "p" }}
layers {{ layer {{ name: "a" type: "{kind}" }} bottom: "p" {extra} top: "y" }}
"""


@pytest.mark.parametrize(
    ("kind", "param"), [("conv", "convolution_param"), ("pool", "pooling_param")]
)
def test_v0_padding_layers_are_folded_in(kind: str, param: str) -> None:
    found = upgraded(padded(kind))
    expected = f'name: "a" type: "{V0_TYPES[kind]}" bottom: "x" top: "y" {param} {{ pad: 2 }}'
    assert found.message == message_of(f"layer {{ {expected} }}")
    assert [place.line for place in found.places] == [3]


def test_one_padding_layer_may_feed_several() -> None:
    text = padded("conv") + (
        'layers { layer { name: "b" type: "pool" pad: 1 } bottom: "p" top: "b" }\n'
        'layers { layer { name: "c" type: "conv" } bottom: "y" top: "c" }'
    )
    a, b, c = upgraded(text).message.layer
    assert (list(a.convolution_param.pad), b.pooling_param.pad) == ([2], 2)
    assert (list(b.bottom), list(c.bottom)) == (["x"], ["y"])
    assert not c.HasField("convolution_param")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            padded("relu"),
            '3: layer "a": a padding layer can only feed a conv or pool layer with one bottom',
        ),
        (
            padded("conv", 'bottom: "x"'),
            '3: layer "a": a padding layer can only feed a conv or pool layer with one bottom',
        ),
        (
            padded("conv").replace('top: "p"', 'top: "p" top: "q"'),
            '3: layer "a": its padding layer needs exactly one bottom and one top',
        ),
        (
            padded("conv").replace('bottom: "p"', 'bottom: "pp"'),
            '3: layer "a": unknown bottom "pp"; did you mean "p"?',
        ),
    ],
)
def test_padding_that_cannot_be_folded_in(text: str, message: str) -> None:
    assert failure(text) == f"net.prototxt:{message}"


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
