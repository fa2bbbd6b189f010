"""Which learned arrays two nets have in common. Caffe: ``ShareTrainedLayersWith``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from netspec.errors import LayerError, NetSpecError, blame, require
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import text
from netspec.runtime.module import Net


class SharedArray(NamedTuple):
    """A learned array that two nets have: its layer and name in both, and its key in each."""

    layer: str
    blob: str
    mine: ParamKey
    theirs: ParamKey


def shared_arrays(
    mine: Shapes,
    theirs: Shapes,
    places: tuple[str, str] = ("", " in the net to share with"),
    error: type[NetSpecError] = LayerError,
) -> Iterator[SharedArray]:
    """Pair the learned arrays of two nets, by layer name and blob name.

    Of several layers of one name the first is paired with the first, and so on.
    Raises ``error`` where shapes differ; places: what its message calls each net.
    """
    known = {(each.layer, blob): key for each in theirs.nodes for blob, key in each.keys.items()}
    for each in mine.nodes:
        node = each.node
        for blob, key in each.keys.items():
            if (each.layer, blob) not in known:
                continue
            found = known[each.layer, blob]
            here, there = mine.params[key].shape, theirs.params[found].shape
            with blame(node.place, node.who):
                require(
                    here == there,
                    f"its {blob} is {text(here)}{places[0]}, {text(there)}{places[1]}",
                    error,
                )
            yield SharedArray(each.layer, blob, key, found)


def share_variable(net: Net, key: ParamKey, variable: Any) -> None:
    """Have a variable, perhaps another net's, for an array in all layers that it belongs to."""
    for each in net.shapes.nodes:
        for blob, found in each.keys.items():
            if found == key:
                net.params[each.layer].share(blob, variable)
