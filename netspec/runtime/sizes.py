"""Which of the sizes that a net runs at keep their programs."""

from __future__ import annotations

from netspec.frontend.shapes import Shapes
from netspec.runtime.owned import RecentSizes, owned_cache


def use_programs(home: Shapes, shapes: Shapes) -> None:
    """Say that a net runs at other sizes than its own, so that programs of old ones may go.

    home: the net's own shapes, whose programs stay.
    """
    if shapes is not home:
        _recent(home).use(shapes)


@owned_cache
def _recent(home: Shapes) -> RecentSizes:
    return RecentSizes()
