"""Compiled programs and tables that die with what they were made for: a net's shapes.

`jax.jit` with the owner as a static argument, and `functools.lru_cache` with it as a key, would
keep it, and every program made for it, until the process ends: a program takes megabytes and some
hundred memory maps. Here each owner holds its own, so that nets that share a `Shapes` object share
them, and they go with the last of those nets. Of a net that runs at many sizes, `RecentSizes` lets
those go that were not used for long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, cast
from weakref import ref

import jax

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")
_ATTRIBUTE = "_owned"
# So many sizes of a net's inputs, besides its own, keep their programs.
MOST_SIZES = 32
# So many results of one function are kept by one owner.
_MOST_RESULTS = 1024


def owned_cache(function: AnyFunction) -> AnyFunction:
    """Remember results while the first argument lives; the others must be hashable.

    Of many results of one owner, the oldest are forgotten.
    """

    @wraps(function)
    def remembered(owner: Any, *args: Any) -> Any:
        held = _held(owner).setdefault(function, {})
        if args not in held:
            made = function(owner, *args)
            while len(held) >= _MOST_RESULTS:
                del held[next(iter(held))]
            held[args] = made
        return held[args]

    return cast(AnyFunction, remembered)


class OwnedJit(Generic[P, R]):
    """A function that is compiled once for each of its first ``static`` arguments.

    The first of them is the owner, with which the programs die; all are handed over by position.
    donate: the argument whose arrays the program may reuse.
    """

    def __init__(self, function: Callable[P, R], static: int, donate: int | None) -> None:
        self.__wrapped__ = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._static = static
        self._donate = () if donate is None else donate - static

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        made: R = self.program(*args[: self._static])(*args[self._static :], **kwargs)
        return made

    def program(self, owner: Any, *statics: Any) -> Any:
        """The jitted function of the arguments that follow."""
        held = _held(owner).setdefault(self.__wrapped__, {})
        if statics not in held:
            held[statics] = self._jitted(owner, statics)
        return held[statics]

    def _jitted(self, owner: Any, statics: tuple[Any, ...]) -> Any:
        function: Callable[..., Any] = self.__wrapped__
        # JAX keeps the function for as long as its programs: it must not keep the owner in turn.
        weak = ref(owner)

        def traced(*args: Any, **kwargs: Any) -> Any:
            return function(weak(), *statics, *args, **kwargs)

        traced.__name__ = traced.__qualname__ = self.__name__
        return jax.jit(traced, donate_argnums=self._donate)


def owned_jit(
    static: int = 1, donate: int | None = None
) -> Callable[[Callable[P, R]], OwnedJit[P, R]]:
    """A decorator that makes an `OwnedJit`."""
    return lambda function: OwnedJit(function, static, donate)


class RecentSizes:
    """The sizes that a net ran at last; the programs of those before are let go."""

    def __init__(self, most: int = MOST_SIZES) -> None:
        self._most = most
        self._recent: dict[Any, None] = {}

    def use(self, owner: Any) -> None:
        """Count an owner's programs as used now."""
        self._recent.pop(owner, None)
        self._recent[owner] = None
        if len(self._recent) > self._most:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            oldest.__dict__.pop(_ATTRIBUTE, None)


def _held(owner: Any) -> dict[Any, dict[Any, Any]]:
    """What an owner holds; frozen dataclasses, too, as `cached_property` does it."""
    held: dict[Any, Any] = owner.__dict__.setdefault(_ATTRIBUTE, {})
    return held
