"""The table of layer cases. A row earns the whole battery of ``test_layers.py``.

A row is a layer with its settings and what it is fed; ``test_layers.py`` compares it with
``reference.py``. A pair of files in ``golden/layers`` is a case too, compared with what Caffe
itself made of it. Sizes along different axes differ, so that no swapped axes go unseen.
"""

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

GOLDEN = Path(__file__).parent / "golden" / "layers"


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
            if not self.graph.nodes[values[i].producer].layer.is_loss
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
        (keys,) = (
            keys
            for node, keys in zip(self.graph.nodes, self.shapes.keys, strict=True)
            if node.name == layer
        )
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


CONVOLUTION = (
    row(
        "Convolution h and w",
        "num_output: 4 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2",
        normal(2, 3, 7, 5),
    ),
    row(
        "Convolution repeated sizes",
        "num_output: 4 kernel_size: 2 kernel_size: 3 stride: 1 stride: 2 pad: 2 pad: 1 "
        "dilation: 3 dilation: 1",
        normal(2, 3, 5, 7),
    ),
    row("Convolution 0-D", "num_output: 4 kernel_size: 1", normal(2, 3)),
    row("Convolution 1-D", "num_output: 4 kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 11)),
    row(
        "Convolution 3-D",
        "num_output: 4 kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 stride: 1 "
        "pad: 0 pad: 1 pad: 0 dilation: 2 dilation: 1 dilation: 1",
        normal(2, 3, 5, 7, 4),
    ),
    row("Convolution 4-D", "num_output: 2 kernel_size: 2", normal(1, 2, 3, 4, 2, 5)),
    row(
        "Convolution group, dilation, stride",
        "num_output: 4 group: 2 kernel_size: 3 dilation: 2 stride: 2 pad: 1",
        normal(2, 6, 9, 7),
    ),
    row(
        "Convolution depthwise",
        "num_output: 10 group: 5 kernel_size: 3 pad: 1",
        normal(2, 5, 7, 6),
    ),
    row("Convolution axis 2", "num_output: 5 axis: 2 kernel_size: 3 pad: 1", normal(2, 3, 4, 7, 6)),
    row("Convolution axis -3", "num_output: 5 axis: -3 kernel_size: 3", normal(2, 3, 7, 6)),
    row(
        "Convolution of two bottoms",
        "num_output: 4 kernel_size: 3",
        normal(2, 3, 7, 5),
        normal(2, 3, 7, 5),
        tops=2,
    ),
    row(
        "Convolution without bias",
        "num_output: 4 bias_term: false kernel_size: 3",
        normal(2, 3, 7, 5),
    ),
    row(
        "Convolution stride over kernel",
        "num_output: 4 kernel_size: 2 stride: 3",
        normal(2, 3, 7, 9),
    ),
    row("Convolution whole image", "num_output: 4 kernel_h: 7 kernel_w: 5", normal(2, 3, 7, 5)),
    row(
        "Convolution wide",
        "num_output: 52 kernel_h: 5 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 0",
        normal(2, 80, 7, 5, scale=0.1),
    ),
    row(
        "Convolution wide and dilated",
        "num_output: 80 kernel_h: 2 kernel_w: 5 dilation: 2 pad: 3 bias_term: false",
        normal(2, 52, 3, 5, scale=0.1),
    ),
)

DECONVOLUTION = (
    row("Deconvolution plain", "num_output: 4 kernel_size: 3 stride: 2", normal(2, 3, 5, 4)),
    row(
        "Deconvolution h and w",
        "num_output: 4 kernel_h: 3 kernel_w: 4 stride_h: 1 stride_w: 3 pad_h: 2 pad_w: 1",
        normal(2, 3, 5, 4),
    ),
    row(
        "Deconvolution group",
        "num_output: 6 group: 2 kernel_size: 3 stride: 2 pad: 1",
        normal(2, 4, 5, 3),
    ),
    row(
        "Deconvolution depthwise",
        "num_output: 5 group: 5 kernel_size: 4 stride: 2 pad: 1 bias_term: false",
        normal(2, 5, 4, 3),
    ),
    row(
        "Deconvolution group and dilation",
        "num_output: 3 group: 3 kernel_h: 2 kernel_w: 3 dilation: 3 stride: 2 pad: 2",
        normal(2, 6, 5, 4),
    ),
    row(
        "Deconvolution dilation",
        "num_output: 4 kernel_size: 3 dilation: 2 stride: 3",
        normal(2, 3, 5, 4),
    ),
    row(
        "Deconvolution stride over kernel",
        "num_output: 4 kernel_size: 2 stride: 3",
        normal(2, 3, 5, 4),
    ),
    row(
        "Deconvolution pad over kernel",
        "num_output: 4 kernel_size: 2 pad: 3 stride: 3",
        normal(2, 3, 5, 4),
    ),
    row("Deconvolution 1-D", "num_output: 4 kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7)),
    row(
        "Deconvolution 3-D",
        "num_output: 4 kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 2 stride: 1 stride: 3",
        normal(2, 3, 4, 2, 3),
    ),
    row(
        "Deconvolution axis 2",
        "num_output: 5 axis: 2 kernel_size: 3 stride: 2",
        normal(2, 3, 4, 5, 2),
    ),
    row(
        "Deconvolution of two bottoms",
        "num_output: 4 kernel_size: 3",
        normal(2, 3, 5, 4),
        normal(2, 3, 5, 4),
        tops=2,
    ),
)

CROP = (
    row("Crop default", "", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop one offset", "offset: 2", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop two offsets", "offset: 3 offset: 1", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row(
        "Crop axis 1",
        "axis: 1 offset: 1 offset: 0 offset: 2",
        normal(2, 5, 7, 6),
        normal(4, 3, 4, 2),
    ),
    row("Crop axis 0", "axis: 0 offset: 1", normal(3, 5, 7, 6), normal(2, 3, 4, 5)),
    row("Crop axis 3", "axis: 3 offset: 2", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop axis -1", "axis: -1 offset: 1", normal(2, 3, 7, 5), normal(4, 6, 4, 2)),
    row("Crop of rank 2", "axis: 1 offset: 3", normal(2, 7), normal(5, 3)),
    row("Crop of rank 5", "axis: 2 offset: 1", normal(2, 3, 4, 7, 5), normal(3, 2, 3, 6, 2)),
)

IM2COL = (
    row(
        "Im2col h and w",
        "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2",
        normal(2, 3, 7, 5),
    ),
    row("Im2col dilation", "kernel_size: 2 dilation: 3 stride: 2 pad: 1", normal(2, 3, 7, 5)),
    row("Im2col 1-D", "kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7)),
    row(
        "Im2col 3-D",
        "kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 stride: 1 dilation: 2 "
        "dilation: 1 dilation: 1",
        normal(2, 3, 5, 7, 4),
    ),
    row("Im2col axis 2", "axis: 2 kernel_size: 3", normal(2, 3, 4, 7, 5)),
    row("Im2col axis -3", "axis: -3 kernel_size: 3", normal(2, 3, 7, 5)),
    row("Im2col axis 0", "axis: 0 kernel_size: 2", normal(3, 7, 5)),
)

POOLING = (
    row("Pooling MAX", "kernel_size: 2 stride: 2", normal(2, 3, 7, 5)),
    row("Pooling MAX overlapping", "kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7, 6)),
    row("Pooling MAX last window clipped", "kernel_size: 2 stride: 2 pad: 1", normal(2, 3, 7, 5)),
    row("Pooling MAX FLOOR", "kernel_size: 3 stride: 2 round_mode: FLOOR", normal(2, 3, 6, 8)),
    row(
        "Pooling MAX FLOOR clipped",
        "kernel_size: 2 stride: 3 pad: 1 round_mode: FLOOR",
        normal(2, 3, 6, 5),
    ),
    row(
        "Pooling MAX h and w",
        "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 2 pad_w: 1",
        normal(2, 3, 7, 5),
    ),
    row("Pooling MAX mask", "kernel_size: 3 stride: 2", normal(2, 3, 7, 5), tops=2),
    row("Pooling MAX mask, ties", "kernel_size: 3 pad: 1", whole(2, 3, 7, 5), tops=2, smooth=False),
    row("Pooling MAX wide", "kernel_size: 5 stride: 2 pad: 2", normal(2, 3, 9, 7), tops=2),
    row(
        "Pooling MAX wide, ties",
        "kernel_h: 3 kernel_w: 6 stride: 2 pad: 2",
        whole(2, 3, 7, 8),
        tops=2,
        smooth=False,
    ),
    row("Pooling MAX wide, clipped", "kernel_size: 5 stride: 4 pad: 3", normal(2, 3, 6, 7)),
    row("Pooling MAX over the image", "kernel_size: 4 stride: 2", normal(2, 3, 3, 7), tops=2),
    row("Pooling MAX global", "global_pooling: true", normal(2, 3, 7, 5), tops=2),
    row("Pooling AVE", "pool: AVE kernel_size: 2 stride: 2", normal(2, 3, 6, 4)),
    row("Pooling AVE overhang", "pool: AVE kernel_size: 3 stride: 2", normal(2, 3, 6, 8)),
    row("Pooling AVE pad", "pool: AVE kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7, 6)),
    row("Pooling AVE clipped", "pool: AVE kernel_size: 2 stride: 2 pad: 1", normal(2, 3, 7, 5)),
    row(
        "Pooling AVE h and w",
        "pool: AVE kernel_h: 4 kernel_w: 2 stride_h: 3 stride_w: 1 pad_h: 3 pad_w: 0",
        normal(2, 3, 7, 5),
    ),
    row(
        "Pooling AVE FLOOR",
        "pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR",
        normal(2, 3, 6, 8),
    ),
    row("Pooling AVE wide", "pool: AVE kernel_size: 6 stride: 5 pad: 1", normal(2, 3, 9, 8)),
    row("Pooling AVE over the image", "pool: AVE kernel_size: 4 stride: 3", normal(2, 3, 7, 2)),
    row("Pooling AVE global", "pool: AVE global_pooling: true", normal(2, 3, 7, 5)),
    row("Pooling STOCHASTIC", "pool: STOCHASTIC kernel_size: 3 stride: 2", positive(2, 3, 6, 8)),
    row("Pooling STOCHASTIC global", "pool: STOCHASTIC global_pooling: true", positive(2, 3, 4, 5)),
    row("SPP", "pyramid_height: 2", normal(2, 3, 7, 5)),
    row("SPP of one level", "pyramid_height: 1", normal(2, 3, 7, 5)),
    row("SPP of four levels", "pyramid_height: 4", normal(2, 3, 15, 23)),
    row("SPP ties", "pyramid_height: 3", whole(2, 3, 7, 12), smooth=False),
    row("SPP AVE", "pool: AVE pyramid_height: 3", normal(2, 3, 7, 12)),
    row("SPP AVE of one level", "pool: AVE pyramid_height: 1", normal(2, 3, 7, 5)),
    row("SPP STOCHASTIC", "pool: STOCHASTIC pyramid_height: 3", positive(2, 3, 8, 4)),
)

ACTIVATION = (
    row("ReLU", "", normal(2, 3, 7, 5)),
    row("ReLU leaky", "negative_slope: 0.25", normal(2, 3, 7, 5)),
    row("ReLU of rank 0", "negative_slope: 0.25", normal()),
    row("Power 1", "", normal(2, 3, 7, 5)),
    row("Power affine", "scale: -2 shift: 0.5", normal(2, 3, 7, 5)),
    row("Power 2", "power: 2 scale: 0.5 shift: -0.25", normal(2, 3, 7, 5)),
    row("Power 3", "power: 3 scale: -1.5", normal(2, 3, 7, 5)),
    row("Power 0.5", "power: 0.5 scale: 2 shift: 0.5", positive(2, 3, 7)),
    row("Power -1", "power: -1", positive(2, 3)),
    row("Power 0", "power: 0 scale: 2", normal(2, 3, 7, 5)),
    row("Power of scale 0", "power: 3 scale: 0 shift: 2", normal(2, 3, 7, 5)),
    row("Dropout", "", normal(2, 3, 7, 5)),
    row("Dropout ratio", "dropout_ratio: 0.25", normal(2, 3)),
    row("PReLU", "", normal(2, 3, 7, 5)),
    row("PReLU shared", "channel_shared: true", normal(2, 3, 7, 5)),
    row("PReLU of rank 2", "filler { value: 0.1 }", normal(2, 7)),
    row("PReLU of rank 5", "", normal(2, 3, 4, 2, 5)),
    row("ELU", "", normal(2, 3, 7, 5)),
    row("ELU alpha", "alpha: 0.3", normal(2, 7, scale=5)),
    row("Sigmoid", "", normal(2, 3, 7, 5)),
    row("Sigmoid of great numbers", "", normal(2, 7, scale=10)),
    row("Swish", "", normal(2, 3, 7, 5)),
    row("Swish beta", "beta: -1.5", normal(2, 7)),
    row("TanH", "", normal(2, 3, 7, 5)),
    row("TanH of rank 0", "", normal()),
    row("AbsVal", "", normal(2, 3, 7, 5)),
    row("AbsVal of rank 1", "", normal(7)),
    row("BNLL", "", normal(2, 3, 7, 5)),
    row("BNLL of great numbers", "", normal(2, 7, scale=200)),
    row("Exp", "", normal(2, 3, 7, 5)),
    row("Exp of base 2", "base: 2 scale: -0.5 shift: 3", normal(2, 3, 7)),
    row("Exp of base e", "scale: 2 shift: -0.5", normal(2, 7)),
    row("Log", "", positive(2, 3, 7, 5)),
    row("Log of base 10", "base: 10 scale: 2 shift: 0.5", positive(2, 3, 7)),
    row("Log of base 0.5", "base: 0.5 scale: -1 shift: 3", positive(2, 7)),
    row("Clip", "min: -0.5 max: 0.25", normal(2, 3, 7, 5)),
    row("Clip to one number", "min: 2 max: 2", normal(2, 7)),
    row("Threshold", "", normal(2, 3, 7, 5)),
    row("Threshold 0.25", "threshold: 0.25", normal(2, 7)),
)

NORMALIZATION = (
    row("LRN across", "local_size: 3 alpha: 2 beta: 0.6 k: 2", normal(2, 7, 3, 5)),
    row("LRN across all channels", "local_size: 9 alpha: 2", normal(2, 3, 7, 5)),
    row("LRN across one channel", "local_size: 1 alpha: 0.5", normal(2, 3, 7, 5)),
    row(
        "LRN within",
        "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 beta: 0.6",
        normal(2, 3, 7, 5),
    ),
    row(
        "LRN within, without k",
        "norm_region: WITHIN_CHANNEL local_size: 5 alpha: 2 k: 7",
        normal(2, 3, 2, 4),
    ),
    row("BatchNorm", "eps: 0.1", normal(2, 3, 7, 5)),
    row(
        "BatchNorm in TRAIN",
        "moving_average_fraction: 0.7 eps: 0.1",
        normal(2, 3, 7, 5),
        more="phase: TRAIN",
    ),
    row(
        "BatchNorm in TRAIN, of rank 2", "", normal(5, 3), more="phase: TRAIN param { lr_mult: 0 }"
    ),
    row("BatchNorm in TRAIN, of rank 1", "", normal(7), more="phase: TRAIN"),
    row("BatchNorm in TRAIN, of one item", "eps: 2", normal(1, 3), more="phase: TRAIN"),
    row(
        "BatchNorm in TRAIN, of running statistics",
        "use_global_stats: true",
        normal(2, 3, 5),
        more="phase: TRAIN",
    ),
    row("BatchNorm in TEST, of the batch", "use_global_stats: false", normal(2, 3, 7, 5)),
    row("MVN", "", normal(2, 3, 7, 5)),
    row("MVN across channels", "across_channels: true", normal(2, 3, 7, 5)),
    row("MVN mean only", "normalize_variance: false", normal(2, 3, 7, 5)),
    row(
        "MVN mean only, across channels",
        "normalize_variance: false across_channels: true",
        normal(2, 3, 7),
    ),
    row("MVN of rank 2", "across_channels: true", normal(2, 7)),
    row("MVN of great eps", "eps: 0.5", normal(2, 3, 7, 5), smooth=False),
)

COMMON = (
    row("InnerProduct", "num_output: 4", normal(2, 3, 7, 5)),
    row("InnerProduct without bias", "num_output: 4 bias_term: false", normal(2, 7)),
    row("InnerProduct transpose", "num_output: 4 transpose: true", normal(2, 3, 5)),
    row("InnerProduct axis 2", "num_output: 4 axis: 2", normal(2, 3, 7, 5)),
    row(
        "InnerProduct axis -1, transpose",
        "num_output: 11 axis: -1 transpose: true",
        normal(2, 3, 7),
    ),
    row("InnerProduct axis 0", "num_output: 4 axis: 0", normal(2, 3, 5)),
    row("Embed", "num_output: 5 input_dim: 11", indices(2, 3, 7, below=11)),
    row("Embed without bias", "num_output: 5 input_dim: 7 bias_term: false", indices(3, below=7)),
    row("Embed of an image", "num_output: 4 input_dim: 3", indices(2, 3, 7, 5, below=3)),
    row("Embed of a scalar", "num_output: 5 input_dim: 7", indices(below=7)),
    row("Scale", "", normal(2, 3, 7, 5)),
    row("Scale with bias", "bias_term: true", normal(2, 3, 7, 5)),
    row("Scale two axes", "num_axes: 2 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale all axes", "num_axes: -1 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale no axis", "num_axes: 0 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale axis 0", "axis: 0 num_axes: 2", normal(2, 3, 7, 5)),
    row("Scale axis -1", "axis: -1 bias_term: true", normal(2, 3, 7, 5)),
    row("Scale axis 2 of rank 3", "axis: 2", normal(2, 3, 7)),
    row("Scale by a bottom", "axis: 1", normal(2, 3, 7, 5), normal(3, 7)),
    row(
        "Scale by a bottom, with bias", "axis: -2 bias_term: true", normal(2, 3, 7, 5), normal(7, 5)
    ),
    row("Scale by a whole bottom", "axis: 0", normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row("Scale by a scalar bottom", "axis: 3 bias_term: true", normal(2, 3, 7, 5), normal()),
    row("Bias", "", normal(2, 3, 7, 5)),
    row("Bias two axes", "axis: 2 num_axes: 2", normal(2, 3, 7, 5)),
    row("Bias all axes", "num_axes: -1", normal(2, 3, 7, 5)),
    row("Bias no axis", "num_axes: 0", normal(2, 3)),
    row("Bias by a bottom", "axis: 0", normal(2, 3, 7, 5), normal(2, 3)),
    row("Bias by a scalar bottom", "", normal(2, 3, 7, 5), normal()),
)

UTILITY = (
    row("Eltwise SUM", "", normal(2, 3, 7, 5), normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row("Eltwise SUM coeff", "coeff: -1 coeff: 0.5", normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row(
        "Eltwise SUM of one twice",
        "coeff: 1 coeff: 3 coeff: -2",
        normal(2, 3),
        normal(2, 3),
        bottoms="aba",
    ),
    row(
        "Eltwise PROD",
        "operation: PROD",
        normal(2, 3, 7, 5),
        normal(2, 3, 7, 5),
        normal(2, 3, 7, 5),
    ),
    row("Eltwise PROD of one twice", "operation: PROD", normal(2, 3), normal(2, 3), bottoms="aab"),
    row(
        "Eltwise PROD by division",
        "operation: PROD stable_prod_grad: false",
        positive(2, 3, 7, 5),
        positive(2, 3, 7, 5),
        bottoms="bab",
    ),
    row(
        "Eltwise MAX", "operation: MAX", normal(2, 3, 7, 5), normal(2, 3, 7, 5), normal(2, 3, 7, 5)
    ),
    row(
        "Eltwise MAX of one twice",
        "operation: MAX",
        normal(2, 3, 7),
        normal(2, 3, 7),
        bottoms="aab",
    ),
    row("Concat", "", normal(2, 3, 7, 5), normal(2, 4, 7, 5), normal(2, 1, 7, 5)),
    row("Concat axis 0", "axis: 0", normal(2, 3, 7, 5), normal(4, 3, 7, 5)),
    row("Concat axis -1", "axis: -1", normal(2, 3, 7, 5), normal(2, 3, 7, 4)),
    row("Concat axis -2", "axis: -2", normal(2, 3, 7, 5), normal(2, 3, 6, 5)),
    row("Concat concat_dim", "concat_dim: 2", normal(2, 3, 7, 5), normal(2, 3, 6, 5)),
    row("Concat one bottom", "", normal(2, 3, 7, 5)),
    row("Concat one bottom twice", "axis: 1", normal(2, 3), bottoms="aa"),
    row("Split", "", normal(2, 3, 7, 5), tops=3),
    row("Silence", "", normal(2, 3, 7, 5), normal(5), tops=0),
    row("Softmax", "", normal(2, 3, 7, 5)),
    row("Softmax axis 2", "axis: 2", normal(2, 3, 7, 5)),
    row("Softmax axis -1", "axis: -1", normal(2, 3, 7, 5)),
    row("Softmax axis 0", "axis: 0", normal(2, 3)),
    row("Softmax of great numbers", "", normal(2, 3, 7, 5, scale=1000)),
    *(
        row(f"Reduction {how}", f"operation: {how}", normal(2, 3, 7, 5))
        for how in (
            "SUM axis: 1 coeff: -2",
            "SUM axis: 2",
            "MEAN axis: -1 coeff: 3",
            "MEAN",
            "ASUM axis: 1",
            "ASUM axis: 3 coeff: 0.5",
            "SUMSQ axis: -2 coeff: -0.5",
        )
    ),
    row("Reduction of rank 1", "operation: SUMSQ axis: -1 coeff: 0.25", normal(7)),
    row("ArgMax", "", normal(2, 3, 7, 5), smooth=False),
    row("ArgMax of rank 1", "out_max_val: true", normal(7), smooth=False),
    row("ArgMax of rank 2, ties", "top_k: 4 out_max_val: true", whole(7, 5), smooth=False),
    row(
        "ArgMax of rank 4, ties",
        "top_k: 11 out_max_val: true",
        whole(2, 3, 7, 5),
        smooth=False,
    ),
    row("ArgMax axis 1", "axis: 1", whole(2, 3, 7, 5), smooth=False),
    row("ArgMax axis 1, values", "axis: 1 out_max_val: true", normal(2, 3, 7, 5), smooth=False),
    row("ArgMax axis -2, ties", "axis: -2 top_k: 5", whole(2, 3, 7, 5), smooth=False),
    row("ArgMax axis 0", "axis: 0 top_k: 2", whole(3, 7), smooth=False),
    row(
        "ArgMax axis -1, values",
        "axis: -1 top_k: 5 out_max_val: true",
        normal(2, 3, 7, 5),
        smooth=False,
    ),
)

ARRANGEMENT = (
    row("Flatten", "", normal(2, 3, 7, 5)),
    row("Flatten axes 1 to 2", "end_axis: 2", normal(2, 3, 7, 5)),
    row("Flatten axes -3 to -2", "axis: -3 end_axis: -2", normal(2, 3, 7, 5)),
    row("Flatten axis 0", "axis: 0", normal(2, 3, 7)),
    row("Flatten one axis", "axis: 2 end_axis: 2", normal(2, 3, 7, 5)),
    row("Flatten no axis", "axis: 2 end_axis: 1", normal(2, 3, 7, 5)),
    *(
        row(f"Reshape {how}", how, normal(2, 3, 7, 5))
        for how in (
            "shape { dim: 0 dim: -1 dim: 7 }",
            "shape { dim: 5 dim: 7 dim: 3 dim: 2 }",
            "shape { dim: -1 }",
            "shape { dim: 0 dim: 0 dim: 5 dim: 7 dim: -1 }",
            "shape { dim: 7 dim: -1 } axis: 1",
            "shape { dim: -1 dim: 3 } axis: 1 num_axes: 2",
            "shape { dim: 35 } axis: -3 num_axes: 2",
            "shape { dim: 1 dim: 1 } axis: -1",
            "shape { dim: 1 } axis: 1 num_axes: 0",
            "shape { dim: -1 dim: 0 } axis: 1 num_axes: 2",
            "axis: 4",
        )
    ),
    row("Reshape to a scalar", "shape { }", normal(1, 1)),
    row("Slice", "", normal(2, 6, 7, 5), tops=3),
    row("Slice points", "slice_point: 1 slice_point: 4", normal(2, 7, 3, 5), tops=3),
    row("Slice axis -1", "axis: -1 slice_point: 2", normal(2, 3, 7, 5), tops=2),
    row("Slice axis 0", "axis: 0", normal(6, 3, 7, 5), tops=2),
    row("Slice slice_dim", "slice_dim: 2 slice_point: 5", normal(2, 3, 7, 5), tops=2),
    row("Slice with an empty part", "axis: 1 slice_point: 2 slice_point: 7", normal(2, 7), tops=3),
    row("Slice one part", "", normal(2, 3, 7, 5)),
    row("Tile", "tiles: 2", normal(2, 3, 7, 5)),
    row("Tile axis 0", "axis: 0 tiles: 3", normal(2, 3, 7, 5)),
    row("Tile axis -1", "axis: -1 tiles: 3", normal(2, 3, 7, 5)),
    row("Tile once", "axis: 1 tiles: 1", normal(2, 3)),
    row("BatchReindex", "", normal(3, 2, 7, 5), indices(5, below=3)),
    row("BatchReindex of rank 1", "", normal(3), indices(7, below=3)),
    row("BatchReindex one twice", "", normal(2, 3, 7), label(1, 2)),
)

RECURRENT = (
    row("LSTM", "num_output: 5", normal(7, 2, 3), flags(7, 2)),
    row("LSTM of images", "num_output: 5", normal(4, 2, 3, 2), flags(4, 2)),
    row("LSTM static", "num_output: 2", normal(4, 3, 5), flags(4, 3), normal(3, 7)),
    row(
        "LSTM exposed",
        "num_output: 3 expose_hidden: true",
        normal(5, 2, 7),
        flags(5, 2),
        states(1, 2, 3),
        states(1, 2, 3),
        tops=3,
        unheard=("y1", "y2"),
    ),
    row(
        "LSTM static, exposed",
        "num_output: 3 expose_hidden: true",
        normal(4, 2, 5),
        flags(4, 2),
        normal(2, 3, 2),
        states(1, 2, 3),
        states(1, 2, 3),
        tops=3,
        unheard=("y1", "y2"),
    ),
    row("RNN", "num_output: 5", normal(7, 2, 3), flags(7, 2)),
    row("RNN static", "num_output: 2", normal(4, 3, 5, 2), flags(4, 3), normal(3, 7)),
    row(
        "RNN static, exposed",
        "num_output: 3 expose_hidden: true",
        normal(5, 2, 7),
        flags(5, 2),
        normal(2, 4),
        states(1, 2, 3),
        tops=2,
        unheard=("y1",),
    ),
    row("LSTMUnit", "", normal(1, 5, 3), normal(1, 5, 12), flags(1, 5), tops=2),
    row("LSTMUnit of one unit", "", normal(1, 7, 1), normal(1, 7, 4), flags(1, 7), tops=2),
)

# A row's layer has bottoms; this one has none.
PARAMETER = (
    Case(
        "Parameter plus a blob",
        """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape {
            dim: 2 dim: 3 } } }
        layer { name: "y" type: "Eltwise" bottom: "x" bottom: "p" top: "y" eltwise_param {
            operation: PROD } }
        """,
        {"x": normal(2, 3)},
    ),
    Case(
        "Parameter of rank 4, pooled",
        """
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape {
            dim: 2 dim: 3 dim: 7 dim: 5 } } }
        layer { name: "y" type: "Pooling" bottom: "p" top: "y" pooling_param { kernel_size: 2 } }
        """,
    ),
)

LOSS = (
    row("SoftmaxWithLoss", "", normal(2, 3, 7, 5), labels(2, 1, 7, 5, classes=3)),
    row("SoftmaxWithLoss of rank 2", "", normal(7, 5), labels(7, classes=5)),
    row("SoftmaxWithLoss automatic top", "", normal(7, 5), labels(7, 1, classes=5), tops=0),
    row(
        "SoftmaxWithLoss probabilities", "", normal(2, 3, 7, 5), labels(2, 7, 5, classes=3), tops=2
    ),
    row(
        "SoftmaxWithLoss two weights",
        "",
        normal(2, 3, 7, 5),
        labels(2, 7, 5, classes=3),
        tops=2,
        more="loss_weight: 0.5 loss_weight: 0",
    ),
    row("SoftmaxWithLoss axis 2", "axis: 2", normal(2, 3, 7, 5), labels(2, 3, 5, classes=7)),
    row("SoftmaxWithLoss axis -1", "axis: -1", normal(2, 3, 7, 5), labels(2, 3, 7, classes=5)),
    *(
        row(
            f"SoftmaxWithLoss {how}",
            "",
            normal(2, 3, 5),
            labels(2, 5, classes=3, ignore=255),
            more=f"loss_weight: 3 loss_param {{ ignore_label: 255 {how} }}",
        )
        for how in (
            "",
            "normalization: FULL",
            "normalization: VALID",
            "normalization: BATCH_SIZE",
            "normalization: NONE",
            "normalize: true",
            "normalize: false",
            "normalize: true normalization: NONE",
        )
    ),
    row(
        "SoftmaxWithLoss VALID, none ignored",
        "",
        normal(2, 3, 5),
        labels(2, 5, classes=3),
        more="loss_param { normalization: VALID }",
    ),
    row(
        "SoftmaxWithLoss FULL, none ignored",
        "",
        normal(2, 3, 5),
        labels(2, 5, classes=3),
        more="loss_param { normalization: FULL }",
    ),
    row(
        "SoftmaxWithLoss ignores a class",
        "",
        normal(2, 3, 5),
        labels(2, 5, classes=3),
        more="loss_param { ignore_label: 1 }",
    ),
    row(
        "SoftmaxWithLoss ignores -1",
        "",
        normal(2, 3, 5),
        labels(2, 5, classes=3, ignore=-1),
        more="loss_param { ignore_label: -1 }",
    ),
    row(
        "SoftmaxWithLoss ignores all",
        "",
        normal(2, 3, 5),
        label(255, 2, 5),
        more="loss_param { ignore_label: 255 }",
    ),
    row(
        "SoftmaxWithLoss of great numbers",
        "",
        normal(2, 3, 7, 5, scale=200),
        labels(2, 7, 5, classes=3),
        smooth=False,
    ),
    row(
        "InfogainLoss",
        "",
        normal(2, 3, 7, 5),
        labels(2, 1, 7, 5, classes=3),
        fixed(1, 1, 3, 3),
        tops=2,
    ),
    row(
        "InfogainLoss of an odd matrix",
        "",
        normal(2, 3, 7, 5),
        labels(2, 7, 5, classes=3),
        fixed(1, 3, 1, 3),
    ),
    row("InfogainLoss of rank 2", "", normal(7, 5), labels(7, classes=5), fixed(25), tops=0),
    row(
        "InfogainLoss axis -1",
        "axis: -1",
        normal(2, 3, 7, 5),
        labels(2, 3, 7, classes=5),
        fixed(5, 5),
        more="loss_weight: 3 loss_param { normalization: FULL }",
    ),
    *(
        row(
            f"InfogainLoss {how}",
            "",
            normal(2, 3, 5),
            labels(2, 5, classes=3, ignore=255),
            fixed(3, 3),
            more=f"loss_param {{ ignore_label: 255 normalization: {how} }}",
        )
        for how in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    row("MultinomialLogisticLoss", "", positive(7, 5), labels(7, classes=5)),
    row(
        "MultinomialLogisticLoss of an image",
        "",
        positive(5, 3, 1, 2),
        labels(5, 1, classes=6),
        more="loss_weight: 3",
    ),
    row("EuclideanLoss", "", normal(2, 3, 7, 5), normal(2, 3, 7, 5)),
    row("EuclideanLoss of other axes", "", normal(2, 3, 7, 5), normal(2, 7, 15)),
    row("EuclideanLoss automatic top", "", normal(7), normal(7), tops=0, more="loss_weight: 3"),
    row(
        "ContrastiveLoss",
        "margin: 100",
        normal(7, 5, scale=30),
        normal(7, 5, scale=30),
        labels(7, classes=2),
    ),
    row(
        "ContrastiveLoss legacy",
        "margin: 10 legacy_version: true",
        normal(7, 5),
        normal(7, 5, 1, 1),
        labels(7, 1, classes=2),
    ),
    row(
        "ContrastiveLoss beyond the margin",
        "margin: 0.5",
        normal(7, 5, scale=30),
        normal(7, 5, scale=30),
        label(0, 7),
        more="loss_weight: 3",
    ),
    row("HingeLoss", "", normal(7, 5), labels(7, classes=5)),
    row("HingeLoss L2", "norm: L2", normal(7, 5), labels(7, 1, classes=5), more="loss_weight: 3"),
    row("HingeLoss of an image", "norm: L2", normal(7, 2, 1, 3), labels(7, classes=6)),
    row("SigmoidCrossEntropyLoss", "", normal(2, 3, 7, 5), fixed(2, 3, 7, 5)),
    row("SigmoidCrossEntropyLoss of other axes", "", normal(2, 3, 7, 5), fixed(2, 7, 15)),
    row("SigmoidCrossEntropyLoss of great numbers", "", normal(7, 5, scale=1000), fixed(7, 5)),
    *(
        row(
            f"SigmoidCrossEntropyLoss {how}",
            "",
            normal(7, 3, 5),
            labels(7, 3, 5, classes=2, ignore=-1),
            more=f"loss_weight: 3 loss_param {{ ignore_label: -1 {how} }}",
        )
        for how in (
            "",
            "normalization: FULL",
            "normalization: VALID",
            "normalization: BATCH_SIZE",
            "normalization: NONE",
            "normalize: true",
            "normalize: false",
            "normalize: true normalization: NONE",
        )
    ),
    row("Accuracy", "", normal(7, 3), labels(7, classes=3)),
    row("Accuracy of an image", "", normal(2, 3, 7, 5), labels(2, 1, 7, 5, classes=3)),
    row(
        "Accuracy top 2, by class",
        "top_k: 2",
        normal(2, 5, 7, 3),
        labels(2, 7, 3, classes=5),
        tops=2,
    ),
    row("Accuracy top of all", "top_k: 3", normal(2, 3, 7, 5), labels(2, 7, 5, classes=3), tops=2),
    row(
        "Accuracy ties",
        "top_k: 2",
        whole(2, 5, 7, 3),
        labels(2, 7, 3, classes=5),
        tops=2,
        smooth=False,
    ),
    row(
        "Accuracy ignore_label",
        "ignore_label: 255",
        normal(2, 3, 7, 5),
        labels(2, 7, 5, classes=3, ignore=255),
        tops=2,
    ),
    row(
        "Accuracy ignores a class",
        "ignore_label: 1",
        normal(2, 3, 7, 5),
        labels(2, 7, 5, classes=3),
        tops=2,
    ),
    row("Accuracy ignores all", "ignore_label: -1", normal(2, 3, 7, 5), label(-1, 2, 7, 5), tops=2),
    row("Accuracy absent class", "", normal(2, 3, 7, 5), label(2, 2, 7, 5), tops=2),
    row("Accuracy axis 2", "axis: 2", normal(2, 3, 7, 5), labels(2, 3, 5, classes=7), tops=2),
    row("Accuracy axis -1", "axis: -1", normal(2, 3, 7, 5), labels(2, 3, 7, classes=5)),
)

# An array of 5 axes comes channels-last from a convolution only.
CHAINS = (
    Case(
        "Softmax, Scale, Concat and Crop of rank 5",
        """
        layer { name: "in" type: "Input" top: "x" top: "z" input_param {
            shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 6 }
            shape { dim: 2 dim: 1 dim: 3 dim: 2 dim: 4 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 2 } }
        layer { name: "s" type: "Softmax" bottom: "c" top: "s" softmax_param { axis: 3 } }
        layer { name: "m" type: "Scale" bottom: "s" top: "m" scale_param { num_axes: 3 } }
        layer { name: "j" type: "Concat" bottom: "m" bottom: "c" top: "j" concat_param {
            axis: -2 } }
        layer { name: "y" type: "Crop" bottom: "j" bottom: "z" top: "y" crop_param { offset: 0
            offset: 3 offset: 1 } }
        """,
        {"x": normal(2, 3, 4, 5, 6), "z": normal(2, 1, 3, 2, 4)},
    ),
    Case(
        "Reduction, ArgMax, Slice and Tile of rank 5",
        """
        layer { name: "in" type: "Input" top: "x" input_param {
            shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 7 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 2 } }
        layer { name: "s" type: "Slice" bottom: "c" top: "s" top: "t" slice_param {
            axis: -2 slice_point: 1 } }
        layer { name: "l" type: "Tile" bottom: "t" top: "l" tile_param { axis: 3 tiles: 2 } }
        layer { name: "m" type: "ArgMax" bottom: "s" top: "m" argmax_param {
            axis: 1 out_max_val: true } }
        layer { name: "r" type: "Reduction" bottom: "l" top: "r" reduction_param {
            axis: -1 operation: SUMSQ } }
        layer { name: "q" type: "Reduction" bottom: "c" top: "q" reduction_param { axis: 3 } }
        """,
        {"x": normal(2, 3, 4, 5, 7)},
        smooth=False,
    ),
    Case(
        "SoftmaxWithLoss and Accuracy of rank 5",
        """
        layer { name: "in" type: "Input" top: "x" top: "l" input_param {
            shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 6 } shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 2 } }
        layer { name: "e" type: "SoftmaxWithLoss" bottom: "c" bottom: "l" top: "e" top: "p" }
        layer { name: "a" type: "Accuracy" bottom: "c" bottom: "l" top: "a" top: "k" }
        """,
        {"x": normal(2, 3, 4, 5, 6), "l": labels(2, 3, 4, 5, classes=4)},
    ),
    Case(
        "ReLU and Dropout in place",
        """
        layer { name: "in" type: "Input" top: "x" input_param {
            shape { dim: 2 dim: 3 dim: 7 dim: 5 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
            num_output: 4 kernel_size: 3 } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.5 } }
        layer { name: "d" type: "Dropout" bottom: "c" top: "c" }
        layer { name: "y" type: "InnerProduct" bottom: "c" top: "y" inner_product_param {
            num_output: 2 } }
        """,
        {"x": normal(2, 3, 7, 5)},
    ),
)

GOLDEN_CASES = tuple(golden(path) for path in sorted(GOLDEN.glob("*.prototxt")))

CASES = (
    *CONVOLUTION,
    *DECONVOLUTION,
    *CROP,
    *IM2COL,
    *POOLING,
    *ACTIVATION,
    *NORMALIZATION,
    *COMMON,
    *UTILITY,
    *RECURRENT,
    *PARAMETER,
    *ARRANGEMENT,
    *LOSS,
    *CHAINS,
    *GOLDEN_CASES,
)
