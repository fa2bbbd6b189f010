import pytest

from netspec.errors import GraphError, NetSpecError, Place
from netspec.frontend.graph import AUTOMATIC, Graph, connect
from netspec.frontend.phase import select, state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey, Shapes, infer
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState, ParamSpec, Phase

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [2, 3, 5, 7] } } }\n'
CONV = "convolution_param { num_output: 4 kernel_size: 3 }"


def connected(text: str, phase: Phase = TEST) -> Graph:
    net = parse_net(INPUT + text, "net.prototxt")
    return connect(select(net, state_of(net, phase)))


def inferred(text: str) -> Shapes:
    return infer(connected(text))


def failure(text: str) -> str:
    """What is wrong with a net, found when it is connected or when its shapes are."""
    with pytest.raises(NetSpecError) as error:
        inferred(text)
    return str(error.value)


def reads(graph: Graph) -> dict[str, list[tuple[str, str]]]:
    """Layer -> for each bottom, the blob's name and the layer that made what is read."""
    return {
        node.name: [
            (graph.values[i].name, graph.nodes[graph.values[i].producer].name) for i in node.bottoms
        ]
        for node in graph.nodes
    }


# Who reads what


def test_a_blob_may_have_several_readers() -> None:
    graph = connected("""
        layer { name: "a" type: "ReLU" bottom: "x" top: "a" }
        layer { name: "b" type: "ReLU" bottom: "x" top: "b" }
        layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "x" bottom: "x" top: "sum" }
    """)
    assert [node.name for node in graph.nodes] == ["in", "a", "b", "sum"]
    assert graph.readers[graph.blob("x")] == (1, 2, 3, 3)
    assert graph.outputs == ("b", "sum")


def test_an_in_place_layer_binds_the_name_again() -> None:
    """Layers below read what is after."""
    graph = connected(f"""
        layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" {CONV} }}
        layer {{ name: "relu" type: "ReLU" bottom: "y" top: "y" }}
        layer {{ name: "drop" type: "Dropout" bottom: "y" top: "y" }}
        layer {{ name: "below" type: "Power" bottom: "y" top: "below" }}
    """)
    assert reads(graph) == {
        "in": [],
        "conv": [("x", "in")],
        "relu": [("y", "conv")],
        "drop": [("y", "relu")],
        "below": [("y", "drop")],
    }
    assert [node.in_place for node in graph.nodes] == [(), (), (0,), (0,), ()]
    assert [value.name for value in graph.values] == ["x", "y", "y", "y", "below"]
    assert (graph.first_blobs["y"], graph.blob("y")) == (1, 3)
    assert list(graph.blobs) == ["x", "y", "below"]
    assert graph.outputs == ("below",)


def test_in_place_pairs_tops_with_bottoms_by_position() -> None:
    graph = connected(f"""
        layer {{ name: "b" type: "Power" bottom: "x" top: "b" }}
        layer {{ name: "two" type: "Convolution" bottom: "x" bottom: "b" top: "c" top: "b" {CONV} }}
    """)
    assert graph.nodes[2].in_place == (1,)
    assert graph.outputs == ("b", "c")


def test_what_an_in_place_layer_makes_last_is_an_output() -> None:
    graph = connected('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }')
    assert graph.outputs == ("x",)
    assert graph.inputs == graph.fed == ("x",)


def test_outputs_are_sorted_by_name() -> None:
    graph = connected("""
        layer { name: "1" type: "ReLU" bottom: "x" top: "b" }
        layer { name: "2" type: "ReLU" bottom: "x" top: "c" }
        layer { name: "3" type: "ReLU" bottom: "x" top: "a" }
        layer { name: "4" type: "ReLU" bottom: "x" top: "swallowed" }
        layer { name: "5" type: "Silence" bottom: "swallowed" }
    """)
    assert graph.outputs == ("a", "b", "c")


def test_sources() -> None:
    graph = connected("""
        layer { name: "d" type: "HDF5Data" top: "data" top: "label" }
        layer { name: "p" type: "Python" top: "py" }
        layer { name: "i" type: "Input" top: "y" top: "z" }
    """)
    assert graph.inputs == ("x", "y", "z")
    assert graph.fed == ("x", "data", "label", "py", "y", "z")
    assert [node.name for node in graph.sources] == ["in", "d", "p", "i"]


def test_a_connected_net_knows_where_it_is_from() -> None:
    graph = connected(
        'name: "n" force_backward: true layer { name: "a" type: "Silence" bottom: "x" }'
    )
    assert (graph.name, graph.file, graph.phase, graph.force_backward) == (
        "n",
        "net.prototxt",
        TEST,
        True,
    )
    assert graph.nodes[1].place == Place("net.prototxt", 2)
    assert graph.nodes[1].who == 'layer "a" (Silence)'


def test_phase_of_the_net_and_of_a_layer() -> None:
    text = 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" phase: TEST }'
    graph = connected(text, TRAIN)
    assert (graph.phase, graph.nodes[0].layer.phase, graph.nodes[1].layer.phase) == (
        TRAIN,
        TRAIN,
        TEST,
    )
    assert connect(parse_net(INPUT)).phase == TEST


def test_lookup_by_name() -> None:
    graph = connected('layer { name: "relu1" type: "ReLU" bottom: "x" top: "act1" }')
    assert graph.node("relu1") is graph.nodes[1]
    with pytest.raises(GraphError) as error:
        graph.node("relu")
    assert str(error.value) == 'net.prototxt: no layer "relu"; did you mean "relu1"?'
    with pytest.raises(GraphError) as error:
        graph.blob("akt1")
    assert str(error.value) == 'net.prototxt: no blob "akt1"; did you mean "act1"?'


# Automatic tops and losses

LOSS = 'type: "SoftmaxWithLoss" bottom: "x" bottom: "l"'
LABEL = 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: [2, 1, 5, 7] } } }\n'


def test_a_loss_without_a_top_has_an_automatic_one() -> None:
    """It is no blob, no output, and no bottom for others, but counts in the loss."""
    graph = connected(f'{LABEL} layer {{ name: "a" {LOSS} }} layer {{ name: "b" {LOSS} }}')
    assert [value.name for value in graph.values] == ["x", "l", AUTOMATIC, AUTOMATIC]
    assert graph.losses == ((2, 1.0), (3, 1.0))
    assert list(graph.blobs) == ["x", "l"]
    assert graph.outputs == ()
    message = failure(
        f'{LABEL} layer {{ name: "a" {LOSS} }}\n'
        f'layer {{ name: "b" type: "ReLU" bottom: "{AUTOMATIC}" top: "y" }}'
    )
    assert message == f'net.prototxt:4: layer "b" (ReLU): unknown bottom "{AUTOMATIC}"'


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (f'{LOSS} top: "loss"', [("loss", 1.0)]),
        (f'{LOSS} top: "loss" loss_weight: 0.5', [("loss", 0.5)]),
        (f'{LOSS} top: "loss" loss_weight: 0', []),
        (f'{LOSS} top: "loss" top: "prob" loss_weight: 1 loss_weight: 0', [("loss", 1.0)]),
        (f'{LOSS} top: "loss" top: "prob" loss_weight: 2 loss_weight: 3',
         [("loss", 2.0), ("prob", 3.0)]),
        ('type: "Power" bottom: "x" top: "y"', []),
        ('type: "Power" bottom: "x" top: "y" loss_weight: -2', [("y", -2.0)]),
        ('type: "Silence" bottom: "l"', []),
    ],
)  # fmt: skip
def test_loss_weights(layer: str, weights: list[tuple[str, float]]) -> None:
    graph = connected(f'{LABEL} layer {{ name: "a" {layer} }}')
    assert [(graph.values[i].name, weight) for i, weight in graph.losses] == weights


# propagate_down


def test_propagate_down() -> None:
    text = 'layer {{ name: "a" type: "Eltwise" bottom: "x" bottom: "x" top: "y" {} }}'
    assert connected(text.format("")).nodes[1].stops == (False, False)
    down = "propagate_down: true propagate_down: false"
    assert connected(text.format(down)).nodes[1].stops == (False, True)


# Shared parameters

SHARED = """
layer {{ name: "a" type: "Convolution" bottom: "x" top: "a" param {{ name: "w" {0} }}
  convolution_param {{ num_output: 2 kernel_size: 3 }} }}
layer {{ name: "b" type: "Convolution" bottom: "x" top: "b" param {{ name: "w" {1} }}
  convolution_param {{ {2} bias_term: false }} }}
"""
SAME, OTHER, LESS = (
    f"num_output: 2 {kernel}"
    for kernel in ("kernel_size: 3", "kernel_h: 1 kernel_w: 3", "kernel_size: 1")
)
# 2x3x3x3 has as many numbers as 6x3x3x1.
RESHAPED = "num_output: 6 kernel_h: 3 kernel_w: 1"


def test_params_of_one_name_are_one_array() -> None:
    shapes = inferred(SHARED.format("", "", SAME))
    assert shapes.graph.shared == {(2, 0): (1, 0)}
    assert [dict(each.keys) for each in shapes.nodes] == [
        {},
        {"weight": ParamKey("a", "weight"), "bias": ParamKey("a", "bias")},
        {"weight": ParamKey("a", "weight")},
    ]
    assert {str(key): blob.shape for key, blob in shapes.params.items()} == {
        "a.weight": (2, 3, 3, 3),
        "a.bias": (2,),
    }


def test_a_layer_may_share_within_itself() -> None:
    shapes = inferred("""
        layer { name: "s" type: "Scale" bottom: "x" top: "y" scale_param { bias_term: true }
          param { name: "p" } param { name: "p" } }
    """)
    assert shapes.graph.shared == {(1, 1): (1, 0)}
    assert shapes.nodes[1].keys == {"scale": ParamKey("s", "scale"), "bias": ParamKey("s", "scale")}


def test_permissive_sharing_asks_for_equal_counts() -> None:
    shapes = inferred(SHARED.format("", "share_mode: PERMISSIVE", RESHAPED))
    assert shapes.nodes[2].keys["weight"] == ParamKey("a", "weight")
    assert shapes.params[ParamKey("a", "weight")].shape == (2, 3, 3, 3)
    assert shapes.nodes[2].blobs["weight"].shape == (6, 3, 3, 1)


@pytest.mark.parametrize(
    ("mode", "layer", "shape", "hint"),
    [
        ("", RESHAPED, "6x3x3x1", "; share_mode: PERMISSIVE asks for equal counts only"),
        ("share_mode: STRICT", OTHER, "2x3x1x3", ""),
        ("share_mode: PERMISSIVE", LESS, "2x3x1x1", ""),
    ],
)
def test_shapes_that_cannot_be_shared(mode: str, layer: str, shape: str, hint: str) -> None:
    assert failure(SHARED.format("", mode, layer)) == (
        f'net.prototxt:5: layer "b" (Convolution): weight {shape} cannot share param "w" with '
        f'layer "a", whose is 2x3x3x3{hint}'
    )


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ("", "", (1, 1)),
        ("lr_mult: 3", "", (3, 1)),
        ("", "lr_mult: 3 decay_mult: 0", (3, 0)),
        ("lr_mult: 3", "decay_mult: 2 lr_mult: 3", (3, 2)),
        ("lr_mult: 0", "lr_mult: 0", (0, 1)),
    ],
)
def test_sharers_agree_on_multipliers(first: str, second: str, merged: tuple[int, int]) -> None:
    """What one of them gives holds for all."""
    spec = inferred(SHARED.format(first, second, SAME)).param_specs[ParamKey("a", "weight")]
    assert (spec.lr_mult, spec.decay_mult) == merged


@pytest.mark.parametrize("name", ["lr_mult", "decay_mult"])
def test_sharers_that_do_not_agree(name: str) -> None:
    assert failure(SHARED.format(f"{name}: 2", f"{name}: 0.5", SAME)) == (
        f'net.prototxt:5: layer "b" (Convolution): {name} 0.5 of shared param "w" disagrees with '
        "2 given before, which Caffe up to rc2 took; since rc3 it refuses, too: give all the same"
    )


def test_the_third_sharer_must_agree_with_the_second() -> None:
    def three(mult: int) -> str:
        third = SHARED.format("", f"lr_mult: {mult}", SAME).rsplit("layer", 1)[1]
        return SHARED.format("", "lr_mult: 2", SAME) + "layer" + third.replace('"b"', '"c"')

    assert inferred(three(2)).param_specs[ParamKey("a", "weight")].lr_mult == 2
    assert failure(three(3)) == (
        'net.prototxt:7: layer "c" (Convolution): lr_mult 3 of shared param "w" disagrees with '
        "2 given before, which Caffe up to rc2 took; since rc3 it refuses, too: give all the same"
    )


def test_param_specs() -> None:
    node = connected(f"""
        layer {{ name: "a" type: "Convolution" bottom: "x" top: "a" {CONV} param {{ lr_mult: 2 }} }}
    """).nodes[1]
    assert (node.param_spec(0), node.param_spec(1)) == (ParamSpec(lr_mult=2), ParamSpec())


# What does not connect

MISTAKES = [
    ('layer { name: "a" type: "ReLU" bottom: "xx" top: "y" }', 'unknown bottom "xx"; did you mean '
     '"x"?'),
    ('layer { name: "a" type: "ReLU" bottom: "quux" top: "y" }', 'unknown bottom "quux"'),
    ('layer { name: "a" type: "ReLU" bottom: "y" top: "z" } layer { name: "b" type: "ReLU" '
     'bottom: "x" top: "y" }', 'unknown bottom "y"; a layer further down makes it: layers run in '
     "the order of the file"),
    ('layer { name: "a" type: "ReLU" bottom: "a" top: "a" }', 'unknown bottom "a"'),
    ('layer { name: "a" type: "ReLU" bottom: "x" top: "b" bottom: "b" }', "has 2 bottoms but needs "
     "exactly 1"),
    ('layer { name: "a" type: "Power" bottom: "x" top: "y" } layer { name: "b" type: "Power" '
     'bottom: "x" top: "y" }', 'top "y" is made by layer "a" already (net.prototxt:2); give the '
     'top a name of its own, or take "y" as a bottom to work in place'),
    ('layer { name: "a" type: "Input" top: "x" }', 'top "x" is made by layer "in" already '
     "(net.prototxt:1); give the top a name of its own"),
    ('layer { name: "a" type: "Split" bottom: "x" top: "y" top: "y" }', 'top "y" is named twice'),
    ('layer { name: "a" type: "Eltwise" bottom: "x" bottom: "x" top: "l" } layer { name: "b" '
     'type: "Crop" bottom: "x" bottom: "l" top: "l" }', 'top "l" is made by layer "a" already '
     "(net.prototxt:2); give the top a name of its own"),
    ('layer { name: "a" }', "has no type"),
    ('layer { name: "a" type: "Relu" bottom: "x" top: "y" }', 'unknown layer type "Relu"; did you '
     'mean "ReLU"?'),
    ('layer { name: "a" type: "INNER_PRODUCT" }', 'unknown layer type "INNER_PRODUCT"; did you '
     'mean "InnerProduct"?'),
    ('layer { name: "a" type: "ReLU" top: "y" }', "has 0 bottoms but needs exactly 1"),
    ('layer { name: "a" type: "ReLU" bottom: "x" }', "has 0 tops but needs exactly 1"),
    ('layer { name: "a" type: "Crop" bottom: "x" top: "y" }', "has 1 bottom but needs exactly 2"),
    ('layer { name: "a" type: "Eltwise" bottom: "x" top: "y" }', "has 1 bottom but needs at least "
     "2"),
    ('layer { name: "a" type: "Scale" bottom: "x" bottom: "x" bottom: "x" top: "y" }', "has 3 "
     "bottoms but needs 1 to 2"),
    ('layer { name: "a" type: "Silence" bottom: "x" top: "y" }', "has 1 top but needs exactly 0"),
    ('layer { name: "a" type: "Input" bottom: "x" top: "y" }', "has 1 bottom but needs exactly 0"),
    ('layer { name: "a" type: "Convolution" bottom: "x" bottom: "x" top: "y" }', "makes one top a "
     "bottom, but has 2 bottoms and 1 top"),
    ('layer { name: "a" type: "ReLU" bottom: "x" top: "y" propagate_down: true propagate_down: '
     "false }", "2 propagate_down for 1 bottom; give none, or one for each bottom"),
    ('layer { name: "a" type: "ReLU" bottom: "x" top: "y" loss_weight: 1 loss_weight: 2 }', "2 "
     "loss_weight for 1 top; give none, or one for each top"),
    ('layer { name: "a" type: "ReLU" bottom: "x" top: "y" param { } }', "1 param given, but the "
     "layer learns 0 blobs"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes(text: str, message: str) -> None:
    found = failure(text)
    place, _, what = found.partition("): ") if "(" in found else found.partition('": ')
    assert what == message
    assert place.startswith('net.prototxt:2: layer "')


def test_layers_of_one_name_may_be_one_phase_each() -> None:
    dropout = 'name: "a" type: "Dropout" bottom: "x"'
    two = "\n".join(
        f'layer {{ {dropout} top: "{phase}" include {{ phase: {phase} }} }}'
        for phase in ("TRAIN", "TEST")
    )
    assert connected(two, TRAIN).outputs == ("TRAIN",)
    assert connected(two, TEST).outputs == ("TEST",)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (NetState(phase=TEST), "phase TEST"),
        (NetState(phase=TRAIN, level=2, stage=["a", "b"]), "phase TRAIN, level 2, stages a, b"),
    ],
)
def test_a_bottom_that_another_phase_makes(state: NetState, words: str) -> None:
    net = parse_net("""
        layer { name: "a" type: "Input" top: "y" include { stage: "other" } }
        layer { name: "b" type: "ReLU" bottom: "y" top: "z" }
    """, "net.prototxt")  # fmt: skip
    with pytest.raises(GraphError) as error:
        connect(select(net, state))
    assert str(error.value) == (
        'net.prototxt:3: layer "b" (ReLU): unknown bottom "y"; the layer that makes it is left '
        f"out in {words}"
    )


# Shapes of the whole


def test_shapes_by_name_are_those_of_the_last_binding() -> None:
    shapes = inferred(f"""
        layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" {CONV} }}
        layer {{ name: "r" type: "ReLU" bottom: "y" top: "y" }}
    """)
    assert shapes.by_name == {"x": (2, 3, 5, 7), "y": (2, 4, 3, 5)}
    assert shapes["y"] == (2, 4, 3, 5)
    assert shapes.values == ((2, 3, 5, 7), (2, 4, 3, 5), (2, 4, 3, 5))


def test_given_shapes_replace_stated_ones() -> None:
    graph = connected(f'layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" {CONV} }}')
    assert infer(graph, {"x": (1, 2, 11, 13)})["y"] == (1, 4, 9, 11)


def test_some_of_a_layers_shapes_may_be_given() -> None:
    two = """layer { name: "two" type: "Input" top: "a" top: "b"
      input_param { shape { dim: 2 } shape { dim: 3 } } }"""
    shapes = infer(connected(two), {"b": (5,)})
    assert (shapes["a"], shapes["b"]) == ((2,), (5,))


def test_a_data_layer_takes_its_shapes_from_outside() -> None:
    graph = connected('layer { name: "d" type: "HDF5Data" top: "data" top: "label" }')
    assert infer(graph, {"data": (7, 3), "label": (7,)}).by_name == {
        "x": (2, 3, 5, 7),
        "data": (7, 3),
        "label": (7,),
    }


INPUT_MISTAKES = [
    ({"y": (2, 3)}, 'net.prototxt: no input blob "y"; the net is fed x'),
    (
        {"x": (2, 3, -5, 7)},
        'net.prototxt:1: layer "in" (Input): blob "x" is 2x3x-5x7; no size can be negative',
    ),
    (
        {"x": (2, 3, 50000, 70000)},
        'net.prototxt:1: layer "in" (Input): blob "x" is 2x3x50000x70000: 21,000,000,000 numbers, '
        "but at most 2,147,483,647 fit a blob",
    ),
    ({"x": (2,)}, 'net.prototxt:2: layer "c" (Convolution): axis 1 of a blob with 1 axes'),
    (
        {"x": (2, 3, 2, 7)},
        'net.prototxt:2: layer "c" (Convolution): spatial axis 0: kernel extent 3 > size 2 + pad 0',
    ),
]


@pytest.mark.parametrize(
    ("given", "message"), INPUT_MISTAKES, ids=[str(given) for given, _ in INPUT_MISTAKES]
)
def test_given_shapes_that_cannot_work(given: dict[str, tuple[int, ...]], message: str) -> None:
    graph = connected(f'layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" {CONV} }}')
    with pytest.raises(NetSpecError) as error:
        infer(graph, given)
    assert str(error.value) == message


def test_learned_blobs_too_large_for_caffe() -> None:
    text = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      inner_product_param { num_output: 4294967295 } }"""
    assert failure(text) == (
        'net.prototxt:2: layer "ip" (InnerProduct): blob "y" is 2x4294967295: 8,589,934,590 '
        "numbers, but at most 2,147,483,647 fit a blob"
    )
    assert failure(text.replace("4294967295", "1000000000")) == (
        'net.prototxt:2: layer "ip" (InnerProduct): its weight is 1000000000x105: 105,000,000,000 '
        "numbers, but at most 2,147,483,647 fit a blob"
    )
