"""Where a number that is not finite comes from."""

import numpy as np
import pytest
from single_steps import DATA, ONES, TWO, Step, X, layer, product

SUM = layer("sum", "Reduction", "y", "loss", "loss_weight: 1")


NAN = X.copy()
NAN[1, 2] = np.nan


HALF = np.array([[1, 0, 4], [1, 1, 1]], np.float32)
LARGE = (
    "numbers this large mostly come of updates that are too large: lower base_lr, or set "
    "clip_gradients"
)
CULPRITS = {
    "data": (
        Step(TWO, x=NAN),
        'net.prototxt:1: layer "data" (Input): its top "x" is fed nan at (1, 2); the data itself, '
        "or how it is made, is at fault",
    ),
    "label": (
        Step(TWO, label=[1, np.inf]),
        'net.prototxt:1: layer "data" (Input): its top "label" is fed inf at (1); the data '
        "itself, or how it is made, is at fault",
    ),
    "weight": (
        Step(TWO, {"score.bias": [0, np.nan, np.nan, 0]}),
        'net.prototxt:6: layer "score" (InnerProduct): its bias holds numbers that are not finite '
        "before the step: nan at (1) and 1 more; an update made them (lower base_lr, or set "
        "clip_gradients), or the weights that were loaded hold them",
    ),
    "log of zero": (
        Step(DATA + product("ip", "x", 3) + layer("log", "Log", "x", "y") + SUM, x=HALF),
        'net.prototxt:5: layer "log" (Log): its top "y" is the first blob that is not finite: '
        '-inf at (0, 1); its bottom "x" ranges from 0 to 4; the layer computes '
        "y = log_base(shift + scale x): keep its bottom where that is finite",
    ),
    "slope of a root at zero": (
        Step(
            DATA
            + product("ip", "x", 3, "bias_term: false")
            + layer("root", "Power", "ip", "y", "power_param { power: 0.5 }")
            + SUM
        ),
        'net.prototxt:5: layer "root" (Power): all blobs are finite, but the gradient of its '
        'bottom "ip" is the first, going backward, that is not: it holds inf; its bottom "ip" is '
        '0 everywhere; the gradient of its top "y" is 1 everywhere; the layer has the slope of '
        "y = (shift + scale x) ^ power: keep its bottom where that is finite",
    ),
    "exploded weights": (
        Step(TWO, {"ip.weight": 100, "score.weight": 1e38}, ONES),
        'net.prototxt:6: layer "score" (InnerProduct): its top "score" is the first blob that is '
        'not finite: inf at (0, 0) and 7 more; its bottom "ip" is 300 everywhere; its weight is '
        f'1e+38 everywhere; its bias is 0 everywhere; {LARGE} (the loss of layer "loss" is a sum '
        "over 2 predictions / the predictions whose label counts)",
    ),
    "a loss at infinity": (
        Step(
            DATA
            + product("ip", "x", 3, "bias_term: false")
            + 'layer { name: "l2" type: "EuclideanLoss" bottom: "ip" bottom: "x" top: "loss" }\n',
            {"ip.weight": 1e20},
            ONES,
        ),
        'net.prototxt:5: layer "l2" (EuclideanLoss): its top "loss" is the first blob that is not '
        'finite: inf; its bottom "ip" is 3e+20 everywhere; its bottom "x" is 1 everywhere; '
        f'{LARGE} (the loss of layer "l2" is a ',
    ),
    "a label outside": (
        Step(TWO, label=[1, 4]),
        'net.prototxt:8: layer "loss" (SoftmaxWithLoss): its top "loss" is the first blob that is '
        'not finite: nan; its bottom "score" ranges from ',
    ),
    "a loss weight": (
        Step(TWO.replace('top: "loss"', 'top: "loss" loss_weight: 3e38')),
        "net.prototxt: the total loss is inf though every blob is finite: it is 3e+38 x 1.",
    ),
    "a gradient that overflows": (
        Step(
            DATA
            + product("ip", "x", 1)
            + layer("sum", "Reduction", "ip", "s", "loss_weight: 3e38"),
            # The gradient of the weight is 3e38 times the sum of the rows, that of the bias twice.
            {"ip.weight": 1e-3},
            ONES,
        ),
        'net.prototxt:3: layer "ip" (InnerProduct): all blobs are finite, but the gradient of its '
        "weight is the first, going backward, that is not: it holds inf",
    ),
}


@pytest.mark.parametrize("case", CULPRITS)
def test_culprits(case: str) -> None:
    step, message = CULPRITS[case]
    found = step.culprit()
    assert found is not None
    assert found.startswith(message)


def test_labels_outside_are_named() -> None:
    found = Step(TWO, label=[1, 4]).culprit()
    assert found is not None
    assert found.endswith('; its bottom "label" ranges from 1 to 4; labels must be classes 0..3')
