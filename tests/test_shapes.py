"""Shapes of nets, and what cannot have any.

What single layers refuse stands in ``mistakes/``; here is seen to it that nothing is missing there.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from cases import input_text, layer_text
from refusals import reached, sites

import netspec
from netspec.errors import GraphError, LayerError, NetSpecError
from netspec.frontend.graph import connect
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import Shapes, infer
from netspec.layers.context import Context
from netspec.layers.placeholder import create_or_stand_in
from netspec.layers.registry import create
from netspec.proto.layers_pb2 import TEST, LayerParameter

PACKAGE = Path(netspec.__file__).parent
IMAGE = (2, 3, 7, 5)


def shapes_of(*lines: str, given: Mapping[str, tuple[int, ...]] | None = None) -> Shapes:
    return infer(connect(parse_net("\n".join(lines), "net")), given)


def refusal(*lines: str, given: Mapping[str, tuple[int, ...]] | None = None) -> NetSpecError:
    """The error that a net ends in."""
    with pytest.raises(NetSpecError) as caught:
        shapes_of(*lines, given=given)
    return caught.value


# What is refused


INNER_PRODUCT = """layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}"
    inner_product_param {{ num_output: {outputs} axis: {axis} bias_term: false }}
    param {{ name: "w" {more} }} }}"""


def sharing(outputs: int, axis: int, more: str = "") -> list[str]:
    """Two fully connected layers over one blob that share weights."""
    first = INNER_PRODUCT.format(name="first", outputs=5, axis=1, more="")
    other = INNER_PRODUCT.format(name="other", outputs=outputs, axis=axis, more=more)
    return [input_text({"x": (2, 3, 4)}), first, other]


SINK = 'file_name: "out.h5"'
MISTAKES = [
    (
        [input_text({"x": (2, -1)})],
        'net:1: layer "in" (Input): blob "x" is 2x-1; no size can be negative',
    ),
    (
        [input_text({"x": (65536, 32768)})],
        'net:1: layer "in" (Input): blob "x" is 65536x32768: 2,147,483,648 numbers, '
        "but at most 2,147,483,647 fit a blob",
    ),
    (
        [input_text({"x": (1, 32768)}), layer_text("InnerProduct", "num_output: 65536", "x")],
        'net:2: layer "layer" (InnerProduct): its weight is 65536x32768: 2,147,483,648 numbers, '
        "but at most 2,147,483,647 fit a blob",
    ),
    (
        [input_text({"x": (2, 3)}), layer_text("ReLU", "", "x", more="param { lr_mult: 0 }")],
        'net:2: layer "layer" (ReLU): 1 param given, but the layer learns 0 blobs',
    ),
    (
        [input_text({"x": (2, 3)}), layer_text("Scale", "", "x", more="param { } param { }")],
        'net:2: layer "layer" (Scale): 2 param given, but the layer learns 1 blob',
    ),
    (
        sharing(4, 1),
        'net:5: layer "other" (InnerProduct): weight 4x12 cannot share param "w" with '
        'layer "first", whose is 5x12',
    ),
    (
        sharing(15, 2),
        'net:5: layer "other" (InnerProduct): weight 15x4 cannot share param "w" with '
        'layer "first", whose is 5x12; share_mode: PERMISSIVE asks for equal counts only',
    ),
    (
        sharing(4, 2, "share_mode: PERMISSIVE"),
        'net:5: layer "other" (InnerProduct): weight 4x4 cannot share param "w" with '
        'layer "first", whose is 5x12',
    ),
    (
        [input_text({"x": (2, 3), "y": (2,)}), layer_text("HDF5Output", "", "xy", tops=0)],
        'net:2: layer "layer" (HDF5Output): file_name must be given',
    ),
    (
        [input_text({"x": (2, 3), "y": (3,)}), layer_text("HDF5Output", SINK, "xy", tops=0)],
        'net:2: layer "layer" (HDF5Output): data has 2 rows, but label has 3',
    ),
    (
        [input_text({"x": (2, 3), "y": ()}), layer_text("HDF5Output", SINK, "xy", tops=0)],
        'net:2: layer "layer" (HDF5Output): a bottom is one number; rows expected',
    ),
]


@pytest.mark.parametrize(("lines", "message"), MISTAKES)
def test_a_mistake_is_named(lines: list[str], message: str) -> None:
    assert str(refusal(*lines)) == message


def apply_a_source() -> None:
    create(LayerParameter(type="Input", top=["x"]), TEST).apply(Context({}))


def open_no_data() -> None:
    create(LayerParameter(type="Data", top=["x"]), TEST).shape()


def draw_without_a_key() -> None:
    Context({}).key()


def feed_an_unknown_blob() -> None:
    shapes_of(input_text({"x": (2, 3)}), given={"y": (2,)})


def infer_a_stand_in() -> None:
    text = 'layer { name: "l" type: "Poolng" bottom: "x" top: "y" }'
    infer(connect(parse_net(f"{input_text({'x': (2,)})}\n{text}", "net"), create_or_stand_in))


def filter_inside_jit() -> None:
    sift = create(LayerParameter(type="Filter", bottom=["x", "k"], top=["y"]), TEST)
    jax.jit(lambda k: sift.apply(Context({}), jnp.zeros((2, 3)), k))(jnp.ones(2))


def pick_of_none() -> None:
    create(LayerParameter(type="BatchReindex", bottom=["x", "i"], top=["y"]), TEST).shape(
        (0, 3), (2,)
    )


# What no net can lead to.
DIRECT: dict[Callable[[], None], tuple[type[NetSpecError], str]] = {
    pick_of_none: (LayerError, "0x3 has no items to pick"),
    apply_a_source: (LayerError, "is fed from outside"),
    open_no_data: (LayerError, "the shapes of its tops are known only once its data is open"),
    filter_inside_jit: (
        LayerError,
        "its output's size depends on data: run the net outside jax.jit",
    ),
    draw_without_a_key: (LayerError, "draws random numbers, but this run was given no key"),
    infer_a_stand_in: (
        LayerError,
        'net:2: layer "l" (Poolng): unknown layer type "Poolng"; did you mean "Pooling"?',
    ),
    feed_an_unknown_blob: (GraphError, 'net: no input blob "y"; the net is fed x'),
}


def directly(act: Callable[[], None]) -> NetSpecError:
    with pytest.raises(NetSpecError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("act", DIRECT, ids=lambda act: act.__name__)
def test_a_callers_mistake_is_named(act: Callable[[], None]) -> None:
    error = directly(act)
    assert (type(error), str(error)) == DIRECT[act]


def mistakes() -> Iterator[NetSpecError]:
    """The errors of all nets in ``mistakes/``, as far as shapes."""
    for path in sorted(Path("mistakes").glob("*.prototxt")):
        for phase in ("train", "test"):
            try:
                infer(read_graph(path, phase))
            except NetSpecError as error:
                yield error


# What fillers refuse has tests of its own, in test_fillers.py.
ELSEWHERE = {"fillers"}


def test_every_refusal_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `require` and `fail` in the layers and in ``shapes.py`` has come about."""
    monkeypatch.chdir(Path(__file__).parent)
    files = [*(PACKAGE / "layers").rglob("*.py"), PACKAGE / "frontend" / "shapes.py"]
    known = sites(file for file in files if file.stem not in ELSEWHERE)
    assert len(known) > 100
    here = [*(refusal(*lines) for lines, _ in MISTAKES), *map(directly, DIRECT)]
    missing = known - reached([*here, *mistakes()], known)
    assert not missing, sorted(f"{Path(file).name}:{first}" for file, first, _ in missing)


# What nets are


def test_shapes_by_name_are_those_of_the_last_binding() -> None:
    shapes = shapes_of(
        input_text({"a": IMAGE, "b": (4,)}),
        layer_text("Convolution", "num_output: 5 kernel_size: 3 stride: 2", ["a"]),
        'layer { name: "r" type: "ReLU" bottom: "y0" top: "y0" }',
    )
    assert shapes["y0"] == (2, 5, 3, 2)
    assert shapes.by_name == {"a": IMAGE, "b": (4,), "y0": (2, 5, 3, 2)}
    assert shapes.values == (IMAGE, (4,), (2, 5, 3, 2), (2, 5, 3, 2))


def test_given_shapes_replace_stated_ones() -> None:
    net = [
        input_text({"a": IMAGE, "b": (2, 3, 4, 4)}),
        layer_text("Crop", "", ["a", "b"]),
    ]
    assert shapes_of(*net, given={"b": (1, 1, 2, 3)})["y0"] == (2, 3, 2, 3)
    assert shapes_of(*net, given={"a": (9, 5, 8, 6), "b": (1, 1, 2, 3)})["y0"] == (9, 5, 2, 3)


def test_given_shapes_need_no_stated_ones() -> None:
    net = (
        'layer { name: "d" type: "HDF5Data" top: "a" top: "b" }',
        layer_text("Silence", "", ["a", "b"], tops=0),
    )
    assert shapes_of(*net, given={"a": IMAGE, "b": (2,)}).by_name == {"a": IMAGE, "b": (2,)}
    assert "known only once" in str(refusal(*net, given={"a": IMAGE}))


def test_one_stated_shape_is_for_all_tops() -> None:
    shapes = shapes_of(
        'layer { name: "x" type: "Input" top: "a" top: "b" '
        "input_param { shape { dim: 2 dim: 3 } } }"
    )
    assert shapes.by_name == {"a": (2, 3), "b": (2, 3)}


def test_learned_arrays_have_caffes_shapes_and_order() -> None:
    shapes = shapes_of(
        input_text({"a": (2, 6, 7, 5)}),
        layer_text("Convolution", "num_output: 4 group: 2 kernel_h: 3 kernel_w: 2", ["a"]),
        'layer { name: "up" type: "Deconvolution" bottom: "a" top: "up" '
        "convolution_param { num_output: 4 group: 2 kernel_h: 3 kernel_w: 2 } }",
        'layer { name: "fc" type: "InnerProduct" bottom: "a" top: "fc" '
        "inner_product_param { num_output: 3 transpose: true } }",
        'layer { name: "s" type: "Scale" bottom: "a" top: "s" '
        "scale_param { axis: 2 num_axes: -1 bias_term: true } }",
    )
    assert {str(key): blob.shape for key, blob in shapes.params.items()} == {
        "layer.weight": (4, 3, 3, 2),
        "layer.bias": (4,),
        "up.weight": (6, 2, 3, 2),
        "up.bias": (4,),
        "fc.weight": (210, 3),
        "fc.bias": (3,),
        "s.scale": (7, 5),
        "s.bias": (7, 5),
    }


def test_shared_arrays_are_one_under_their_first_owner() -> None:
    shapes = shapes_of(*sharing(15, 2, "share_mode: PERMISSIVE lr_mult: 3 decay_mult: 0"))
    (key,) = shapes.params
    assert str(key) == "first.weight"
    assert shapes.params[key].shape == (5, 12)
    assert [dict(each.keys) for each in shapes.nodes] == [{}, {"weight": key}, {"weight": key}]
    spec = shapes.param_specs[key]
    assert (spec.lr_mult, spec.decay_mult) == (3, 0)
