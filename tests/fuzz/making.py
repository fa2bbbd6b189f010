"""A net in the making: the blobs that there are, and new ones on demand."""

import random

from netspec.proto.layers_pb2 import LayerParameter

from . import fields
from .drafts import Feed, Shape

# Few, so that small programs are compiled once; of different sizes along different axes.
SHAPES: dict[int, tuple[Shape, ...]] = {
    0: ((),),
    1: ((4,),),
    2: ((2, 3), (4, 6)),
    3: ((2, 3, 4), (2, 4, 3)),
    4: ((2, 3, 5, 4), (1, 4, 6, 5)),
    5: ((1, 2, 3, 4, 3),),
}
# What makes positive numbers of any.
_POSITIVE = ("Sigmoid", "Softmax", "BNLL")


class Making:
    """What `generator.draft` and the hints share while a net grows.

    shapes: the shape of each blob that a layer may read. tops: how many tops the layer being made
    must have; None where any number will do. positive: the blobs known to hold positive numbers.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.shapes: dict[str, Shape] = {}
        self.feeds: list[Feed] = []
        self.layers: list[LayerParameter] = []
        self.positive: set[str] = set()
        self.tops: int | None = None

    @property
    def rank(self) -> int:
        """How many axes the blob has that is likely to be read next."""
        return max(len(next(reversed(self.shapes.values()))), 1) if self.shapes else 4

    def setting(self, name: str) -> object:
        """A random value for a field of this name."""
        if name in fields.BY_NAME:
            return fields.BY_NAME[name](self.rng, 4)
        return self.rng.choice(fields.FLOATS)

    def some_shape(self, most: int = 5) -> Shape:
        """A shape of at most so many axes."""
        rank = self.rng.choice([rank for rank in (1, 2, 2, 3, 4, 4, 4, 5) if rank <= most])
        return self.rng.choice(SHAPES[rank])

    def feed(self, shape: Shape, kind: str = "normal", limit: float = 0) -> str:
        """A new fed blob."""
        return self._fed(Feed(f"in{len(self.feeds)}", shape, kind, limit))

    def indices(self, shape: Shape, below: int, ignore: int | None = None) -> str:
        """A new fed blob of indices, about a third of them ``ignore``."""
        return self._fed(Feed(f"in{len(self.feeds)}", shape, "indices", below, ignore))

    def _fed(self, feed: Feed) -> str:
        self.feeds.append(feed)
        if feed.smooth:
            self.shapes[feed.name] = feed.shape
        if feed.kind == "positive":
            self.positive.add(feed.name)
        return feed.name

    def blob(self, least: int = 0, rank: int | None = None, positive: bool = False) -> str:
        """A blob of at least so many axes, or exactly ``rank``: mostly one that there is."""
        fitting = [
            name
            for name, shape in self.shapes.items()
            if (len(shape) == rank if rank is not None else len(shape) >= least)
            and (not positive or name in self.positive)
            and 0 not in shape
        ]
        # The newest are the likeliest, so that nets grow deep.
        if fitting and self.rng.random() < 0.9:
            return fitting[-1] if self.rng.random() < 0.6 else self.rng.choice(fitting)
        ranks = [r for r in SHAPES if (r == rank if rank is not None else r >= least)]
        likely = [r for r in ranks if r in (2, 3, 4)]
        shape = self.rng.choice(SHAPES[self.rng.choice(ranks + 3 * likely)])
        return self.feed(shape, "positive" if positive else "normal")

    def alike(
        self, count: int, least: int = 0, rank: int | None = None, positive: bool = False
    ) -> list[str]:
        """So many blobs of one shape; now and then one of them twice."""
        first = self.blob(least, rank, positive)
        shape = self.shapes[first]
        others = [
            name
            for name, other in self.shapes.items()
            if other == shape and name != first and (not positive or name in self.positive)
        ]
        self.rng.shuffle(others)
        found = [first]
        while len(found) < count:
            if others:
                found.append(others.pop())
            elif self.rng.random() < 0.15:
                found.append(first)
            else:
                found.append(self.feed(shape, "positive" if positive else "normal"))
        return found

    def made(self, layer: LayerParameter, shapes: dict[str, Shape]) -> None:
        """Take in a layer that netspec accepts, and what shapes its tops have."""
        self.layers.append(layer)
        for name, shape in shapes.items():
            self.shapes.pop(name, None)  # the newest blobs stand last
            self.shapes[name] = shape
            self.positive.discard(name)
            if layer.type in _POSITIVE:
                self.positive.add(name)
