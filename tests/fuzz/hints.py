"""What a layer type's bottoms must be, where random blobs would seldom do.

A type that is not named here gets any blobs, of one shape where it takes several, and settings as
its descriptor has them; what netspec refuses is tried anew. A hint gives the bottoms' names and may
set what depends on their shapes.
"""

import math
from collections.abc import Callable

from netspec.proto.layers_pb2 import LayerParameter, LossParameter

from .drafts import Shape
from .making import Making

Hint = Callable[[Making, LayerParameter], list[str]]
HINTS: dict[str, Hint] = {}


def hint(*types: str) -> Callable[[Hint], Hint]:
    """Enter a function as the hint of layer types."""

    def enter(function: Hint) -> Hint:
        HINTS.update(dict.fromkeys(types, function))
        return function

    return enter


@hint("Convolution", "Deconvolution", "Im2col")
def windows(making: Making, layer: LayerParameter) -> list[str]:
    """Images, often of two spatial axes, with as many sizes as these."""
    p, rng = layer.convolution_param, making.rng
    bottom = making.blob(least=3)
    rank = len(making.shapes[bottom]) - 1 - (p.axis % len(making.shapes[bottom]))
    pairs = rank == 2 and rng.random() < 0.3
    for name, stem in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad")):
        given = bool(getattr(p, name)) or p.HasField(f"{stem}_h") or p.HasField(f"{stem}_w")
        pair = [making.setting(f"{stem}_{axis}") for axis in "hw"]
        for field in (name, f"{stem}_h", f"{stem}_w"):
            p.ClearField(field)
        if pairs and (given or stem == "kernel"):
            setattr(p, f"{stem}_h", pair[0])
            setattr(p, f"{stem}_w", pair[1])
        elif given or stem == "kernel":
            for _ in range(rng.choice([1, max(rank, 1)])):
                getattr(p, name).append(making.setting(name))
    if p.dilation:
        del p.dilation[rng.choice([1, max(rank, 1)]) :]
    if layer.type == "Im2col":
        p.ClearField("num_output")
        return [bottom]
    channels = making.shapes[bottom][p.axis % len(making.shapes[bottom])]
    p.num_output = p.num_output or 2
    if p.group > 1 and channels % p.group == 0:
        p.num_output = p.group * rng.randint(1, 2)
    elif p.group != 1:
        p.ClearField("group")
    return [bottom] * 2 if rng.random() < 0.1 else [bottom]


@hint("Pooling")
def pooling(making: Making, layer: LayerParameter) -> list[str]:
    """An image; positive where numbers are picked in proportion."""
    p = layer.pooling_param
    for stem in ("kernel", "stride", "pad"):
        plain = "kernel_size" if stem == "kernel" else stem
        if p.HasField(f"{stem}_h") or p.HasField(f"{stem}_w"):
            p.ClearField(plain)
            for axis in "hw":
                setattr(p, f"{stem}_{axis}", making.setting(f"{stem}_{axis}"))
    if p.global_pooling:
        for name in ("kernel_size", "kernel_h", "kernel_w", "pad", "pad_h", "pad_w", "stride"):
            p.ClearField(name)
        p.ClearField("stride_h")
        p.ClearField("stride_w")
    elif not (p.kernel_size or p.kernel_h):
        p.kernel_size = making.setting("kernel_size")
    return [making.blob(rank=4, positive=p.pool == p.STOCHASTIC)]


@hint("SPP")
def pyramid(making: Making, layer: LayerParameter) -> list[str]:
    """An image, and few levels."""
    p = layer.spp_param
    p.pyramid_height = making.rng.randint(1, 2)
    return [making.blob(rank=4, positive=p.pool == p.STOCHASTIC)]


@hint("LRN")
def images(making: Making, layer: LayerParameter) -> list[str]:
    """An image; powers of negative numbers are of no interest."""
    p = layer.lrn_param
    for name in ("alpha", "beta", "k"):
        if p.HasField(name):
            setattr(p, name, abs(getattr(p, name)) or 1)
    return [making.blob(rank=4)]


@hint("Crop")
def crop(making: Making, layer: LayerParameter) -> list[str]:
    """An image and what is as small or smaller along its last axes."""
    bottom = making.blob(least=2)
    shape = making.shapes[bottom]
    small = tuple(making.rng.randint(max(1, n - 2), n) for n in shape)
    axis = layer.crop_param.axis % len(shape)
    if layer.crop_param.offset:
        del layer.crop_param.offset[making.rng.choice([1, len(shape) - axis]) :]
    return [bottom, making.feed(small)]


@hint("Log", "Power", "Exp")
def powers(making: Making, layer: LayerParameter) -> list[str]:
    """Positive numbers where others have no result."""
    if layer.type == "Exp":
        return [making.blob()]
    param = layer.log_param if layer.type == "Log" else layer.power_param
    whole = layer.type == "Power" and layer.power_param.power in (0, 1, 2, 3)
    if not whole:
        for name in ("scale", "shift"):
            if param.HasField(name):
                setattr(param, name, abs(getattr(param, name)))
    return [making.blob(positive=not whole)]


@hint("Clip")
def clip(making: Making, layer: LayerParameter) -> list[str]:
    """The smaller bound first."""
    p = layer.clip_param
    p.min, p.max = sorted((p.min, p.max))
    return [making.blob()]


@hint("Embed")
def embed(making: Making, layer: LayerParameter) -> list[str]:
    """Indices of rows."""
    p = layer.embed_param
    p.input_dim, p.num_output = making.rng.randint(2, 4), p.num_output or 2
    return [making.indices(making.some_shape(3), p.input_dim)]


@hint("BatchReindex")
def reindex(making: Making, layer: LayerParameter) -> list[str]:
    """A batch and rows of it."""
    bottom = making.blob(least=1)
    rows = making.rng.randint(1, 4)
    return [bottom, making.indices((rows,), making.shapes[bottom][0])]


@hint("Filter")
def chosen(making: Making, layer: LayerParameter) -> list[str]:
    """Blobs of a batch size, and which rows to keep."""
    bottom = making.blob(least=1)
    return [bottom, making.indices(making.shapes[bottom][:1], 2)]


@hint("Scale", "Bias")
def broadcast(making: Making, layer: LayerParameter) -> list[str]:
    """A blob, and at times what it is scaled by or shifted by."""
    bottom, p = making.blob(least=1), layer.scale_param
    if layer.type == "Bias":
        p = layer.bias_param
    if making.rng.random() < 0.6:
        return [bottom]
    shape = making.shapes[bottom]
    axis = p.axis % len(shape)
    p.ClearField("num_axes")
    end = making.rng.randint(axis, len(shape))
    return [bottom, making.feed(shape[axis:end])]


@hint("Eltwise")
def eltwise(making: Making, layer: LayerParameter) -> list[str]:
    """Blobs of one shape; one may be read twice."""
    p = layer.eltwise_param
    positive = p.operation == p.PROD and not p.stable_prod_grad
    bottoms = making.alike(making.rng.randint(2, 3), positive=positive)
    if p.operation != p.SUM:
        p.ClearField("coeff")
    while p.coeff and len(p.coeff) != len(bottoms):
        p.coeff.append(making.setting("coeff")) if len(p.coeff) < len(bottoms) else p.coeff.pop()
    return bottoms


@hint("Concat")
def concat(making: Making, layer: LayerParameter) -> list[str]:
    """Blobs that differ along the axis alone."""
    p = layer.concat_param
    if p.HasField("axis"):
        p.ClearField("concat_dim")
    first = making.blob(least=1)
    shape = list(making.shapes[first])
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    bottoms = [first]
    for _ in range(making.rng.randint(0, 2)):
        shape[axis % len(shape)] = making.rng.randint(1, 3)
        bottoms.append(making.feed(tuple(shape)) if making.rng.random() < 0.7 else first)
    return bottoms


@hint("Slice")
def slices(making: Making, layer: LayerParameter) -> list[str]:
    """A blob in as many parts as there are tops."""
    p = layer.slice_param
    if p.HasField("axis"):
        p.ClearField("slice_dim")
    points = sorted({point for point in p.slice_point if point})
    p.ClearField("slice_point")
    p.slice_point.extend(points)
    if points:
        making.tops = len(points) + 1
    return [making.blob(least=1)]


@hint("Reshape")
def reshape(making: Making, layer: LayerParameter) -> list[str]:
    """A blob whose numbers are laid out anew: whole axes, in another order, or joined."""
    bottom, p, rng = making.blob(least=1), layer.reshape_param, making.rng
    dims = list(making.shapes[bottom])
    rng.shuffle(dims)
    if rng.random() < 0.5 and len(dims) > 1:
        dims[:2] = [dims[0] * dims[1]]
    if rng.random() < 0.5:
        dims[rng.randrange(len(dims))] = -1
    if rng.random() < 0.7:
        for name in ("axis", "num_axes"):
            p.ClearField(name)
        p.shape.ClearField("dim")
        p.shape.dim.extend(dims)
    return [bottom]


@hint("Tile")
def tile(making: Making, layer: LayerParameter) -> list[str]:
    """Few tiles."""
    layer.tile_param.tiles = making.rng.randint(1, 3)
    return [making.blob(least=1)]


@hint("ArgMax", "Softmax", "Reduction", "Flatten", "PReLU", "BatchNorm", "MVN")
def with_axes(making: Making, layer: LayerParameter) -> list[str]:
    """A blob of two axes or more."""
    if layer.type == "MVN":
        layer.mvn_param.eps = max(layer.mvn_param.eps, 0)
    return [making.blob(least=2)]


@hint("InnerProduct")
def product(making: Making, layer: LayerParameter) -> list[str]:
    """A blob of one axis or more."""
    layer.inner_product_param.num_output = layer.inner_product_param.num_output or 3
    return [making.blob(least=1)]


@hint("Parameter")
def learned(making: Making, layer: LayerParameter) -> list[str]:
    """Of a shape that other blobs have."""
    del layer.parameter_param.shape.dim[:]
    layer.parameter_param.shape.dim.extend(making.some_shape(4))
    return []


@hint("LSTM", "RNN")
def sequence(making: Making, layer: LayerParameter) -> list[str]:
    """A sequence, where it goes on, perhaps a static bottom, and first states where asked for."""
    p = layer.recurrent_param
    p.num_output = making.rng.randint(1, 3)
    x = making.blob(least=3)
    steps, streams = making.shapes[x][:2]
    bottoms = [x, making.indices((steps, streams), 2)]
    if making.rng.random() < 0.3:
        bottoms.append(making.feed((streams, making.rng.randint(1, 3))))
    states = {"LSTM": 2, "RNN": 1}[layer.type] if p.expose_hidden else 0
    bottoms += [making.feed((1, streams, p.num_output)) for _ in range(states)]
    making.tops = 1 + states
    return bottoms


@hint("LSTMUnit")
def unit(making: Making, layer: LayerParameter) -> list[str]:
    """A cell, its gates and whether it goes on."""
    streams, size = making.rng.randint(1, 3), making.rng.randint(1, 3)
    gates = making.feed((1, streams, 4 * size))
    return [making.feed((1, streams, size)), gates, making.indices((1, streams), 2)]


def labelled(making: Making, layer: LayerParameter, axis: int, scores: str) -> str:
    """Labels for scores; some are ignored where the layer ignores a label."""
    shape = making.shapes[scores]
    axis %= len(shape)
    labels: Shape = shape[:axis] + shape[axis + 1 :]
    if len(labels) > 1 and making.rng.random() < 0.4:
        labels = (*labels[:axis], 1, *labels[axis:])
    for param in (layer.loss_param, layer.accuracy_param):
        if param.HasField("ignore_label"):
            return making.indices(labels, shape[axis], param.ignore_label)
    return making.indices(labels, shape[axis])


def loss_settings(making: Making, layer: LayerParameter) -> None:
    """At times, what a loss is divided by and which labels it ignores."""
    rng = making.rng
    if rng.random() < 0.4:
        layer.loss_param.ignore_label = rng.choice([-1, 0, 1, 255])
    if rng.random() < 0.3:
        layer.loss_param.normalization = rng.choice(LossParameter.NormalizationMode.values())
    if rng.random() < 0.2:
        layer.loss_param.normalize = rng.random() < 0.5


@hint("SoftmaxWithLoss")
def softmax_loss(making: Making, layer: LayerParameter) -> list[str]:
    """Scores and labels."""
    loss_settings(making, layer)
    scores = making.blob(least=2)
    return [scores, labelled(making, layer, layer.softmax_param.axis, scores)]


@hint("Accuracy")
def accuracy(making: Making, layer: LayerParameter) -> list[str]:
    """Scores and labels."""
    scores = making.blob(least=2)
    return [scores, labelled(making, layer, layer.accuracy_param.axis, scores)]


@hint("InfogainLoss")
def infogain(making: Making, layer: LayerParameter) -> list[str]:
    """Scores, labels and a matrix."""
    loss_settings(making, layer)
    layer.loss_param.ClearField("normalize")
    scores = making.blob(least=2)
    axis = layer.infogain_loss_param.axis
    classes = making.shapes[scores][axis % len(making.shapes[scores])]
    matrix = making.feed((classes, classes), kind="unit")
    return [scores, labelled(making, layer, axis, scores), matrix]


@hint("HingeLoss", "MultinomialLogisticLoss")
def row_loss(making: Making, layer: LayerParameter) -> list[str]:
    """A row of scores, or probabilities, for each label."""
    scores = making.blob(least=2, positive=layer.type != "HingeLoss")
    rows, *rest = making.shapes[scores]
    return [scores, making.indices((rows,), math.prod(rest))]


@hint("EuclideanLoss")
def distance(making: Making, layer: LayerParameter) -> list[str]:
    """Two blobs of one shape."""
    return making.alike(2, least=1)


@hint("SigmoidCrossEntropyLoss")
def entropy(making: Making, layer: LayerParameter) -> list[str]:
    """Scores, and targets of their shape."""
    loss_settings(making, layer)
    scores = making.blob(least=1)
    shape = making.shapes[scores]
    if layer.loss_param.HasField("ignore_label"):
        return [scores, making.indices(shape, 2, layer.loss_param.ignore_label)]
    return [scores, making.feed(shape, kind="unit")]


@hint("ContrastiveLoss")
def pairs(making: Making, layer: LayerParameter) -> list[str]:
    """Two rows of features, and whether they are alike."""
    first, second = making.alike(2, rank=2)
    return [first, second, making.indices(making.shapes[first][:1], 2)]
