"""Layers that are run alone."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case
from numpy.typing import ArrayLike
from reference import evaluate

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.runtime.run import run
from netspec.runtime.values import Run


def close(got: ArrayLike, want: ArrayLike, tolerance: float = 1e-5) -> None:
    """Assert that arrays have one shape and differ by no more than rounding does."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    scale = max(np.abs(want).max(initial=0), 1e-3)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled in haste: there are hundreds, and each runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


class Trial:
    """A case, run forward and backward."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.inputs = {i: jnp.asarray(array) for i, array in case.inputs.items()}
        self.params = {key: jnp.asarray(array) for key, array in case.params.items()}

    def run(self, inputs: Any, params: Any) -> Run:
        """The net as it is; a key would change nothing."""
        return run(self.case.shapes, params, inputs)

    def values(self, inputs: Any, params: Any) -> dict[int, jax.Array]:
        """What the layers make, in Caffe's layout."""
        made = self.run(inputs, params)
        return {i: made.value(i) for i in made.values if i not in inputs}

    def objective(self, inputs: Any, params: Any) -> tuple[jax.Array, dict[int, jax.Array]]:
        """The losses and the seeded outputs, summed; and all values."""
        made = self.run(inputs, params)
        seeded = [jnp.vdot(seed, made.value(i)) for i, seed in self.case.seeds.items()]
        values = {i: made.value(i) for i in made.values if i not in inputs}
        return sum(seeded, start=made.loss()), values

    def compute(self) -> tuple[Any, Any, Any]:
        """Values, gradients of the inputs, gradients of the params."""
        # A function of its own for each call: JAX would hand out what it compiled before.
        step = jax.grad(lambda *a: self.objective(*a), argnums=(0, 1), has_aux=True)
        (inputs, params), values = compiled(step)(self.inputs, self.params)
        return values, inputs, params

    @cached_property
    def computed(self) -> tuple[Any, Any, Any]:
        """What `compute` gives in the layout that runs have."""
        return self.compute()

    def reference(self, inputs: Mapping[int, Any], params: Mapping[Any, Any]) -> float:
        """The objective, by the plain loops."""
        values = evaluate(self.case.shapes, params, inputs)
        losses = sum(weight * values[i].sum() for i, weight in self.case.graph.losses)
        unheard = {self.case.graph.blobs[name] for name in self.case.unheard}
        seeds = {i: seed for i, seed in self.case.seeds.items() if i not in unheard}
        return losses + sum(np.vdot(seed, values[i]) for i, seed in seeds.items())

    def turned(self) -> set[int]:
        """The values that a run makes channels-last."""
        turned: set[int] = set()

        def look(inputs: Any, params: Any) -> None:
            made = self.run(inputs, params)
            turned.update(i for i, held in made.values.items() if held.last is not None)

        jax.eval_shape(look, self.inputs, self.params)
        return turned


def forward(
    text: str, *arrays: Any, phase: str = "TEST", key: jax.Array | None = None
) -> list[jax.Array]:
    """The tops of one layer whose bottoms are a, b, c, ..., fed these arrays."""
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in np.shape(array))
        + " } } }\n"
        for name, array in zip("abc", arrays, strict=False)
    )
    shapes = infer(connect(parse_net(f"state {{ phase: {phase} }}\n{inputs}{text}", "net")))

    def tops(key: jax.Array | None, *arrays: jax.Array) -> list[jax.Array]:
        made = run(shapes, {}, dict(enumerate(arrays)), key)
        return [made.value(i) for i in shapes.graph.nodes[-1].tops]

    return jax.jit(tops)(key, *(jnp.asarray(array, jnp.float32) for array in arrays))
