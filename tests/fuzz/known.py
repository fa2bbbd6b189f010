"""Faults that are known and being mended: what is found of these kinds is counted apart.

A kind goes when its fault has gone: a test of the fuzzer's own tells that it is no longer met.
"""

from collections.abc import Callable

from .drafts import Draft
from .face import Face

Kind = Callable[[Face, str, str], bool]


def _in_place_on_fed(face: Face, check: str, what: str) -> bool:
    """pycaffe's backward computes forward anew from blobs that a layer has overwritten."""
    fed = set(face.graph.fed)
    return check == "pycaffe" and any(
        face.graph.values[node.tops[slot]].name in fed
        for node in face.graph.nodes
        for slot in node.in_place
    )


KINDS: dict[str, Kind] = {
    "in place on a fed blob": _in_place_on_fed,
}


def kind(draft: Draft, face: Face, check: str, what: str) -> str | None:
    """The known fault that a failure is of, if any."""
    return next((name for name, fits in KINDS.items() if fits(face, check, what)), None)
