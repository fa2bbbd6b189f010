"""The registry, and what layers say of their settings, losses and labels."""

import pytest
from cases import CASES, input_text, layer_text

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.layers import REGISTRY, Layer, create
from netspec.layers.records import Labels
from netspec.layers.registry import register
from netspec.proto.layers_pb2 import TEST


def test_rows_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_two_types_cannot_have_one_name() -> None:
    with pytest.raises(TypeError, match=r"^two layers are called ReLU$"):
        register()(type("ReLU", (Layer,), {}))


def made(layer_type: str, settings: str = "", bottoms: str = "a", more: str = "") -> Layer:
    tops = REGISTRY[layer_type].arity.tops.start
    net = parse_net(layer_text(layer_type, settings, bottoms, tops, more))
    return create(net.message.layer[0], TEST)


@pytest.mark.parametrize(
    ("layer_type", "settings", "said"),
    [
        ("Convolution", "num_output: 4 kernel_size: 3", "3x3"),
        ("Convolution", "num_output: 4 kernel_h: 3 kernel_w: 2 pad_h: 1", "3x2, pad 1x0"),
        (
            "Convolution",
            "num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 4 group: 2",
            "3x3, stride 2, pad 1, dilation 4, group 2",
        ),
        ("Convolution", "num_output: 4 kernel_size: 3 kernel_size: 2 kernel_size: 1", "3x2x1"),
        ("Deconvolution", "num_output: 4 kernel_size: 4 stride: 1 stride: 2", "4x4, stride 1x2"),
        ("Pooling", "kernel_size: 2 stride: 2", "MAX 2x2, stride 2"),
        ("Pooling", "pool: AVE global_pooling: true", "AVE, global"),
        ("ReLU", "", ""),
        ("ReLU", "negative_slope: 0.1", "slope 0.1"),
        ("Power", "power: 2 shift: -1", "power 2, shift -1"),
        ("Dropout", "", "ratio 0.5"),
        ("PReLU", "", ""),
        ("PReLU", "channel_shared: true", "shared"),
        ("ELU", "", ""),
        ("ELU", "alpha: 0.5", "alpha 0.5"),
        ("Swish", "", ""),
        ("Swish", "beta: 2", "beta 2"),
        ("Exp", "base: 2 shift: 1", "base 2, shift 1"),
        ("Log", "", ""),
        ("Clip", "min: -1 max: 0.5", "-1 to 0.5"),
        ("Threshold", "threshold: 0.5", "0.5"),
        ("BatchNorm", "", ""),
        ("BatchNorm", "use_global_stats: true", "running statistics"),
        ("BatchNorm", "use_global_stats: false", "batch statistics"),
        ("MVN", "", ""),
        (
            "MVN",
            "across_channels: true normalize_variance: false",
            "across channels, mean only",
        ),
        ("ContrastiveLoss", "margin: 2 legacy_version: true", "margin 2, legacy"),
        ("HingeLoss", "", "L1"),
        ("InfogainLoss", "", ""),
        ("SigmoidCrossEntropyLoss", "", ""),
        ("LRN", "local_size: 3", "3 across channels"),
        ("InnerProduct", "num_output: 7", ""),
        ("Concat", "", ""),
        ("Concat", "axis: 2", "axis 2"),
        ("Concat", "concat_dim: 3", "axis 3"),
        ("Softmax", "axis: -1", "axis -1"),
        ("Eltwise", "", "SUM"),
        ("Eltwise", "coeff: 1 coeff: -0.5", "SUM 1, -0.5"),
        ("Crop", "", "offset 0"),
        ("Crop", "offset: 3 offset: 1", "offset 3, 1"),
        ("Im2col", "kernel_size: 3 dilation: 2", "3x3, dilation 2"),
        ("Im2col", "kernel_h: 3 kernel_w: 2 stride: 2", "3x2, stride 2"),
        ("SPP", "pyramid_height: 3 pool: AVE", "AVE, 3 levels"),
        ("SPP", "pyramid_height: 1", "MAX, 1 level"),
        ("Embed", "num_output: 5 input_dim: 9", "9 rows"),
        ("Reduction", "", "SUM"),
        ("Reduction", "operation: ASUM axis: -1 coeff: 0.5", "ASUM, axis -1, coeff 0.5"),
        ("ArgMax", "", ""),
        ("ArgMax", "top_k: 5 axis: 1", "top 5, axis 1"),
        ("Flatten", "", ""),
        ("Flatten", "end_axis: 2", "axes 1 to 2"),
        ("Reshape", "shape { dim: 0 dim: -1 }", "0x-1"),
        ("Reshape", "shape { } axis: 1 num_axes: 2", "scalar, axis 1, num_axes 2"),
        ("Slice", "", ""),
        ("Slice", "slice_point: 1 slice_point: 3", "at 1, 3"),
        ("Slice", "slice_dim: 2", "axis 2"),
        ("Tile", "tiles: 3", "3 times"),
        ("Tile", "tiles: 3 axis: -1", "3 times, axis -1"),
        ("BatchReindex", "", ""),
        ("Accuracy", "", ""),
        ("Accuracy", "top_k: 5", "top 5"),
        ("LSTM", "num_output: 5", ""),
        ("LSTM", "num_output: 5 expose_hidden: true", "hidden state exposed"),
        ("LSTMUnit", "", ""),
        ("Parameter", "shape { dim: 5 }", ""),
        ("HDF5Data", 'source: "train.txt"', "train.txt"),
        ("Data", 'source: "train_lmdb" backend: LMDB', "train_lmdb"),
        ("ImageData", 'source: "train.txt"', "train.txt"),
        ("WindowData", 'source: "windows.txt"', "windows.txt"),
        ("MemoryData", "batch_size: 2 channels: 3 height: 7 width: 5", ""),
        ("DummyData", "shape { dim: 5 }", ""),
        ("DummyData", 'shape { dim: 5 } data_filler { type: "gaussian" }', "gaussian"),
        ("HDF5Output", 'file_name: "out.h5"', "out.h5"),
        ("Python", 'module: "voc_layers" layer: "VOC"', "voc_layers.VOC"),
    ],
)
def test_a_layer_describes_its_settings(layer_type: str, settings: str, said: str) -> None:
    bottoms = range(REGISTRY[layer_type].arity.bottoms.start)
    assert made(layer_type, settings, "abc"[: len(bottoms)]).describe() == said


@pytest.mark.parametrize(
    ("more", "said", "scaling"),
    [
        ("", "", "sum over 70 predictions / the predictions whose label counts"),
        (
            "loss_weight: 3 loss_param { ignore_label: 9 normalization: FULL }",
            "ignore 9, FULL",
            "sum over 70 predictions / all 70 predictions, label 9 ignored, times loss_weight 3",
        ),
        (
            "loss_param { normalize: false }",
            "BATCH_SIZE",
            "sum over 70 predictions / the batch size 2",
        ),
        ("loss_param { normalize: true }", "VALID", None),
        (
            "loss_param { normalize: true normalization: NONE }",
            "NONE",
            "sum over 70 predictions / nothing",
        ),
    ],
)
def test_a_loss_says_what_divides_it(more: str, said: str, scaling: str | None) -> None:
    loss = made("SoftmaxWithLoss", "", "ab", more)
    assert loss.describe() == said
    if scaling is not None:
        assert loss.scoring((2, 3, 7, 5), (2, 1, 7, 5)).scaling == scaling
    assert made("ReLU").scoring((2, 3)).scaling == ""


@pytest.mark.parametrize(
    ("layer_type", "settings", "more", "scaling"),
    [
        ("EuclideanLoss", "", "", "sum over 35 squared differences / twice the batch size 7"),
        ("ContrastiveLoss", "", "", "sum over 7 pairs / twice the batch size 7"),
        ("HingeLoss", "", "", "sum over 35 violations / the batch size 7"),
        ("HingeLoss", "norm: L2", "", "sum over 35 squared violations / the batch size 7"),
        ("MultinomialLogisticLoss", "", "", "sum over 7 predictions / the batch size 7"),
        ("SigmoidCrossEntropyLoss", "", "", "sum over 35 predictions / the batch size 7"),
        (
            "SigmoidCrossEntropyLoss",
            "",
            "loss_weight: 3 loss_param { normalize: true }",
            "sum over 35 predictions / the predictions whose label counts, times loss_weight 3",
        ),
        (
            "InfogainLoss",
            "",
            "loss_param { normalization: NONE ignore_label: 4 }",
            "sum over 7 predictions / nothing, label 4 ignored",
        ),
    ],
)
def test_every_loss_says_what_divides_it(
    layer_type: str, settings: str, more: str, scaling: str
) -> None:
    bottoms = "abc"[: REGISTRY[layer_type].arity.bottoms.start]
    layer = made(layer_type, settings, bottoms, more)
    assert layer.scoring(*[(7, 5), (7, 1), (7,)][: len(bottoms)]).scaling == scaling


@pytest.mark.parametrize(
    ("layer_type", "settings", "more", "labels"),
    [
        ("InfogainLoss", "axis: 2", "loss_param { ignore_label: 9 }", Labels(1, 0, 7, 9)),
        ("MultinomialLogisticLoss", "", "", Labels(1, 0, 105, None)),
        ("HingeLoss", "", "", Labels(1, 0, 105, None)),
        ("EuclideanLoss", "", "", None),
        ("SoftmaxWithLoss", "", "", Labels(1, 0, 3, None)),
        ("SoftmaxWithLoss", "axis: -1", "loss_param { ignore_label: 255 }", Labels(1, 0, 5, 255)),
        ("Accuracy", "axis: 2 ignore_label: -1", "", Labels(1, 0, 7, -1)),
        ("Eltwise", "", "", None),
    ],
)
def test_layers_say_which_labels_they_take(
    layer_type: str, settings: str, more: str, labels: Labels | None
) -> None:
    layer = made(layer_type, settings, "ab", more)
    assert layer.scoring((2, 3, 7, 5), (2, 1, 7, 5)).labels == labels


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        (layer_text("ReLU", "", "a"), (0,)),
        (layer_text("ReLU", "", "a", more="loss_weight: 0.5"), (0.5,)),
        (layer_text("Silence", "", "a", tops=0), ()),
        (layer_text("SoftmaxWithLoss", "", "ab"), (1,)),
        (layer_text("SoftmaxWithLoss", "", "ab", tops=0), (1,)),
        (
            layer_text("SoftmaxWithLoss", "", "ab", tops=2, more="loss_weight: 1 loss_weight: 0"),
            (1, 0),
        ),
        (layer_text("SoftmaxWithLoss", "", "ab", tops=0, more="loss_weight: 3"), (3,)),
        (layer_text("Accuracy", "", "ab", tops=2), (0, 0)),
    ],
)
def test_losses_weigh_one_and_all_else_nothing(text: str, weights: tuple[float, ...]) -> None:
    graph = connect(parse_net(f"{input_text({'a': (2, 3), 'b': (2,)})}\n{text}"))
    assert graph.nodes[-1].layer.loss_weights() == weights
    assert [weight for _, weight in graph.losses] == [weight for weight in weights if weight]


def test_force_backward_reaches_no_labels() -> None:
    """But indices, as Caffe says of losses alone that it does not."""
    for layer_type, reaches in (
        ("SoftmaxWithLoss", [True, False]),
        ("ContrastiveLoss", [True, True]),
        ("Accuracy", [True, True]),
        ("Embed", [True, True]),
        ("EuclideanLoss", [True, True]),
        ("HingeLoss", [True, False]),
        ("InfogainLoss", [True, False]),
        ("BatchReindex", [True, True]),
        ("LSTM", [True, False]),
        ("Eltwise", [True, True]),
    ):
        layer = made(
            layer_type, bottoms={"Embed": "a", "ContrastiveLoss": "abc"}.get(layer_type, "ab")
        )
        assert [layer.bottom_use.is_forced(i) for i in range(2)] == reaches


def test_force_backward_reaches_no_continuation() -> None:
    unit = made("LSTMUnit", bottoms="abc")
    assert [unit.bottom_use.is_forced(i) for i in range(3)] == [True, True, False]


def test_a_static_bottom_is_told() -> None:
    for settings, bottoms, said in (
        ("num_output: 5", "abc", "static input"),
        ("num_output: 5 expose_hidden: true", "abcd", "static input, hidden state exposed"),
    ):
        assert made("RNN", settings, bottoms).describe() == said


def test_the_phase_of_a_layer_overrides_the_nets() -> None:
    assert made("Dropout").train is False
    assert made("Dropout", more="phase: TRAIN").train is True
