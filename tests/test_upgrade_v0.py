"""V0 nets, the oldest form, are upgraded as Caffe does."""

import pytest
from old_nets import failure, layer, message_of, upgraded

from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.legacy_pb2 import V0LayerParameter


def v0(fields: str) -> LayerParameter:
    return layer(f'layers {{ layer {{ name: "a" {fields} }} bottom: "x" top: "y" }} input: "x"')


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


@pytest.mark.differs("v0-fields")
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
