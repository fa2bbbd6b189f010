"""A net as pure functions: the whole net, some of its layers, or gradients of some values.

All three take learned arrays by key (shared ones once) in the shapes of ``shapes.params``, with
the carried state in those of ``shapes.carried`` (zeros where it is absent), and given values by
index in the shapes of ``shapes.values``, in Caffe's layout. A ``key`` is needed by layers that draw
random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.border_reuse import reduced_layers
from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.runtime.layer_pass import LayerPass
from netspec.runtime.masked_shapes import ValidRegions, masked_shapes
from netspec.runtime.remat import segments
from netspec.runtime.values import Held, Params, Run

# What gradients are of: the run -> a number (), and whatever else is to be kept of it.
Objective = Callable[[Run], tuple[Array, Any]]


def run(
    shapes: Shapes,
    params: Params,
    given: Mapping[int, Array],
    key: Array | None = None,
    sizes: Array | None = None,
    policy: ComputePolicy = PLAIN,
) -> Run:
    """Run a whole net.

    given: what the host feeds. sizes: the true sizes of values in arrays that may be larger, as
    `MaskedShapes.sizes` gives them. policy: dtype, and whether segments are rematerialised, of
    which only what later ones read is in the run. Raises LayerError with the place of a layer that
    cannot work.
    """
    regions = None if sizes is None else ValidRegions(masked_shapes(shapes), sizes)
    made = Run(shapes, regions, {i: Held(array) for i, array in given.items()})
    # Border reuse needs static sizes.
    reduced = {} if sizes is not None else reduced_layers(shapes)
    layers = LayerPass(shapes, params, key, policy, reduced)
    with policy.products():
        if not policy.remat:
            layers.run(made, range(len(shapes.graph.nodes)))
            return made
        for segment in segments(shapes, policy.blob_bytes):
            (layers.run_segment if segment.rematerialised else layers.run)(made, segment.nodes)
    return made


def run_layers(
    shapes: Shapes,
    nodes: Sequence[int],
    params: Params,
    given: Mapping[int, Array | Held],
    key: Array | None = None,
) -> Run:
    """Run some layers, by number and in order, on the values that they read but do not make.

    params: at least what these layers learn. given: arrays in Caffe's layout, or as another run of
    layers holds them (`Run.values`). Both are pytrees that are only read, so that ``jax.vjp`` of
    what is taken of the run, by either, gives the layers' residuals. Layers alone compute all of
    their rows: those that reuse borders do so only where all of them run. Raises LayerError with
    the place of a layer that cannot work.
    """
    made = Run(shapes, values={i: _own(array) for i, array in given.items()})
    reduced = reduced_layers(shapes)
    layers = LayerPass(shapes, params, key, reduced=reduced if reduced.keys() <= set(nodes) else {})
    with PLAIN.products():
        layers.run(made, nodes)
    return made


def value_gradients(
    shapes: Shapes,
    nodes: Sequence[int],
    params: Params,
    given: Mapping[int, Array],
    objective: Objective,
    learned: Iterable[ParamKey],
    values: Iterable[int],
    key: Array | None = None,
    replacements: Mapping[int, Array] | None = None,
) -> tuple[Array, Any, dict[ParamKey, Array], dict[int, Array]]:
    """Gradients of an objective by learned arrays, and by values given or made on the way.

    nodes, given: as `run_layers` takes them. objective: what the gradients are of. learned, values:
    what they are with respect to; each gradient has its shape. Layers on the host are asked only
    for the gradients that Caffe would compute. replacements: arrays that stand for what the layers
    make of these values; gradients go on to what was computed there. Returns the objective (), what
    else it gave, and both gradients. Raises LayerError as `run_layers` does.
    """
    made = run_layers(shapes, nodes, params, given, key) if shapes.graph.data_dependent else None
    zeros = {
        i: jnp.zeros_like(made.value(i)) if made else jnp.zeros(shapes.values[i], jnp.float32)
        for i in values
    }

    def perturbed(learned: Params, perturbations: Mapping[int, Array]) -> tuple[Array, Any]:
        everything, instead = {**params, **learned}, replacements or {}
        layers = LayerPass(
            shapes, everything, key, perturbations=perturbations, replacements=instead
        )
        return objective(_run_perturbed(layers, nodes, given))

    mine = {name: params[name] for name in learned}
    passes = jax.value_and_grad(perturbed, (0, 1), has_aux=True)
    (value, kept), (gradients, diffs) = passes(mine, zeros)
    return value, kept, gradients, diffs


def _run_perturbed(layers: LayerPass, nodes: Sequence[int], given: Mapping[int, Array]) -> Run:
    """Run some layers, their perturbations added to given values, too."""
    start = {
        i: array + layers.perturbations[i] if i in layers.perturbations else array
        for i, array in given.items()
    }
    made = Run(layers.shapes, values={i: Held(array) for i, array in start.items()})
    with PLAIN.products():
        layers.run(made, nodes)
    return made


def _own(array: Array | Held) -> Held:
    """An array as a run holds it; in an object of its own, to which it may add a layout."""
    return Held(array.first, array.last, array.borders) if isinstance(array, Held) else Held(array)
