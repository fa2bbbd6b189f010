"""Layers and nets compute the same for a blob that lies in a larger array, whatever lies beyond."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case, fixed, labels, normal, row
from numpy.typing import NDArray
from sweeps import first_of_each

from netspec.errors import LayerError
from netspec.frontend.shapes import infer
from netspec.runtime.layer_pass import LayerPass
from netspec.runtime.masked_shapes import (
    MaskedShapes,
    ValidRegions,
    masked_shapes,
    rounded,
    rounded_shape,
    spatial,
)
from netspec.runtime.run import run
from netspec.runtime.values import Held, Run

# What lies beyond a blob: finite, and nothing that a sum or a maximum would pass over.
GARBAGE = 7.0


def larger(case: Case) -> MaskedShapes | None:
    """The case's framing in arrays larger by odd numbers; None where there is no such."""
    shapes = {case.graph.values[i].name: array.shape for i, array in case.inputs.items()}
    grown = {
        name: tuple(
            n + 2 * (axis - len(shape)) + 7 if axis in spatial(shape) else n
            for axis, n in enumerate(shape)
        )
        for name, shape in shapes.items()
    }
    if grown == shapes:
        return None
    try:
        found = masked_shapes(infer(case.graph, grown))
    except LayerError:
        return None
    learned, mine = (
        [{name: b.shape for name, b in each.blobs.items()} for each in shapes.nodes]
        for shapes in (found.shapes, case.shapes)
    )
    return found if learned == mine and found.fits(case.shapes) else None


def some(cases: Iterable[Case]) -> Iterator[Case]:
    """All of windows, and a few of each other type."""
    seen: Counter[str] = Counter()
    for case in cases:
        kind = case.graph.nodes[-1].type
        seen[kind] += 1
        if kind in ("Convolution", "Deconvolution", "Pooling") or seen[kind] <= 2:
            yield case


IMAGE = (2, 3, 7, 5)
MORE = [
    row(
        f"{loss} over pixels, {settings}",
        "",
        normal(*IMAGE),
        labels(*shape, classes=3, ignore=1 if "ignore" in settings else None),
        *matrix,
        more=f"loss_param {{ {settings} }}",
    )
    for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    for settings in (f"normalization: {mode}", f"normalization: {mode} ignore_label: 1")
    for loss, shape, matrix in (
        ("SoftmaxWithLoss", (2, 1, 7, 5), ()),
        ("InfogainLoss", (2, 7, 5), (fixed(3, 3),)),
    )
]
ROWS = [*some(case for case in CASES if larger(case) is not None), *MORE]


def padded(array: NDArray, shape: tuple[int, ...], fill: float) -> NDArray:
    """An array in the corner of a larger one."""
    if array.shape == shape:
        return array
    edges = [(0, n - m) for n, m in zip(shape, array.shape, strict=True)]
    return np.pad(array, edges, constant_values=fill)


def padding_values(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What of an array lies beyond a blob of this shape."""
    return array.at[tuple(slice(n) for n in shape)].set(0)


def objective(
    case: Case, found: MaskedShapes | None, inputs: Any, params: Any
) -> tuple[jax.Array, tuple[dict[int, jax.Array], Any]]:
    """The losses and the seeded outputs, summed; values and updates."""
    made: Run
    if found is None:
        made = run(case.shapes, params, inputs)
    else:
        arrays = found.shapes.values
        # What a layer makes beyond its tops is garbage, too.
        perturbations = {
            i: padded(np.zeros(shape, np.float32), arrays[i], GARBAGE)
            for i, shape in enumerate(case.shapes.values)
            if shape != arrays[i]
        }
        regions = ValidRegions(found, jnp.asarray(found.sizes(case.shapes)))
        made = Run(found.shapes, regions, {i: Held(array) for i, array in inputs.items()})
        layers = LayerPass(found.shapes, params, perturbations=perturbations)
        with layers.policy.products():
            layers.run(made, range(len(found.shapes.graph.nodes)))
    seeded = []
    for i, seed in case.seeds.items():
        value = made.value(i)
        seeded.append(jnp.vdot(padded(seed, value.shape, 0.0), value))
    return sum(seeded, start=made.loss()), ({i: made.value(i) for i in made.values}, made.updates)


def computed(case: Case, found: MaskedShapes) -> Any:
    """((gradients of inputs, of params), (values, updates)) in larger arrays, and as it is."""
    values = found.shapes.values
    given = [
        {i: padded(array, values[i], GARBAGE) for i, array in case.inputs.items()},
        case.inputs,
    ]
    step = jax.grad(lambda *a: objective(case, *a), argnums=(1, 2), has_aux=True)

    def both(given: Any, params: Any) -> Any:
        return step(found, given[0], params), step(None, given[1], params)

    # Compiled in haste: each runs once.
    hasty = jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})
    return hasty(given, dict(case.params))


def close(got: NDArray | jax.Array, want: jax.Array) -> None:
    cut = np.asarray(got)[tuple(slice(n) for n in want.shape)]
    scale = max(np.abs(want).max(initial=0), 1e-3)
    np.testing.assert_allclose(cut, want, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    "case",
    first_of_each(ROWS, lambda case: case.graph.nodes[-1].type),
    ids=lambda case: case.name,
)
def test_a_layer_computes_the_same_in_larger_arrays(case: Case) -> None:
    """Nor has what lies beyond a gradient, which would reach the layers below."""
    found = larger(case)
    assert found is not None
    larger_run, exact_run = computed(case, found)
    (inputs, params), (values, updates) = larger_run
    (want_inputs, want_params), (want_values, want_updates) = exact_run
    for got, want in ((values, want_values), (inputs, want_inputs), (params, want_params)):
        assert got.keys() == want.keys()
        for key in want:
            close(got[key], want[key])
    for i, gradient in inputs.items():
        assert not padding_values(gradient, want_inputs[i].shape).any()
    assert updates.keys() == want_updates.keys()
    for key in want_updates:
        close(updates[key], want_updates[key])


def test_most_layers_over_pixels_are_among_them() -> None:
    assert all(larger(case) is not None for case in MORE)
    assert {case.graph.nodes[-1].type for case in ROWS} >= {
        *("Convolution", "Deconvolution", "Im2col", "Pooling", "LRN", "Crop"),
        *("ReLU", "PReLU", "Dropout", "Power", "Exp", "Log", "Scale", "Bias", "BatchNorm", "MVN"),
        *("Eltwise", "Concat", "Slice", "Tile", "Softmax", "ArgMax", "Split", "Silence"),
        *("SoftmaxWithLoss", "Accuracy", "EuclideanLoss", "SigmoidCrossEntropyLoss"),
    }


@pytest.mark.parametrize(
    "case",
    [
        row("Flatten", "", normal(*IMAGE)),
        row("Reduction", "", normal(*IMAGE)),
        row("Reshape", "shape { dim: 0 dim: -1 }", normal(*IMAGE)),
        row("SPP", "pyramid_height: 1", normal(*IMAGE)),
        row("Concat axis -1", "axis: -1", normal(*IMAGE), normal(*IMAGE)),
        row("Slice axis 3", "axis: 3 slice_point: 2", normal(*IMAGE), tops=2),
        row("Softmax axis 2", "axis: 2", normal(*IMAGE)),
        row("ArgMax over all", "", normal(*IMAGE)),
        row("Pooling with a mask", "kernel_size: 2", normal(*IMAGE), tops=2),
        row("Pooling STOCHASTIC", "pool: STOCHASTIC kernel_size: 2", normal(*IMAGE)),
        row("Pooling AVE with gaps", "pool: AVE kernel_size: 2 stride: 3", normal(*IMAGE)),
        row("Log of zero", "", normal(*IMAGE)),
        row("Power of a root", "power: 0.5", normal(*IMAGE)),
        row("LRN without k", "k: 0", normal(*IMAGE)),
        row(
            "Eltwise PROD",
            "operation: PROD stable_prod_grad: false",
            normal(*IMAGE),
            normal(*IMAGE),
        ),
    ],
    ids=lambda case: case.name,
)
def test_a_layer_that_cannot_says_so(case: Case) -> None:
    """Its place and name stand in the message."""
    with pytest.raises(LayerError, match=r'layer "layer" \(\w+\): needs blobs of their own size'):
        masked_shapes(case.shapes)


@pytest.mark.parametrize(
    ("size", "room"),
    [(1, 16), (16, 16), (17, 32), (128, 128), (129, 160), (281, 320), (375, 384), (500, 512)],
)
def test_sizes_are_rounded_up(size: int, room: int) -> None:
    assert rounded(size) == room


def test_few_sizes_are_left_and_little_is_added() -> None:
    """Of all from 64 pixels on, less than an eighth a side on average, a quarter at most."""
    sizes = range(64, 2049)
    rooms = [rounded(size) for size in sizes]
    assert rooms == sorted(rooms)
    assert len(set(rooms)) <= 24
    added = [room / size for size, room in zip(sizes, rooms, strict=True)]
    assert np.mean(added) < 1.125
    assert 1 <= min(added) <= max(added) < 1.25


def test_images_and_label_images_have_pixels() -> None:
    shapes = [(2, 3, 300, 500), (2, 1, 300, 500), (2, 300, 500), (2, 3, 9, 30, 40)]
    rooms = [(2, 3, 320, 512), (2, 1, 320, 512), (2, 320, 512), (2, 3, 16, 32, 48)]
    assert list(map(rounded_shape, shapes)) == rooms
    for shape in [(), (7,), (7, 300), (7, 1, 1, 1), (7, 21, 1, 1)]:
        assert rounded_shape(shape) == shape
