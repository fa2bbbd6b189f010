"""Calls are timed until their arrays are there."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from netspec.runtime import timing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that only the test moves."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_a_call_is_waited_for(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    ready = jax.block_until_ready

    def waited(made: Any) -> Any:
        clock[0] += 2
        return ready(made)

    monkeypatch.setattr(jax, "block_until_ready", waited)
    seconds, made = timing.timed(lambda a, b: {"sum": a + b}, jnp.ones(3), 1)
    assert seconds == 2
    assert made["sum"].tolist() == [2, 2, 2]


def test_the_median_leaves_out_the_call_that_compiles(clock: list[float]) -> None:
    takes = iter([100.0, 3.0, 1.0, 2.0])

    def call(clock: list[float]) -> None:
        clock[0] += next(takes)

    assert timing.median_seconds(call, clock, repeats=3) == 2
    assert next(takes, None) is None
