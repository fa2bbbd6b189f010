"""Choose the program for a batch: one of its own size, or one of a size bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from netspec.errors import LayerError, SolverError, counted, require
from netspec.frontend.shapes import Shapes
from netspec.layers.base import Shape, text
from netspec.runtime.masked_shapes import Bucketed, masked_shapes, rounded_shape, spatial
from netspec.runtime.module import Net

Given = Mapping[str, Shape]
Sized = tuple[tuple[str, Shape], ...]


class SizeBuckets:
    """Puts the batches of a net into the arrays of size buckets.

    Batches of the ``unpadded`` shapes go to a program of that size: where all are of one size,
    nothing is masked. Others go into arrays of rounded-up sizes, if all layers can work in them, so
    that few programs are compiled; results are the same to rounding.

    unpadded: the shapes of fed blobs that have a program of their own; the net's by default. A
    resumed run must keep them, for its sums to be rounded in the same way. programs: the programs
    that were needed: the shapes of their arrays, and whether they mask. sizes: those of images.
    """

    def __init__(
        self,
        net: Net,
        say: Callable[[str], None] = lambda line: None,
        unpadded: Given | None = None,
    ) -> None:
        """say: called once with how images of different sizes are handled."""
        self.net = net
        self.unpadded = unpadded or net.shapes.fed
        self.programs: set[tuple[Shapes, bool]] = set()
        self.sizes: set[Sized] = set()
        self._say = say
        self._said = False
        self._roomy: dict[Sized, Shapes | None] = {}

    def bucket(self, feeds: Mapping[str, Any], together: Sequence[Given] = ()) -> Bucketed:
        """A batch, fed blob by fed blob, as a program takes it.

        together: the shapes of batches, this one among them, that a program takes at once. Raises
        LayerError where the net cannot work at its size, and SolverError where not at all of them.
        """
        given = given_of(feeds)
        together = together or [given]
        exacts = [self.net.shapes_for(each) for each in together]
        exact = self.net.shapes_for(given)
        roomy = None
        if not all(map(self._is_unpadded, together)):
            roomy = self._room_for(_largest(together), exacts)
        if roomy is None:
            _require_same(together)
        self.sizes.add(tuple(given.items()))
        self.programs.add((roomy or exact, roomy is not None))
        if roomy is None:
            return Bucketed(feeds, exact, exact)
        room = roomy.fed
        padded = {name: _padded(array, room[name]) for name, array in feeds.items()}
        return Bucketed(padded, roomy, exact, masked_shapes(roomy).sizes(exact))

    @property
    def summary(self) -> str:
        """How many programs were needed for how many sizes."""
        programs = counted(len(self.programs), "program")
        return f"{programs} compiled for images of {counted(len(self.sizes), 'size')}"

    def _is_unpadded(self, given: Given) -> bool:
        # What is unpadded may be as a manifest has it, and lack a blob.
        return all(
            len(shape) == len(self.unpadded.get(name, ()))
            and all(shape[axis] == self.unpadded[name][axis] for axis in spatial(shape))
            for name, shape in given.items()
        )

    def _room_for(self, largest: Given, exact: Sequence[Shapes]) -> Shapes | None:
        """The shapes of the size bucket that holds all these, if the net can work in it."""
        wanted = tuple(sorted((name, rounded_shape(shape)) for name, shape in largest.items()))
        if wanted not in self._roomy:
            self._roomy[wanted] = self._masked_for(dict(wanted))
        roomy = self._roomy[wanted]
        return roomy if roomy is not None and all(map(masked_shapes(roomy).fits, exact)) else None

    def _masked_for(self, wanted: Given) -> Shapes | None:
        try:
            shapes = self.net.shapes_for(wanted)
            masked_shapes(shapes)
        except LayerError as error:
            self._say_once(f"compiled for each size of its images, as {error}")
            return None
        home = ", ".join(f"{name} {text(shape)}" for name, shape in self.unpadded.items())
        self._say_once(
            f"images differ in size; all but those of {home} are computed in arrays of rounded-up "
            "sizes, which gives the same numbers with few programs"
        )
        return shapes

    def _say_once(self, line: str) -> None:
        if not self._said:
            self._said = True
            self._say(f"{self.net.graph.file}: {line}")


def given_of(feeds: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of fed arrays, by blob."""
    return {name: tuple(array.shape) for name, array in feeds.items()}


def _largest(together: Sequence[Given]) -> dict[str, Shape]:
    """The largest size along each axis of each blob."""
    return {
        name: tuple(map(max, zip(*(each[name] for each in together), strict=True)))
        for name in together[0]
    }


def _require_same(together: Sequence[Given]) -> None:
    """Raise SolverError unless batches that a program takes as they are have one shape."""
    for given in together:
        for name, shape in given.items():
            require(
                shape == together[0][name],
                f'devices that take a batch each cannot share an update of "{name}" '
                f"{text(together[0][name])} and {text(shape)}, as this net takes no arrays larger "
                "than its blobs; make them one size (crop_size, batch_size), or give --devices 1 "
                "and an iter_size",
                SolverError,
            )


def as_shapes(lists: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Shapes of blobs that JSON has made lists of."""
    return {name: tuple(shape) for name, shape in lists.items()}


def _padded(array: Any, shape: Shape) -> Any:
    """An array padded with zeros at the end of every axis, on the host unless it fits already."""
    if array.shape == shape:
        return array
    edges = [(0, room - n) for n, room in zip(array.shape, shape, strict=True)]
    return np.pad(np.asarray(array), edges)
