"""What a net computes by the plain loops of the reference, in float64; and its slopes.

Where gradients stop is written here from Caffe's sources, not asked of netspec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference import RULES, batch_statistics, in_phase

from .face import Face

Array = NDArray[np.float64]
Arrays = Mapping[Any, Any]

# Bottoms that no gradient reaches: labels, indices, flags, the matrix of a loss, first states.
# "last": the last bottom.
BLOCKED: dict[str, tuple[int | str, ...]] = {
    "Accuracy": (0, 1),
    "ArgMax": (0,),
    "BatchReindex": (1,),
    "ContrastiveLoss": (2,),
    "Embed": (0,),
    "Filter": ("last",),
    "HingeLoss": (1,),
    "InfogainLoss": (1, 2),
    "LSTM": (1, "states"),
    "LSTMUnit": (2,),
    "MultinomialLogisticLoss": (1,),
    "RNN": (1, "states"),
    "SigmoidCrossEntropyLoss": (1,),
    "SoftmaxWithLoss": (1,),
}
# Tops whose gradient Caffe drops.
UNHEARD = {
    "Accuracy": (0, 1),
    "ArgMax": (0,),
    "InfogainLoss": (1,),
    "LSTM": (1, 2),
    "Pooling": (1,),
    "RNN": (1,),
    "SoftmaxWithLoss": (1,),
}
# Types whose gradient Caffe computes otherwise than as the slope.
OWN_GRADIENT = frozenset({"MVN"})
# Types whose gradient Caffe keeps finite by a small number: how far off the slope it may be.
NEARLY = {"ContrastiveLoss": 0.02}


def filtered(layer: Any, blobs: list[Array], *bottoms: Array) -> list[Array]:
    """The items that the last bottom, a number an item, chooses."""
    *items, selector = bottoms
    kept = [i for i, keep in enumerate(selector.ravel()) if keep]
    return [np.array([x[i] for i in kept]).reshape(len(kept), *x.shape[1:]) for x in items]


def missing(face: Face) -> list[str]:
    """The types in a net of which the reference has no rule."""
    types = (face.graph.nodes[n].type for n in face.computing)
    return [name for name in types if name not in RULES and name != "Filter"]


@dataclass(frozen=True)
class Point:
    """Where a net is evaluated.

    noise: what all that layers make is multiplied by (1 + noise) or (1 - noise), to see how much
    rounding can do; salt chooses which.
    """

    params: Arrays
    fed: Arrays
    noise: float = 0.0
    salt: int = 0

    def moved(self, key: Any, step: Any) -> "Point":
        """The same with one array moved."""
        name = "params" if key in self.params else "fed"
        arrays = {**getattr(self, name), key: np.asarray(getattr(self, name)[key], float) + step}
        kept = {"params": self.params, "fed": self.fed, name: arrays}
        return Point(kept["params"], kept["fed"], self.noise, self.salt)


def evaluate(
    face: Face, at: Point, base: Mapping[int, Array] | None = None, moved: Any = None
) -> dict[int, Array]:
    """Every value of a net.

    base, moved: the values before the array ``moved`` was; of these remains what does not depend
    on it, and what gradients do not go through.
    """
    values = {i: np.asarray(array, np.float64) for i, array in at.fed.items()}
    changed = {moved} if base is not None else set()
    for n in face.computing:
        node = face.graph.nodes[n]
        stopped = _stopped(face, n) if base is not None else ()
        heard = [i for slot, i in enumerate(node.bottoms) if slot not in stopped]
        if base is not None and not changed & {*heard, *face.keys[n]}:
            values.update((i, base[i]) for i in node.tops)
            continue
        bottoms = [
            base[i] if base is not None and slot in stopped else values[i]
            for slot, i in enumerate(node.bottoms)
        ]
        for slot, (i, top) in enumerate(zip(node.tops, _tops(face, n, at, bottoms), strict=False)):
            values[i] = top
            if base is not None and slot in UNHEARD.get(node.type, ()):
                values[i] = base[i]
            else:
                changed.add(i)
    return values


def _tops(face: Face, n: int, at: Point, bottoms: list[Array]) -> list[Array]:
    node = face.graph.nodes[n]
    blobs = [
        np.asarray(at.params[key], np.float64).reshape(shape)
        for key, shape in zip(face.keys[n], face.blob_shapes(n), strict=True)
    ]
    rule = filtered if node.type == "Filter" else RULES[node.type]
    tops = rule(in_phase(face.graph, node), blobs, *bottoms)
    if not at.noise:
        return tops
    rng = np.random.default_rng([at.salt, n])
    return [top * (1 + at.noise * rng.choice([-1, 1], top.shape)) for top in tops]


def kept(face: Face, at: Point, values: Mapping[int, Array]) -> dict[Any, Array]:
    """What layers leave for the next run: new statistics, and the last states of sequences.

    Those of layers that share them are left out, as each sees what the one before made of them, and
    those of layers whose bottoms are not among ``values``.
    """
    found: dict[Any, Array] = {}
    for n, node in enumerate(face.graph.nodes):
        mine = face.keys[n]
        if any(key in keys for m, keys in enumerate(face.keys) for key in mine if m != n):
            continue
        if not values.keys() >= set(node.bottoms):
            continue
        bottoms = [values[i] for i in node.bottoms]
        if node.type == "BatchNorm":
            blobs = [np.asarray(at.params[key], np.float64) for key in mine]
            made = batch_statistics(in_phase(face.graph, node), blobs, *bottoms)
            found.update(zip(mine, made, strict=True))
        elif carried := face.carried(n):
            states = _tops(face, n, at, bottoms)[len(node.tops) :]
            found.update(zip(carried, (state[0] for state in states), strict=True))
    return found


def _stopped(face: Face, n: int) -> set[int]:
    """The bottoms of a node that no gradient reaches."""
    node = face.graph.nodes[n]
    stopped = set()
    for slot in BLOCKED.get(node.type, ()):
        if slot == "last":
            stopped.add(len(node.bottoms) - 1)
        elif slot == "states":
            exposed = node.layer.spec.recurrent_param.expose_hidden
            states = {"LSTM": 2, "RNN": 1}[node.type] if exposed else 0
            stopped.update(range(len(node.bottoms) - states, len(node.bottoms)))
        elif isinstance(slot, int):
            stopped.add(slot)
    if not face.forced():  # Caffe's net.cpp: force_backward overrules propagate_down
        down = node.layer.spec.propagate_down
        stopped.update(slot for slot, go in enumerate(down) if not go)
    return stopped


def objective(face: Face, values: Mapping[int, Array], seeds: Mapping[int, Any]) -> float:
    """The losses and the seeded outputs, summed."""
    total = 0.0
    for i, weight in face.graph.seeds:
        total += weight * float(values[i].sum())
    for i, seed in seeds.items():
        value = values[i]
        total += float(np.vdot(np.asarray(seed, float)[tuple(map(slice, value.shape))], value))
    return total
