"""A draft compiled and fed, with all that several checks ask of it computed once."""

import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from . import truth
from .drafts import Draft
from .face import Face
from .truth import Point


class Skip(Exception):
    """A check that says nothing of a net; the message is the reason."""


class Wrong(Exception):
    """A check that failed."""


class Made(NamedTuple):
    """The gradients of params and fed blobs, every value, and what is kept for the next run."""

    params: dict[Any, Any]
    fed: dict[int, Any]
    values: dict[int, Any]
    kept: dict[Any, Any]


def wild(value: Any) -> bool:
    """Whether numbers are none, or so great that rounding decides what comes of them."""
    return not np.isfinite(value).all() or np.abs(value).max(initial=0) > 1e15


class Trial:
    """A net in a folder of its own.

    params, fed: the arrays by key and by value index. Raises NetSpecError where it is refused.
    """

    def __init__(self, draft: Draft, folder: Path) -> None:
        self.draft, self.folder = draft, folder
        self.path = folder / "net.prototxt"
        self.path.write_text(draft.text())
        self.face = Face(self.path, draft.phase)
        self.graph = self.face.graph
        self.fed_by_name = {name: draft.array(name) for name in self.graph.fed}
        self.fed = {self.graph.first_blobs[name]: a for name, a in self.fed_by_name.items()}
        self.smooth = {
            self.graph.first_blobs[feed.name] for feed in draft.feeds if feed.smooth
        } & self.fed.keys()

    @cached_property
    def params(self) -> dict[Any, Any]:
        """Every learned array: random numbers; statistics are positive."""
        made = {}
        for key, shape in self.face.param_shapes.items():
            numbers = np.float32(0.5) * self._random(str(key)).standard_normal(shape, np.float32)
            made[key] = numbers if self.face.learned[key] else np.float32(0.5) + abs(numbers)
        return made

    @cached_property
    def arrays(self) -> tuple[Any, Any]:
        """params and fed, on the device."""
        return (
            {key: jnp.asarray(array) for key, array in self.params.items()},
            {i: jnp.asarray(array) for i, array in self.fed.items()},
        )

    @cached_property
    def seeds(self) -> dict[int, Any]:
        """Value index -> the gradient that outputs which are no loss are given."""
        losses = {i for i, _ in self.graph.losses}
        made = {}
        for name in self.graph.outputs:
            i = self.graph.blobs[name]
            if i in losses or i in self.fed or self.face.is_loss(i):
                continue
            shape = self.face.shapes.values[i]
            made[i] = np.asarray(self._random(f"d{name}").standard_normal(shape), np.float32)
        return made

    @cached_property
    def eager(self) -> dict[int, Any]:
        """Every value, computed op by op."""
        self.settled()
        values = self.face.values(*self.arrays)
        return {i: np.asarray(value) for i, value in values.items()}

    @cached_property
    def compiled(self) -> "Made":
        """All that one compiled program gives."""
        return self.gradients(self.seeds)

    def gradients(self, seeds: Mapping[int, Any]) -> "Made":
        """The same from other gradients of outputs."""
        self.settled()
        (params, fed), (values, kept) = self.face.gradient(*self.arrays, seeds)
        found = (params, fed, values, kept)
        return Made(*({k: np.asarray(a) for k, a in each.items()} for each in found))

    @cached_property
    def truth(self) -> dict[int, Any]:
        """Every value by the reference's plain loops; Skip where it has none."""
        self.settled()
        if missing := truth.missing(self.face):
            raise Skip(f"the reference has no {missing[0]}")
        return self.evaluate(Point(self.params, self.fed))

    def evaluate(self, at: Point, base: Any = None, moved: Any = None) -> dict[int, Any]:
        """As `truth.evaluate`; Skip where numbers leave a function's domain or a float's range."""
        try:
            with np.errstate(all="ignore"):
                values = truth.evaluate(self.face, at, base, moved)
        except (ValueError, OverflowError, ZeroDivisionError) as error:
            if isinstance(error, ValueError) and "domain" not in str(error):
                raise
            raise Skip("outside a function's domain") from None
        empty = self._empty_windows(values) if base is None else set()
        below = self._below(empty)
        if any(wild(value) for i, value in values.items() if i not in empty | below):
            raise Skip("numbers too great, or none")
        return {i: value for i, value in values.items() if i not in below}

    def _empty_windows(self, values: Mapping[int, Any]) -> set[int]:
        """The values of poolings that have windows beyond the image: -FLT_MAX or NaN there."""
        return {
            i
            for node in self.graph.nodes
            if node.type == "Pooling" and not any(wild(values[j]) for j in node.bottoms)
            for i in node.tops
            if wild(values[i])
        }

    def _below(self, empty: set[int]) -> set[int]:
        """What depends on such values: nothing is said of its numbers."""
        below: set[int] = set()
        for node in self.graph.nodes:
            if (empty | below).intersection(node.bottoms):
                below.update(node.tops)
        return below

    def whole(self) -> None:
        """Skip where nothing is said of some values, or where they are no numbers."""
        if any(wild(value) for value in self.truth.values()):
            raise Skip("a pooling window beyond the image")

    @cached_property
    def blurred(self) -> list[dict[int, Any]]:
        """The reference's values with rounding of float32 played out, a few times."""
        points = (Point(self.params, self.fed, 3e-7, salt) for salt in (1, 2, 3))
        return [self.evaluate(at) for at in points]

    @property
    def started(self) -> float:
        """How much gradient backward starts from in all."""
        seeds = sum(float(np.linalg.norm(seed)) for seed in self.seeds.values())
        return seeds + sum(abs(weight) for _, weight in self.graph.losses)

    def settled(self) -> None:
        """Skip where layers draw random numbers."""
        if self.face.random:
            raise Skip("draws random numbers")

    def name(self, i: int) -> str:
        """How a value is told of."""
        value = self.graph.values[i]
        return f"{value.name} of {self.graph.nodes[value.producer].type}"

    def _random(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self.draft.seed, zlib.crc32(what.encode())])
