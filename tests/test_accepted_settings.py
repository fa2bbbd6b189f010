"""Settings that look wrong and that Caffe takes: they compute what a release build of it does."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import netspec
from netspec import caffe
from netspec.frontend.prototxt import read_solver


def loaded(tmp_path: Path, text: str, **options: object) -> netspec.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return netspec.load(path, **options)  # type: ignore[arg-type]


DROPOUT = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: %s } }
"""


@pytest.mark.parametrize("ratio", ["1", "1.5", "-3"])
def test_any_dropout_ratio_passes_blobs_on_in_test(tmp_path: Path, ratio: str) -> None:
    net = loaded(tmp_path, DROPOUT % ratio)
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(net(x=x)["y"], x)
    np.testing.assert_array_equal(jax.grad(lambda x: net(x=x)["y"].sum())(x), jnp.ones((2, 3)))


def test_dropout_of_all_is_nan_in_train(tmp_path: Path) -> None:
    """Caffe scales its zeros by 1 / 0, forward and backward."""
    net = loaded(tmp_path, DROPOUT % 1, phase="train")
    x = jnp.arange(6.0).reshape(2, 3)
    assert np.isnan(net(x=x)["y"]).all()
    gradient = nnx.grad(lambda net, x: net(x=x)["y"].sum(), argnums=1)(net, x)
    assert np.isnan(gradient).all()


@pytest.mark.parametrize(("stride", "kernel"), [(2, 3), (3, 4), (4, 5)])
def test_a_window_larger_than_the_image_by_less_than_the_stride(
    tmp_path: Path, stride: int, kernel: int
) -> None:
    """(size + 2 pad - kernel) / stride rounds towards 0 in C: one window, zeros behind."""
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 1, 2, 2] }} }} }}
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {{
      num_output: 1 kernel_size: {kernel} stride: {stride} weight_filler {{ type: "xavier" }} }} }}
    """
    net = loaded(tmp_path, text)
    x = jnp.array([[[[1.0, -2.0], [3.0, 0.5]]]])
    weight = net.params["c"]["weight"][...]
    top = net(x=x)["y"]
    assert top.shape == (1, 1, 1, 1)
    np.testing.assert_allclose(top[0, 0, 0, 0], (weight[0, 0, :2, :2] * x[0, 0]).sum(), rtol=1e-5)
    gradient = jax.grad(lambda x: net(x=x)["y"].sum())(x)
    np.testing.assert_allclose(gradient[0, 0], weight[0, 0, :2, :2], rtol=1e-5)


def test_a_convolution_without_spatial_axes_is_described(tmp_path: Path) -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 2 } }
    layer { name: "e" type: "Deconvolution" bottom: "y" top: "z" convolution_param {
      num_output: 2 } }
    """
    net = loaded(tmp_path, text)
    assert [node.layer.describe() for node in net.graph.nodes[1:]] == [""] * 2
    assert [node.layer.coords(2) for node in net.graph.nodes[1:]] == [None, None]
    assert net.params["c"]["weight"].shape == (2, 3)


def test_a_convolution_without_spatial_axes_is_an_inner_product(tmp_path: Path) -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }
    layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
      num_output: 2 group: 2 weight_filler { type: "xavier" } bias_filler { value: 3 } } }
    layer { name: "e" type: "Deconvolution" bottom: "x" top: "z" convolution_param {
      num_output: 3 weight_filler { type: "xavier" } } }
    """
    net = loaded(tmp_path, text)
    x = np.arange(8, dtype=np.float32).reshape(2, 4) ** 2
    made = net(x=x)
    weight = np.asarray(net.params["c"]["weight"][...])
    expected = np.stack([x[:, :2] @ weight[0], x[:, 2:] @ weight[1]], 1) + 3
    np.testing.assert_allclose(made["y"], expected, rtol=1e-5)
    weight = np.asarray(net.params["e"]["weight"][...])
    np.testing.assert_allclose(made["z"], x @ weight, rtol=1e-5)


def test_debug_info_of_a_net_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """debug_info: true
    layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param {
      shape { dim: 4 dim: 3 } shape { dim: 4 }
      data_filler { value: 0.5 } data_filler { value: 1 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
      num_output: 2 weight_filler { value: 0.2 } } }
    layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "l" }
    """
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert caffe.Net(str(path), caffe.TEST).forward()["l"] == pytest.approx(np.log(2))
    assert caplog.messages == [
        f"{path}: debug_info: prints nothing here; debug_info in the solver prints the "
        "statistics of blobs, and results are the same without"
    ]


POWER = 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: %s } }'


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("input_shape { }", ()),
        ("input_shape { dim: 2 } input_shape { dim: 3 }", (2,)),
        ("input_shape { dim: 2 } input_dim: 7", (2,)),
        ("input_dim: [1, 2, 3, 5, 7]", (1, 2, 3, 5)),
        ("input_dim: [1, 2, 3, 5, 7, 1, 2, 3, 4]", (1, 2, 3, 5)),
    ],
)
def test_scalar_inputs_and_surplus_shapes(
    tmp_path: Path, shape: str, expected: tuple[int, ...]
) -> None:
    net = loaded(tmp_path, f'input: "x" {shape} {POWER % 2}')
    assert net.shapes["x"] == expected
    np.testing.assert_array_equal(net(x=jnp.ones(expected))["y"], jnp.full(expected, 2.0))


@pytest.mark.parametrize(
    ("number", "value"),
    [("- 2", -2), ("-\n  0.5", -0.5), ("- # half\n # of it\n .5", -0.5), ("- inf", -np.inf)],
)
def test_a_minus_apart_from_its_number(tmp_path: Path, number: str, value: float) -> None:
    net = loaded(tmp_path, f'input: "x" input_shape {{ }} {POWER % number}')
    assert net.graph.nodes[-1].layer.param.scale == value


def test_a_minus_apart_moves_no_line(tmp_path: Path) -> None:
    text = """name: "a - 1" # - 2
    input: "x" input_shape { }
    layer { name: "c" type: "Concat" bottom: "x" top: "y" concat_param { axis: -
      # the last one
      1 } }
    layer { name: "d" type: "Nothing" }
    """
    with pytest.raises(
        netspec.NetSpecError, match=r"net.prototxt:3: layer .c. \(Concat\): axis -1"
    ):
        loaded(tmp_path, text.replace('layer { name: "d" type: "Nothing" }', ""))
    with pytest.raises(netspec.NetSpecError, match=r"net.prototxt:6: .*Nothing"):
        loaded(tmp_path, text)
    assert loaded(tmp_path, text.split("layer")[0]).graph.name == "a - 1"


def test_a_required_field_left_out_in_a_solver(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text("""base_lr: 0.1 lr_policy: "fixed" max_iter: 1
    net_param {
      input: "x" input_shape { }
      layer { name: "c" type: "Clip" bottom: "x" top: "y" clip_param { min: 1 } }
    }
    """)
    message = r"solver.prototxt:4: layer .c. \(Clip\): clip_param needs max"
    with pytest.raises(netspec.NetSpecError, match=message):
        read_solver(path)


@pytest.mark.parametrize("axes", [(7,), (2, 3), (2, 3, 4)])
def test_mvn_in_place_adds_axes(tmp_path: Path, axes: tuple[int, ...]) -> None:
    """The blob has four axes from then on, in which the net takes it as well."""
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: {list(axes)} }} }} }}
    layer {{ name: "m" type: "MVN" bottom: "x" top: "x" mvn_param {{ across_channels: true
      normalize_variance: false }} }}
    """
    net = loaded(tmp_path, text)
    whole = (*axes, 1, 1, 1)[:4]
    x = jax.random.normal(jax.random.key(0), axes)
    for shape in (axes, whole):
        top = net(x=x.reshape(shape))["x"]
        assert top.shape == whole
        mean = x.reshape(axes[0], -1).mean(1).reshape(-1, *(1,) * (len(axes) - 1))
        np.testing.assert_allclose(top, (x - mean).reshape(whole), atol=1e-6)


def test_layers_in_place_on_what_is_computed_may_change_its_size(tmp_path: Path) -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "p" type: "Power" bottom: "x" top: "y" }
    layer { name: "t" type: "Tile" bottom: "y" top: "y" tile_param { tiles: 2 } }
    """
    net = loaded(tmp_path, text)
    assert net(x=jnp.ones((2, 3)))["y"].shape == (2, 6)


@pytest.mark.differs("in-place-resized-input")
def test_layers_in_place_on_an_input_keep_its_size(tmp_path: Path) -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
    layer { name: "t" type: "Tile" bottom: "x" top: "x" tile_param { tiles: 2 } }
    """
    with pytest.raises(netspec.NetSpecError, match=r'prototxt:4: layer "t" \(Tile\)'):
        loaded(tmp_path, text)


@pytest.mark.differs("clip-without-limits")
def test_clip_needs_its_limits(tmp_path: Path) -> None:
    text = 'input: "x" input_shape { } layer { name: "c" type: "Clip" bottom: "x" top: "y" }'
    with pytest.raises(netspec.NetSpecError, match=r'"c" \(Clip\): needs min and max'):
        loaded(tmp_path, text)


@pytest.mark.differs("empty-windows")
@pytest.mark.parametrize(
    ("layer", "settings"),
    [
        ("Convolution", "convolution_param { num_output: 1 kernel_size: 5 stride: 3 }"),
        ("Im2col", "convolution_param { kernel_size: 5 stride: 3 }"),
        ("Pooling", "pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }"),
    ],
)
def test_some_window_must_fit(tmp_path: Path, layer: str, settings: str) -> None:
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 1, 2, 2] }} }} }}
    layer {{ name: "w" type: "{layer}" bottom: "x" top: "y" {settings} }}
    """
    with pytest.raises(netspec.NetSpecError, match=r"prototxt:3: .*spatial axis 0: kernel .* > "):
        loaded(tmp_path, text)


@pytest.mark.parametrize("side", ["kernel_h", "kernel_w"])
def test_one_side_of_a_kernel_is_nothing_beside_kernel_size(side: str, tmp_path: Path) -> None:
    """Caffe asks whether both are there, and takes kernel_size."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 1 dim: 7 '
        'dim: 7 } } } layer { name: "p" type: "Pooling" bottom: "d" top: "p" '
        f"pooling_param {{ kernel_size: 3 {side}: 5 }} }}"
    )
    assert netspec.load(path).shapes["p"] == (1, 1, 5, 5)
