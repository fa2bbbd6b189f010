import itertools
import random

import pytest

from netspec.inspect.canvas import Line, trace
from netspec.inspect.columns import fold
from netspec.inspect.layout import arrange
from netspec.inspect.placement import DrawingLayout, Point, Size, Wire

BOX = Size(90, 24)


def paths(layout: DrawingLayout) -> list[list[Point]]:
    return [trace(Line(route.points, "")) for route in layout.routes]


def samples(path: list[Point]) -> list[Point]:
    points = []
    for start, end in itertools.pairwise(path):
        steps = int(max(abs(end.x - start.x), abs(end.y - start.y)) / 3) + 1
        for i in range(steps + 1):
            t = i / steps
            points.append(Point(start.x + t * (end.x - start.x), start.y + t * (end.y - start.y)))
    return points


def check(layout: DrawingLayout, sizes: list[Size]) -> None:
    """No two boxes overlap, no line enters a box, and nothing lies outside the picture."""
    frames = [
        (corner.x, corner.y, corner.x + size.width, corner.y + size.height)
        for corner, size in zip(layout.corners, sizes, strict=True)
    ]
    for a, b in itertools.combinations(frames, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    points = list(itertools.chain.from_iterable(map(samples, paths(layout))))
    for left, top, right, bottom in frames:
        assert left >= 0
        assert top >= 0
        assert right <= layout.size.width + 1e-6
        assert bottom <= layout.size.height + 1e-6
        inside = [
            p for p in points if left + 1 < p.x < right - 1 and top + 0.5 < p.y < bottom - 0.5
        ]
        assert not inside
    assert all(-1e-6 <= p.x <= layout.size.width + 1e-6 for p in points)
    assert all(-1e-6 <= p.y <= layout.size.height + 1e-6 for p in points)


def check_ends(layout: DrawingLayout, sizes: list[Size]) -> None:
    """A line starts at the foot of its tail, a branch on a line of the same value."""
    for route in layout.routes:
        tail, head = (layout.corners[i] for i in (route.wire.tail, route.wire.head))
        end = route.points[-1]
        assert end.x == pytest.approx(head.x + sizes[route.wire.head].width / 2)
        assert end.y == pytest.approx(head.y)
        start = route.points[0]
        if not route.branch:
            middle = tail.x + sizes[route.wire.tail].width / 2
            assert start.x == pytest.approx(middle + route.wire.exit)
            assert start.y == pytest.approx(tail.y + sizes[route.wire.tail].height)
        else:
            assert any(
                start in other.points
                for other in layout.routes
                if other is not route and other.wire[:2] == route.wire[:2]
            )


def chain(*boxes: int) -> list[Wire]:
    return [Wire(tail, 0.0, head) for tail, head in itertools.pairwise(boxes)]


def test_nothing() -> None:
    assert arrange([], []).size == (0, 0)


def test_boxes_without_wires() -> None:
    layout = arrange([BOX] * 3, [])
    check(layout, [BOX] * 3)
    assert len({corner.y for corner in layout.corners}) == 1


def test_chain_is_straight() -> None:
    sizes = [BOX, Size(200, 40), Size(30, 24)]
    layout = arrange(sizes, chain(0, 1, 2))
    assert {x for route in layout.routes for x, _ in route.points} == {100.0}
    assert layout.size.width == 200
    check(layout, sizes)


def test_skip_goes_around() -> None:
    sizes = [BOX] * 4
    layout = arrange(sizes, [*chain(0, 1, 2, 3), Wire(0, 0.0, 3)])
    check(layout, sizes)
    check_ends(layout, sizes)


def test_values_of_one_box_leave_at_their_exits() -> None:
    sizes = [BOX] * 3
    layout = arrange(sizes, [Wire(0, -20.0, 1), Wire(0, 20.0, 2)])
    check_ends(layout, sizes)
    assert layout.corners[1].x < layout.corners[2].x


def test_readers_of_one_value_share_a_trunk() -> None:
    wires = [*chain(0, 1, 2, 3, 4), Wire(0, 0.0, 3), Wire(0, 0.0, 4)]
    layout = arrange([BOX] * 5, wires)
    check(layout, [BOX] * 5)
    check_ends(layout, [BOX] * 5)
    assert sum(not route.branch for route in layout.routes if route.wire.tail == 0) == 1


def test_lines_do_not_cross_where_they_need_not() -> None:
    left, right = chain(0, 1, 3, 5), chain(0, 2, 4, 6)
    layout = arrange([BOX] * 7, [*right, *left])
    one, other = (
        {layout.corners[i].x < layout.corners[j].x for i, j in zip(side, beside, strict=True)}
        for side, beside in (((1, 3, 5), (2, 4, 6)), ((2, 4, 6), (1, 3, 5)))
    )
    assert one != other
    assert len(one) == 1


@pytest.mark.parametrize("seed", range(12))
def test_any_net(seed: int) -> None:
    chance = random.Random(seed)
    count = 25
    sizes = [Size(chance.randint(40, 300), chance.randint(20, 200)) for _ in range(count)]
    exits = [chance.choice([(0.0,), (-15.0, 15.0)]) for _ in range(count)]
    wires = []
    for head in range(1, count):
        for tail in chance.sample(range(head), min(head, chance.choice([1, 1, 1, 2, 3]))):
            faint = chance.random() < 0.2
            wires.append(Wire(tail, chance.choice(exits[tail]), head, faint))
    layout = arrange(sizes, wires)
    check(layout, sizes)
    check_ends(layout, sizes)
    assert len(layout.routes) == len(wires)
    folded = fold(layout, sizes)
    check(folded, sizes)
    check_ends(folded, sizes)


def ladder(steps: int) -> list[Wire]:
    """A chain with a line beside every second box, and one from first to last."""
    wires = chain(*range(2 * steps + 1))
    wires += [Wire(2 * i, 0.0, 2 * i + 2) for i in range(steps)]
    return [*wires, Wire(0, 0.0, 2 * steps)]


def test_tall_nets_are_folded() -> None:
    wires = ladder(20)
    sizes = [BOX] * 41
    tall = arrange(sizes, wires)
    folded = fold(tall, sizes)
    check(folded, sizes)
    check_ends(folded, sizes)
    assert tall.size.height > 10 * tall.size.width
    assert 0.5 < folded.size.width / folded.size.height < 2


def test_folded_lines_do_not_cross_in_the_gutter() -> None:
    sizes = [BOX] * 41
    folded = fold(arrange(sizes, ladder(20)), sizes)
    level = [
        (start, end)
        for route in folded.routes
        for start, end in itertools.pairwise(route.points)
        if start.y == end.y
    ]
    upright = [
        (start, end)
        for route in folded.routes
        for start, end in itertools.pairwise(route.points)
        if start.x == end.x
    ]
    assert level
    for (a, b), (c, d) in itertools.product(level, upright):
        low, high = sorted((c.y, d.y))
        left, right = sorted((a.x, b.x))
        assert not (left < c.x < right and low < a.y < high)


def test_wide_nets_are_not_folded() -> None:
    sizes = [BOX] * 4
    layout = arrange(sizes, [Wire(0, 0.0, i) for i in (1, 2, 3)])
    assert fold(layout, sizes) == layout
