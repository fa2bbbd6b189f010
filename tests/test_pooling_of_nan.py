"""MAX pooling of NaN and -inf: in Caffe neither is greater than the least float."""

import jax
import numpy as np
import pytest

import netspec

LEAST = np.finfo(np.float32).min
# Windows of few elements are unrolled, others reduced.
FEW, MANY = 2, 5


def pooled(tmp_path: object, x: np.ndarray) -> tuple[float, float, np.ndarray]:
    """A window's maximum, where it lies, and its gradient."""
    k = x.shape[-1]
    path = f"{tmp_path}/net.prototxt"
    with open(path, "w") as file:
        file.write(
            f'layer {{ name: "d" type: "Input" top: "d" input_param {{ shape {{ dim: 1 dim: 1 '
            f'dim: {k} dim: {k} }} }} }} layer {{ name: "p" type: "Pooling" bottom: "d" top: "p" '
            f'top: "m" pooling_param {{ kernel_size: {k} }} }}'
        )
    net = netspec.load(path)
    found = net(d=x)
    slope = jax.grad(lambda x: net(d=x)["p"].sum())(jax.numpy.asarray(x))
    return float(found["p"].ravel()[0]), float(found["m"].ravel()[0]), np.asarray(slope).ravel()


@pytest.mark.parametrize(
    ("kernel", "place"), [(FEW, 1), (FEW, -1), (MANY, 0), (MANY, 1), (MANY, -1)]
)
def test_nan_is_never_the_maximum(tmp_path: object, kernel: int, place: int) -> None:
    x = np.arange(kernel * kernel, dtype=np.float32)
    x[place] = np.nan
    best = int(np.nanargmax(x))
    top, where, slope = pooled(tmp_path, x.reshape(1, 1, kernel, kernel))
    assert (top, where) == (x[best], best)
    assert slope.tolist() == [float(i == best) for i in range(kernel * kernel)]


@pytest.mark.differs("pooling-nan")
def test_a_first_nan_stays_in_a_window_of_few(tmp_path: object) -> None:
    x = np.array([np.nan, 1, 2, 3], np.float32)
    top, where, _ = pooled(tmp_path, x.reshape(1, 1, FEW, FEW))
    assert np.isnan(top)
    assert where == 0


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_window_without_a_number_has_no_maximum(tmp_path: object, value: float) -> None:
    x = np.full((1, 1, MANY, MANY), value, np.float32)
    top, where, slope = pooled(tmp_path, x)
    assert (top, where) == (LEAST, -1)
    assert not slope.any()
