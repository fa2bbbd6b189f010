"""The reference's poolings whose last window lies beyond the image, as Caffe's loops leave them."""

from pathlib import Path

import numpy as np
import pytest
from reference import RULES

from netspec.proto.layers_pb2 import LayerParameter
from tests.fuzz import checks
from tests.fuzz.drafts import Draft, Feed
from tests.fuzz.trial import Skip, Trial, Wrong

LEAST = -float(np.finfo(np.float32).max)
NOTHING = {"MAX": LEAST, "AVE": np.nan, "STOCHASTIC": 0.0}


def pooling(method: str) -> LayerParameter:
    layer = LayerParameter(name="p", type="Pooling", bottom=["s"], top=["p"])
    layer.pooling_param.pool = layer.pooling_param.PoolMethod.Value(method)
    layer.pooling_param.kernel_size, layer.pooling_param.stride = 1, 2
    return layer


@pytest.mark.parametrize("method", NOTHING)
def test_a_window_beyond_the_image(method: str) -> None:
    x = np.arange(1.0, 5.0).reshape(1, 1, 4, 1)
    top, mask = RULES["Pooling"](pooling(method), [], x)
    np.testing.assert_array_equal(top.ravel(), [1, 3, NOTHING[method]])
    if method == "MAX":
        assert mask.ravel().tolist() == [0, 2, -1]


@pytest.mark.parametrize("method", NOTHING)
def test_the_fuzzer_checks_such_nets(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [
        LayerParameter(name="s", type="TanH", bottom=["x"], top=["s"]),
        pooling(method),
        LayerParameter(name="e", type="Eltwise", bottom=["p", "p"], top=["e"]),
        LayerParameter(name="o", type="Sigmoid", bottom=["s"], top=["o"]),
    ]
    draft = Draft(seed=1, feeds=(Feed("x", (2, 3, 4, 6)),), layers=tuple(layers), phase="test")
    trial = Trial(draft, tmp_path)
    told = {trial.graph.values[i].name for i in trial.truth}
    assert told == {"x", "s", "p", "o"} | ({"e"} if method == "STOCHASTIC" else set())
    checks.forward(trial)
    if method != "STOCHASTIC":
        with pytest.raises(Skip, match="a pooling window beyond the image"):
            checks.gradients(trial)
    values = trial.compiled.values
    i = trial.graph.blobs["p"]
    monkeypatch.setitem(values, i, np.where(values[i] == np.nanmax(values[i]), 7, values[i]))
    with pytest.raises(Wrong, match=r"^p of Pooling: .* for "):
        checks.forward(trial)
