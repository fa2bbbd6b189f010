"""Several callbacks as one."""

from typing import Any

import pytest

from netspec.solving.callback import Callback, Callbacks

EVENTS = [name for name in vars(Callback) if not name.startswith("_")]


class Told(Callback):
    """Notes every event, whatever it is."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in EVENTS:
            return super().__getattribute__(name)
        return lambda *details: self.events.append((name, *details))


@pytest.mark.parametrize("event", EVENTS)
def test_every_callback_is_told_every_event_once(event: str) -> None:
    first, second = Told(), Told()
    callbacks = Callbacks([first])
    callbacks.add(second)
    getattr(callbacks, event)(1, "two")
    assert first.events == second.events == [(event, 1, "two")]


def test_who_is_added_later_is_told_what_follows() -> None:
    callbacks, told = Callbacks(), Told()
    callbacks.say("before")
    callbacks.add(told)
    callbacks.warn("after")
    assert told.events == [("warn", "after")]


def test_events_are_told_in_the_order_of_the_callbacks() -> None:
    order: list[str] = []

    class Named(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            order.append(self.name)

    Callbacks([Named("a"), Callbacks([Named("b"), Named("c")]), Named("d")]).close()
    assert order == ["a", "b", "c", "d"]
