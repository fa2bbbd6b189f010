"""Faults that are known and being mended: what is found of these kinds is counted apart.

A kind goes when its fault has gone: a test of the fuzzer's own tells that it is no longer met.
"""

from collections.abc import Callable

from .drafts import Draft
from .face import Face

Kind = Callable[[Face, str, str], bool]


def _in_place_changes_shape(face: Face, check: str, what: str) -> bool:
    """A layer in place whose top has another shape than its bottom raises what is no message."""
    shapes = face.shapes.values
    return "raw " in what and any(
        shapes[node.tops[slot]] != shapes[node.bottoms[slot]]
        for node in face.graph.nodes
        for slot in node.in_place
    )


def _loss_read_on(face: Face, check: str, what: str) -> bool:
    """An implicit loss weight whose top a layer reads that leads to a loss."""
    return check == "caffe" and any(
        face.graph.readers[i]
        and not face.graph.nodes[face.graph.values[i].producer].layer.spec.loss_weight
        for i, _ in face.graph.losses
    )


def _in_place_read_by_others(face: Face, check: str, what: str) -> bool:
    """A blob that a layer works on in place is read by another one too: Caffe refuses that."""
    return check == "caffe" and any(
        len(face.graph.readers[node.bottoms[slot]]) > 1
        for node in face.graph.nodes
        for slot in node.in_place
    )


def _forced_yet_stopped(face: Face, check: str, what: str) -> bool:
    """``propagate_down: false`` stops gradients though ``force_backward`` overrules it in Caffe."""
    stopped = any(not all(node.layer.spec.propagate_down) for node in face.graph.nodes)
    return face.forced() and stopped and check in ("gradients", "caffe")


KINDS: dict[str, Kind] = {
    "in place with another shape": _in_place_changes_shape,
    "force_backward and propagate_down: false": _forced_yet_stopped,
    "loss read on": _loss_read_on,
    "in place, read by others": _in_place_read_by_others,
}


def kind(draft: Draft, face: Face, check: str, what: str) -> str | None:
    """The known fault that a failure is of, if any."""
    return next((name for name, fits in KINDS.items() if fits(face, check, what)), None)
