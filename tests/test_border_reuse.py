"""A net that pads widely computes the same on fewer pixels."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import Shapes, infer
from netspec.layers.vision import Convolution
from netspec.runtime import run as run_module
from netspec.runtime.border_reuse import reduced_layers
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.remat import segments
from netspec.runtime.run import run, run_layers

CONV = """
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
  num_output: {outputs} {window} weight_filler {{ type: "xavier" }} }} }}
"""
INPUT = 'layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
LOSS = """
layer { name: "even" type: "Power" bottom: "END" top: "even" power_param { power: 2 } }
layer { name: "sum" type: "Reduction" bottom: "even" top: "loss" loss_weight: 1 }
"""


def conv(name: str, bottom: str, window: str, outputs: int = 2) -> str:
    return CONV.format(name=name, bottom=bottom, window=window, outputs=outputs)


def layer(kind: str, bottom: str, top: str = "", settings: str = "") -> str:
    return (
        f'layer {{ name: "{kind}-{bottom}" type: "{kind}" bottom: "{bottom}" '
        f'top: "{top or bottom}" {settings} }}\n'
    )


def pool(bottom: str, top: str, settings: str) -> str:
    return layer("Pooling", bottom, top, f"pooling_param {{ {settings} }}")


class Padded(NamedTuple):
    """A net by its layers, its last blob, and by how many rows the first top is less."""

    layers: str
    end: str
    fewer: int
    sizes: tuple[int, int] = (9, 14)


# Those of many layers, which take longest.
PUBLISHED = ("VGG", "AlexNet")
NETS = {
    "VGG's beginning": Padded(
        conv("c1", "data", "kernel_size: 3 pad: 31")
        + layer("ReLU", "c1")
        + conv("c2", "c1", "kernel_size: 3 pad: 1")
        + layer("ReLU", "c2")
        + pool("c2", "p1", "kernel_size: 2 stride: 2")
        + conv("c3", "p1", "kernel_size: 3 pad: 1")
        + pool("c3", "p2", "kernel_size: 2 stride: 2")
        + conv("c4", "p2", "kernel_size: 3 pad: 1"),
        "c4",
        48,
    ),
    "AlexNet's": Padded(
        conv("c1", "data", "kernel_size: 5 stride: 2 pad: 33")
        + layer("PReLU", "c1")
        + pool("c1", "p1", "kernel_size: 3 stride: 2")
        + layer("LRN", "p1", "n1", "lrn_param { local_size: 3 }")
        + conv("c2", "n1", "kernel_size: 3 pad: 1 group: 2", 4),
        "c2",
        26,
    ),
    "means over windows, and another stride": Padded(
        conv("c1", "data", "kernel_size: 2 pad: 29")
        + pool("c1", "p1", "kernel_size: 3 stride: 3 pad: 1 pool: AVE")
        + layer("Sigmoid", "p1")
        + conv("c2", "p1", "kernel_size: 3 dilation: 2 pad: 1"),
        "c2",
        42,
    ),
    "one top for two, one of which needs all": Padded(
        conv("c1", "data", "kernel_size: 3 pad: 12")
        + conv("c2", "c1", "kernel_size: 3 pad: 1")
        + layer("Concat", "c1", "both", 'bottom: "c2"'),
        "both",
        14,
    ),
    "a loss on the way": Padded(
        conv("c1", "data", "kernel_size: 3 pad: 12")
        + conv("c2", "c1", "kernel_size: 1").replace("top:", "loss_weight: 0.3 top:"),
        "c2",
        18,
    ),
    "padding alone": Padded(conv("c1", "data", "kernel_size: 3 pad: 6"), "c1", 6),
    "a pad that all see": Padded(conv("c1", "data", "kernel_size: 3 pad: 2"), "c1", 0),
    "a pad of its own on each axis": Padded(
        conv("c1", "data", "kernel_size: 3 pad_h: 9 pad_w: 12"), "c1", 0
    ),
    "statistics of the whole top": Padded(
        conv("c1", "data", "kernel_size: 3 pad: 9") + layer("BatchNorm", "c1"), "c1", 12
    ),
}


def shapes_of(net: Padded) -> Shapes:
    dims = " ".join(f"dim: {n}" for n in (2, 3, *net.sizes))
    text = INPUT.format(dims=dims) + net.layers + LOSS.replace("END", net.end)
    return infer(connect(parse_net(f"state {{ phase: TRAIN }} {text}")))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def trained(shapes: Shapes, **options: Any) -> tuple[Any, Any]:
    """Loss and all blobs, and the gradients of parameters and image."""
    draws = np.random.default_rng(0)
    params = {
        key: jnp.asarray(draws.standard_normal(blob.shape)) for key, blob in shapes.params.items()
    }
    image = jnp.asarray(draws.standard_normal(shapes["data"]))
    start = shapes.graph.first_blobs["data"]

    def loss(params: Any, image: Any) -> tuple[Any, Any]:
        made = run(shapes, params, {start: image}, jax.random.key(0), **options)
        return made.loss(), (made.blobs(), made.updates)

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, image)


def close(got: Any, want: Any) -> None:
    """Equal but for rounding; what is nothing but rounding is as much as numbers near 1 have."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * max(1, np.abs(want).max()))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((9, 14), marks=pytest.mark.slow),
        (1, 2),
        pytest.param((8, 7), marks=pytest.mark.slow),
    ],
    ids="{0[0]}x{0[1]}".format,
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith(PUBLISHED) else name
        for name in NETS
    ],
)
def test_it_is_the_same_function(
    name: str, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every blob, the loss, statistics, and the gradients of parameters and image."""
    net = NETS[name]._replace(sizes=sizes)
    shapes = shapes_of(net)
    steps = reduced_layers(shapes)
    first = [step.top for n, step in steps.items() if shapes.graph.nodes[n].name == "c1"]
    fewer = sum(margin.left_out for margin in first[0][0]) if first else 0
    assert fewer == net.fewer
    less = trained(shapes)
    monkeypatch.setattr(run_module, "reduced_layers", lambda shapes: {})
    jax.tree.map(close, less, trained(shapes))


AMID = "".join(
    layer("Reshape", f"c{i}", f"r{i}", "reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } }")
    + layer("Sigmoid", f"r{i}", f"s{i}")
    + layer("Sigmoid", f"s{i}", f"t{i}")
    + conv(f"c{i + 1}", f"t{i}", "kernel_size: 3 pad: 1")
    for i in range(1, 6)
)
STAGES = {
    "fewer pixels": NETS["VGG's beginning"],
    "layouts that change": Padded(conv("c1", "data", "kernel_size: 3 pad: 1") + AMID, "c6", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("net", STAGES.values(), ids=STAGES)
def test_stages_are_the_same_function(net: Padded) -> None:
    shapes = shapes_of(net)
    assert any(segment.rematerialised for segment in segments(shapes))
    ((again, _), gradients), ((once, _), wanted) = (
        trained(shapes, policy=ComputePolicy(remat=remat)) for remat in (True, False)
    )
    jax.tree.map(close, (again, gradients), (once, wanted))


@pytest.mark.slow
def test_some_layers_alone_compute_all_of_their_pixels() -> None:
    shapes = shapes_of(NETS["VGG's beginning"])
    start = shapes.graph.first_blobs["data"]
    params = {key: jnp.ones(blob.shape) for key, blob in shapes.params.items()}
    held = {start: jnp.ones(shapes["data"])}
    for nodes, size in ((range(len(shapes.graph.nodes)), 2), ([1, 2], 0)):
        made = run_layers(shapes, nodes, params, held)
        assert len(made.values[shapes.graph.nodes[1].tops[0]].borders) == size


def test_a_deep_net_without_wide_padding_is_planned_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a time that does not grow with the square of its depth."""
    layers, bottom = "", "data"
    for i in range(300):
        layers += conv(f"c{i}", bottom, "kernel_size: 3 pad: 1") + layer("ReLU", f"c{i}")
        bottom = f"c{i}"
    shapes = shapes_of(Padded(layers, bottom, 0))
    asked = []
    coords = Convolution.coords
    monkeypatch.setattr(
        Convolution, "coords", lambda self, rank: asked.append(1) or coords(self, rank)
    )
    assert not reduced_layers(shapes)
    assert len(asked) < 5 * len(shapes.graph.nodes)
