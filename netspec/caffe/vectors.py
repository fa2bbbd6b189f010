"""The vectors of pycaffe's C++: lists with a type of their own, which some scripts ask for."""

from __future__ import annotations

from typing import Any, NoReturn, SupportsIndex, TypeVar, overload

T = TypeVar("T")


class Vector(list[T]):
    """A list whose parts are of its own type, as those of a vector in C++ are."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Vector[T]: ...

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return type(self)(found) if isinstance(index, slice) else found


class FixedVector(Vector[T]):
    """A vector that belongs to a net: what is in it may be written into, never exchanged."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} shows what its net has, and stays as it is; "
            "write into a blob's data, or copy it: list(...)"
        )

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse


class StringVec(Vector[str]):
    """Names."""


class IntVec(Vector[int]):
    """Numbers of blobs."""


class DtypeVec(Vector[float]):
    """Numbers as blobs hold them."""


class BoolVec(Vector[bool]):
    """Switches."""
