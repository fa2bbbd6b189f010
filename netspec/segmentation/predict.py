"""Images to label images, with any net that scores pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import GraphError, LayerError, SourceError, fail, require
from netspec.frames import Frames
from netspec.graph import Graph
from netspec.layers.base import Shape, text
from netspec.module import Net
from netspec.proto.layers_pb2 import TEST
from netspec.segmentation.palette import overlay, save, save_indexed
from netspec.shapes import Shapes
from netspec.sources.decode import MEAN as MEAN
from netspec.sources.decode import preprocess as preprocess
from netspec.sources.decode import read_image


def segment(
    net: Net,
    images: Iterable[str | Path],
    out_dir: str | Path,
    mean: float | Sequence[float] = MEAN,
    blob: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Predict each image file; write ``NAME.png`` (palette) and ``NAME_overlay.png`` to a folder.

    Returns the paths written. mean, blob: see `predict`. say: see `Frames`. Raises SourceError for
    an image that cannot be read and, before any is, if two would be written to one file.
    """
    paths = [Path(image) for image in images]
    _require_distinct(paths, Path(out_dir))
    written: list[Path] = []
    frames = Frames(net, say)
    for path in paths:
        image = read_image(path)
        try:
            labels = predict(net, image, mean, blob, frames)
        except LayerError as error:
            size = f"{image.shape[1]}x{image.shape[0]} pixels"
            raise LayerError(f"{path} ({size}): {error}") from None
        indexed, overlaid = _outputs(path, Path(out_dir))
        save_indexed(indexed, labels)
        save(overlaid, Image.fromarray(overlay(image, labels)))
        written += [indexed, overlaid]
    if len(frames.sizes) > 1:
        say(frames.told)
    return written


def predict(
    net: Net,
    image: NDArray[np.uint8],
    mean: float | Sequence[float] = MEAN,
    blob: str | None = None,
    frames: Frames | None = None,
) -> NDArray[np.int32]:
    """The class of each pixel of an image (H, W, 3) of red, green, blue, as (H, W).

    net: in phase TEST, fed one image blob by an Input or a data layer; it runs at the image's own
    size, as far as the scores need it. mean: of blue, green, red, subtracted. blob: the scores
    (1, C, H, W); by default those that a loss or Accuracy layer compares with labels, or else the
    net's only output of the image's size. frames: of the net, where they are not to be new ones.
    Raises GraphError, LayerError.
    """
    require(
        net.graph.phase == TEST,
        f'{net.graph.file}: predictions need phase TEST; load the net with phase="test"',
        GraphError,
    )
    name = image_blob(net.shapes)
    pixels = preprocess(image, mean)
    shapes = net.shapes_for(_fed_shapes(net.shapes, name, pixels.shape))
    scores = blob or score_blob(shapes, name)
    require(
        len(shapes[scores]) == 4 and shapes[scores][2:] == pixels.shape[2:],
        f'{net.graph.file}: blob "{scores}" is {text(shapes[scores])}; scores of this image are '
        f"1xCx{text(pixels.shape[2:])}",
        GraphError,
    )
    _require_enough(net.graph, name, scores)
    feeds = {fed: np.zeros(shapes.values[i], np.float32) for fed, i in _fed(net.graph).items()}
    batch = (frames or Frames(net)).frame({**feeds, name: pixels})
    blobs = net.forward_framed(batch, (scores,))
    height, width = pixels.shape[2:]
    return np.asarray(jnp.argmax(blobs[scores][0], axis=0))[:height, :width]


def _fed(graph: Graph) -> dict[str, int]:
    """Name -> value of each blob that the host feeds."""
    return {name: graph.first_blobs[name] for name in graph.fed}


def _require_enough(graph: Graph, image: str, scores: str) -> None:
    """Raise GraphError if scores are made from another fed blob than the image."""
    values, seen = [graph.blob(scores)], set()
    while values:
        value = graph.values[values.pop()]
        producer = graph.nodes[value.producer]
        require(
            not producer.layer.is_source or value.name == image,
            f'{graph.file}: "{scores}" needs "{value.name}" beside the image "{image}"',
            GraphError,
        )
        if value.producer not in seen:
            seen.add(value.producer)
            values.extend(producer.bottoms)


def image_blob(shapes: Shapes) -> str:
    """The fed blob that takes an image: (N, 3, H, W); raises GraphError unless there is one."""
    fed = {name: shapes.values[i] for name, i in _fed(shapes.graph).items()}
    found = [name for name, shape in fed.items() if len(shape) == 4 and shape[1] == 3]
    if len(found) != 1:
        listing = ", ".join(f"{name} {text(shape)}" for name, shape in fed.items())
        fail(
            f"{shapes.graph.file}: one image blob Nx3xHxW is needed; the net is fed "
            f"{listing or 'nothing'}",
            GraphError,
        )
    return found[0]


def score_blob(shapes: Shapes, image: str) -> str:
    """The blob with the scores of an image's pixels: see `predict`; raises GraphError."""
    graph = shapes.graph
    size = shapes.values[graph.first_blobs[image]][2:]
    candidates = _scored(shapes) or graph.outputs
    found = [name for name in candidates if shapes[name][2:] == size]
    if len(found) != 1:
        listing = ", ".join(f"{name} {text(shapes[name])}" for name in candidates)
        fail(
            f"{graph.file}: scores of an image of {text(size)} are needed; the net makes "
            f"{listing or 'nothing'}; if another blob holds them, name it",
            GraphError,
        )
    return found[0]


def _scored(shapes: Shapes) -> tuple[str, ...]:
    """The blobs that layers compare with labels."""
    names: dict[str, None] = {}
    for node in shapes.graph.nodes:
        labels = node.layer.labels(*(shapes.values[bottom] for bottom in node.bottoms))
        if labels is not None:
            names[shapes.graph.values[node.bottoms[labels.scores]].name] = None
    return tuple(names)


def _fed_shapes(shapes: Shapes, image: str, given: Shape) -> Mapping[str, Shape]:
    """Shapes of all fed blobs if the image has this one: labels of the old size get the new."""
    fed = {name: shapes.values[i] for name, i in _fed(shapes.graph).items()}
    count, size = fed[image][0], fed[image][2:]
    return {
        name: given
        if name == image
        else (1, *shape[1:-2], *given[2:])
        if shape[:1] == (count,) and shape[-2:] == size
        else shape
        for name, shape in fed.items()
    }


def _require_distinct(paths: Sequence[Path], out_dir: Path) -> None:
    """Raise SourceError if an output would overwrite another, or an input."""
    inputs = {path.resolve(): path for path in paths}
    owners: dict[Path, Path] = {}
    for path in paths:
        for output in _outputs(path, out_dir):
            other = owners.setdefault(output, path)
            require(
                other is path,
                f"{other} and {path} would both be written to {output}; give them other names, "
                "or segment them apart",
                SourceError,
            )
            require(
                output.resolve() not in inputs,
                f"{path} would be written to {output}, which is an image to segment; "
                "write to another folder",
                SourceError,
            )


def _outputs(path: Path, out_dir: Path) -> tuple[Path, Path]:
    """Where an image's labels and its overlay are written."""
    return out_dir / f"{path.stem}.png", out_dir / f"{path.stem}_overlay.png"
