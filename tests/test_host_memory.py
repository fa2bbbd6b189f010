"""Whether anybody still holds memory that was lent, whatever they hold of it."""

import gc
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from netspec.caffe.blob import Blob
from netspec.caffe.host_memory import HostMemory

VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "the array": lambda array: array,
    "a row": lambda array: array[1],
    "a view of a view": lambda array: array[:, 1:].T[0],
    "another shape": lambda array: array.reshape(3, 2).ravel(),
    "another type": lambda array: array.view(np.uint32),
    "asarray": lambda array: np.asarray(array, np.float32),
    "a memoryview": memoryview,
    "a reader of it": lambda array: array.flat,
    "what holds it": lambda array: {"data": [array[0]]},
    "a function": lambda array: lambda: array[0, 0],
}


@pytest.mark.parametrize("view", VIEWS)
def test_memory_is_lent_as_long_as_a_view_lives(view: str) -> None:
    memory = HostMemory(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert not memory.is_lent
    held = VIEWS[view](memory.lend())
    gc.collect()
    assert memory.is_lent
    del held
    gc.collect()
    assert not memory.is_lent


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 1, 3)])
def test_lent_memory_is_the_memory(shape: tuple[int, ...]) -> None:
    memory = HostMemory(np.full(shape, 2, np.float32))
    lent = memory.lend()
    assert lent is memory.lend()
    assert (lent.shape, lent.dtype, lent.flags.writeable) == (shape, np.float32, True)
    lent[...] += 1
    assert (memory.array == 3).all()
    memory.array[...] = 7
    assert (lent == 7).all()


def test_a_copy_holds_nothing() -> None:
    memory = HostMemory(np.zeros((2, 3), np.float32))
    copies = [memory.lend().copy(), memory.lend() + 1, memory.lend().tolist()]
    assert not memory.is_lent
    assert len(copies) == 3


@pytest.mark.parametrize("view", VIEWS)
def test_a_blob_reads_what_is_written_through_any_view(view: str) -> None:
    """And once nobody holds one, its device array stays where it is."""
    blob = Blob((2, 3))
    array = blob.data
    held = VIEWS[view](array)
    _ = blob.data_mirror.device
    array[...] = 5
    del array
    assert blob.data_mirror.held
    assert jnp.all(blob.data_mirror.device == 5)
    del held
    gc.collect()
    _ = blob.data_mirror.device
    assert blob.data_mirror.device is blob.data_mirror.device
