"""What a row of the table is, and what its layer is fed."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netspec.frontend.graph import Graph, connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey, Shapes, infer
from netspec.layers import REGISTRY

Array = NDArray[np.float32]


GOLDEN = Path(__file__).parents[1] / "golden" / "layers"


@dataclass(frozen=True)
class Feed:
    """What a bottom is fed: an array of ``shape`` from ``make``, given a random generator.

    indices: whether the numbers have no gradient, for instance as they name things.
    """

    make: Callable[[np.random.Generator, tuple[int, ...]], NDArray]
    shape: tuple[int, ...]
    indices: bool = False


def normal(*shape: int, scale: float = 1.0) -> Feed:
    """Normal numbers."""
    return Feed(lambda rng, shape: scale * rng.standard_normal(shape), shape)


def positive(*shape: int) -> Feed:
    """Numbers between 1/2 and 2."""
    return Feed(lambda rng, shape: rng.uniform(0.5, 2, shape), shape)


def whole(*shape: int) -> Feed:
    """One of three numbers, so that there are ties everywhere."""
    return Feed(lambda rng, shape: rng.integers(-1, 2, shape), shape)


def labels(*shape: int, classes: int, ignore: int | None = None) -> Feed:
    """Class indices; about a third of them ``ignore``, if given."""

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
        indices = rng.integers(0, classes, shape)
        return indices if ignore is None else np.where(rng.random(shape) < 0.4, ignore, indices)

    return Feed(make, shape, indices=True)


def indices(*shape: int, below: int) -> Feed:
    """Indices that name rows."""
    return labels(*shape, classes=below)


def flags(*shape: int) -> Feed:
    """0 or 1: whether a sequence goes on."""
    return labels(*shape, classes=2)


def fixed(*shape: int) -> Feed:
    """Numbers between 0 and 1 that have no gradient: targets, weights."""
    return Feed(lambda rng, shape: rng.random(shape), shape, indices=True)


def states(*shape: int) -> Feed:
    """Normal numbers that no gradient reaches."""
    return Feed(lambda rng, shape: rng.standard_normal(shape), shape, indices=True)


def label(index: int, *shape: int) -> Feed:
    """One class index everywhere."""
    return Feed(lambda rng, shape: np.full(shape, index), shape, indices=True)


@dataclass(frozen=True)
class Case:
    """A net and what to feed it.

    smooth: whether finite differences hold at these inputs (not at ties and steps). unheard: tops
    whose gradients Caffe drops. golden: what Caffe made of it, by the names that the .npz gives.
    """

    name: str
    net: str
    feeds: Mapping[str, Feed] = field(default_factory=dict)
    smooth: bool = True
    unheard: tuple[str, ...] = ()
    golden: Mapping[str, NDArray] | None = None

    @cached_property
    def shapes(self) -> Shapes:
        """The shape of everything in the net."""
        return infer(self.graph)

    @cached_property
    def graph(self) -> Graph:
        """The net, connected."""
        net = parse_net(self.net, self.name)
        if self.golden is not None:
            net.message.state.phase = 0 if str(self.golden["phase"]) == "TRAIN" else 1
        return connect(net)

    @cached_property
    def inputs(self) -> dict[int, Array]:
        """Value index -> the array fed to it."""
        given = self.written_by_caffe("in/")
        return {
            self.graph.first_blobs[name]: given[name] if name in given else self._made(name)
            for name in self.graph.fed
        }

    @cached_property
    def indices(self) -> set[int]:
        """The inputs that hold indices."""
        return {self.graph.first_blobs[name] for name, feed in self.feeds.items() if feed.indices}

    @cached_property
    def params(self) -> dict[ParamKey, Array]:
        """Every learned array: Caffe's, or else random numbers; statistics are positive."""
        given = {self.param_key(n): a for n, a in self.written_by_caffe("param/").items()}
        made = {
            key: np.float32(0.5) * self._random(str(key)).standard_normal(blob.shape, np.float32)
            for key, blob in self.shapes.params.items()
        }
        kept = {key for key, blob in self.shapes.params.items() if not blob.learned}
        return {
            key: given.get(key, np.float32(0.5) + abs(array) if key in kept else array)
            for key, array in made.items()
        }

    @cached_property
    def seeds(self) -> dict[int, Array]:
        """Value index -> the gradient that backward starts from, for outputs that are no loss."""
        given = self.written_by_caffe("topdiff/")
        values = self.graph.values
        return {
            i: given[name]
            if name in given
            else self._random(f"d{name}").standard_normal(self.shapes.values[i], np.float32)
            for name, i in ((name, self.graph.blobs[name]) for name in self.graph.outputs)
            if not self.graph.nodes[values[i].producer].layer.traits.is_loss
            and (self.golden is None or self._reached(values[i].producer))
        }

    def _reached(self, node: int) -> bool:
        """Whether Caffe's backward starts from a node: its loss, or ``force_backward``, asks."""
        return self.graph.force_backward or node in self.graph.under_loss

    def written_by_caffe(self, kind: str) -> dict[str, NDArray]:
        """Caffe's arrays whose names begin with ``kind``, by the rest of their names."""
        golden = self.golden or {}
        return {name.removeprefix(kind): golden[name] for name in golden if name.startswith(kind)}

    def param_key(self, name: str) -> ParamKey:
        """The learned array that Caffe calls ``layer/index``."""
        layer, index = name.rsplit("/", 1)
        (keys,) = (each.keys for each in self.shapes.nodes if each.node.name == layer)
        return list(keys.values())[int(index)]

    def _made(self, name: str) -> Array:
        feed = self.feeds[name]
        return np.asarray(feed.make(self._random(name), feed.shape), np.float32)

    def _random(self, what: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.name}/{what}".encode()))


def row(
    name: str,
    settings: str,
    *feeds: Feed,
    bottoms: str = "",
    tops: int = 1,
    more: str = "",
    smooth: bool = True,
    unheard: tuple[str, ...] = (),
) -> Case:
    """A case of one layer, whose type is the first word of ``name``.

    The bottoms are fed blobs a, b, c, ...; ``bottoms="aab"`` reads one of them twice. Blobs of rank
    4 pass through a pooling of single pixels, which leaves them channels-last where a run prefers
    that. settings, tops, more: as for `layer_text`.
    """
    fed = dict(zip("abcde", feeds, strict=False))
    read = {blob: f"{blob}_" if len(feed.shape) == 4 else blob for blob, feed in fed.items()}
    lines = [
        input_text({blob: feed.shape for blob, feed in fed.items()}),
        *(
            f'layer {{ name: "carry_{blob}" type: "Pooling" bottom: "{blob}" top: "{carried}" '
            "pooling_param { kernel_size: 1 } }"
            for blob, carried in read.items()
            if blob != carried
        ),
        layer_text(name.split()[0], settings, [read[b] for b in bottoms or fed], tops, more),
    ]
    return Case(name, "\n".join(lines), fed, smooth, unheard)


def input_text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """An Input layer, on one line."""
    dims = (" ".join(f"dim: {n}" for n in shape) for shape in shapes.values())
    return " ".join(
        (
            'layer { name: "in" type: "Input"',
            *(f'top: "{blob}"' for blob in shapes),
            "input_param {",
            *(f"shape {{ {each} }}" for each in dims),
            "} }",
        )
    )


def layer_text(
    layer_type: str, settings: str, bottoms: Iterable[str], tops: int = 1, more: str = ""
) -> str:
    """The layer "layer", on one line; its tops are y0, y1, ...

    settings: inside its own ``..._param``. more: beside that.
    """
    param = REGISTRY[layer_type].param_field
    return " ".join(
        (
            f'layer {{ name: "layer" type: "{layer_type}"',
            *(f'bottom: "{bottom}"' for bottom in bottoms),
            *(f'top: "y{i}"' for i in range(tops)),
            f"{param} {{ {settings} }}" if settings else "",
            more,
            "}",
        )
    )


def golden(path: Path) -> Case:
    """A case that Caffe itself computed."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return Case(f"Caffe {path.stem}", path.read_text(), golden=dict(arrays))
