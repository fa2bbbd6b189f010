"""Layers that reshape, cut, repeat and pick, and compute nothing."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import counted, fail, require
from netspec.layers.base import Layer
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.labels import pick_rows
from netspec.layers.numerics import MemoryLayout, Numerics
from netspec.layers.records import BottomUse, Traits
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, axis_or_legacy, canonical_axis, count, text
from netspec.layers.valid_region import PaddingValue, PartialShape


class _Reshaping(Layer):
    """The base of layers that keep numbers and their order under another shape."""

    traits = Traits(works_in_place=False)

    def apply(self, ctx: Context, x: Array) -> Array:
        return x.reshape(self.shape(x.shape))


@register(param="flatten_param")
class Flatten(_Reshaping):
    """Make one axis of the axes from ``axis`` to ``end_axis``, both counted in.

    (N, C, H, W) -> (N, C H W) for the default ``axis: 1 end_axis: -1``. An ``end_axis`` just before
    ``axis`` puts a new axis of size 1 there. Caffe: ``flatten_layer.cpp``.
    """

    formula = "y = x, some axes made one"

    def shape(self, bottom: Shape) -> Shape:
        """The axes before, their product, the axes after."""
        start = canonical_axis(self.param.axis, len(bottom))
        end = canonical_axis(self.param.end_axis, len(bottom)) + 1
        require(start <= end, f"axis {start} lies behind end_axis {end - 1}")
        return (*bottom[:start], count(bottom[start:end]), *bottom[end:])

    def describe(self) -> str:
        """The axes, where they are not all but the first."""
        p = self.param
        return "" if (p.axis, p.end_axis) == (1, -1) else f"axes {p.axis} to {p.end_axis}"


@register(param="reshape_param")
class Reshape(_Reshaping):
    """Replace ``num_axes`` axes from ``axis`` on (-1: all from there) by those of ``shape``.

    (N, C, H, W) -> (N, 2, C H W / 2) for ``shape { dim: 0 dim: 2 dim: -1 }``. A dim of 0 is the
    bottom's size on the axis where it comes to stand; one dim of -1 is what the count leaves.
    A negative ``axis`` counts from behind the last axis, which is -1. Caffe: ``reshape_layer.cpp``.
    """

    formula = "y = x of another shape"

    def span(self, rank: int) -> tuple[int, int]:
        """The first axis replaced, and the first one after those replaced."""
        axis, num_axes = self.param.axis, self.param.num_axes
        start = axis if axis >= 0 else rank + axis + 1
        require(
            0 <= start <= rank,
            f"axis {axis} of a blob with {rank} axes; {-rank - 1} to {rank} work",
        )
        require(num_axes >= -1, f"num_axes {num_axes} must be -1 or more")
        end = rank if num_axes == -1 else start + num_axes
        require(end <= rank, f"num_axes {num_axes} from axis {start} on exceeds the {rank} axes")
        return start, end

    def shape(self, bottom: Shape) -> Shape:
        """The axes before, the new ones, the axes after."""
        start, end = self.span(len(bottom))
        dims = list(self.param.shape.dim)
        require(min(dims, default=0) >= -1, f"dim {min(dims, default=0)} must be -1, 0 or a size")
        inferred = dims.count(-1)
        require(inferred <= 1, f"{inferred} dims are -1; one at most can be inferred")
        for i, dim in enumerate(dims):
            if dim == 0:
                require(
                    start + i < len(bottom),
                    f"dim {i} is 0, but {text(bottom)} has no axis {start + i} to take it from",
                )
                dims[i] = bottom[start + i]
        if inferred:
            known = count(bottom[:start] + bottom[end:]) * count([d for d in dims if d != -1])
            require(
                known and count(bottom) % known == 0,
                f"the {count(bottom)} numbers of {text(bottom)} cannot be divided by {known} to "
                "infer the dim of -1",
            )
            dims[dims.index(-1)] = count(bottom) // known
        top = (*bottom[:start], *dims, *bottom[end:])
        require(
            count(top) == count(bottom),
            f"{text(bottom)} holds {count(bottom)} numbers, but {text(top)} holds {count(top)}",
        )
        return top

    def describe(self) -> str:
        """The new dims, and the axes they replace."""
        p = self.param
        parts = ["x".join(map(str, p.shape.dim)) or "scalar"]
        names = (("axis", p.axis, 0), ("num_axes", p.num_axes, -1))
        parts += [f"{name} {value}" for name, value, default in names if value != default]
        return ", ".join(parts)


@register(param="slice_param", tops=(1, None))
class Slice(Layer):
    """Cut a blob into its tops along ``axis`` (or the older ``slice_dim``).

    (N, C, H, W) -> (N, c1, H, W), (N, c2, H, W), ... for the default ``axis: 1``. Each
    ``slice_point`` is where the next top begins; without any, parts are equal.
    Caffe: ``slice_layer.cpp``.
    """

    formula = "[y1, y2, ...] = x"
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def configure(self) -> None:
        """A single top may overwrite the bottom, of several none."""
        self.traits = Traits(works_in_place=self.num_tops == 1)

    def axis(self, rank: int) -> int:
        """The axis to cut."""
        return axis_or_legacy(self.param, "slice_dim", rank)

    def edges(self, size: int) -> list[int]:
        """Where the parts begin and end on an axis of ``size``."""
        points, tops = list(self.param.slice_point), self.num_tops
        if not points:
            require(size % tops == 0, f"axis of {size} does not divide into {tops} equal tops")
            return [size // tops * i for i in range(tops + 1)]
        require(
            len(points) == tops - 1,
            f"{len(points)} slice_point for {counted(tops, 'top')}; give one less than tops",
        )
        require(tops <= size, f"{tops} tops of an axis of {size}")
        listing = ", ".join(map(str, points))
        rising = all(a < b for a, b in itertools.pairwise([0, *points]))
        require(rising, f"slice_point {listing} must rise from 1 on")
        require(points[-1] <= size, f"slice_point {listing} exceeds the axis of {size}")
        return [0, *points, size]

    def shape(self, bottom: Shape) -> tuple[Shape, ...]:
        """The bottom's but for the axis."""
        axis = self.axis(len(bottom))
        edges = itertools.pairwise(self.edges(bottom[axis]))
        return tuple((*bottom[:axis], end - start, *bottom[axis + 1 :]) for start, end in edges)

    def apply(self, ctx: Context, x: Array) -> tuple[Array, ...]:
        axis = ctx.axis(self.axis(x.ndim), x.ndim)
        outer = (slice(None),) * axis
        edges = itertools.pairwise(self.edges(x.shape[axis]))
        return tuple(x[(*outer, slice(start, end))] for start, end in edges)

    def padding_values(self, bottom: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value: parts begin at the same places unless the axis itself varies."""
        return None if bottom[self.axis(len(bottom))] is None else (PaddingValue.ANYTHING,)

    def coords(self, rank: int) -> CoordMap | None:
        """Each pixel on itself, unless pixels are cut off."""
        return CoordMap.identity(rank) if self.axis(rank + 2) < 2 else None

    def describe(self) -> str:
        """The points, and the axis where it is not the channels'."""
        p = self.param
        axis = p.slice_dim if p.HasField("slice_dim") else p.axis
        points = [f"at {', '.join(map(str, p.slice_point))}"] if p.slice_point else []
        return ", ".join(points + ([f"axis {axis}"] if axis != 1 else []))


@register(param="tile_param")
class Tile(Layer):
    """Repeat the whole bottom ``tiles`` times along ``axis``; gradients add up.

    (N, C, H, W) -> (N, tiles C, H, W) for the default ``axis: 1``. Caffe: ``tile_layer.cpp``.
    """

    formula = "y = [x, x, ...]"
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def shape(self, bottom: Shape) -> Shape:
        """The axis ``tiles`` times as long."""
        axis = canonical_axis(self.param.axis, len(bottom))
        require(self.param.HasField("tiles"), "needs tiles")
        require(self.param.tiles > 0, f"tiles {self.param.tiles} must be positive")
        return (*bottom[:axis], bottom[axis] * self.param.tiles, *bottom[axis + 1 :])

    def apply(self, ctx: Context, x: Array) -> Array:
        repeats = [1] * x.ndim
        repeats[ctx.axis(canonical_axis(self.param.axis, x.ndim), x.ndim)] = self.param.tiles
        return jnp.tile(x, repeats)

    def padding_values(self, bottom: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value, unless the axis varies: one copy begins where another ends."""
        return None if bottom[self.param.axis] is None else (PaddingValue.ANYTHING,)

    def coords(self, rank: int) -> CoordMap | None:
        """Each pixel on itself, unless pixels are repeated."""
        axis = canonical_axis(self.param.axis, rank + 2)
        return CoordMap.identity(rank) if axis < 2 else None

    def describe(self) -> str:
        """How often, and the axis where it is not the channels'."""
        axis = "" if self.param.axis == 1 else f", axis {self.param.axis}"
        return f"{self.param.tiles} times{axis}"


@register(bottoms=(2, None), tops=(1, None))
class Filter(Layer):
    """Keep the items of a batch whose selector, the last bottom, is not 0.

    (N, ...), ..., (N, 1, ...) -> (n, ...), ..., one top for each bottom but the selector; n is
    known only as the net runs, so a net with such a layer is not compiled but runs op by op. Its
    stated shape is that with all items kept. Caffe: ``filter_layer.cpp``.
    """

    formula = "y = x[selector != 0]"
    numerics = Numerics(layout=MemoryLayout.EITHER)
    traits = Traits(data_dependent=True)

    def configure(self) -> None:
        """The selector has no gradient."""
        self.bottom_use = BottomUse.indices(len(self.spec.bottom) - 1)

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """The bottoms', as if the selector kept all items."""
        *data, selector = bottoms
        require(
            self.num_tops == len(data),
            f"keeps items of {counted(len(data), 'bottom')} (the last is the selector), but has "
            f"{counted(self.num_tops, 'top')}",
        )
        require(
            selector and count(selector[1:]) == 1,
            f"the selector holds one number an item, but it is {text(selector)}",
        )
        for i, bottom in enumerate(data):
            require(
                bottom[:1] == selector[:1],
                f"bottom {i} is {text(bottom)}, but the selector has {selector[0]} items",
            )
        return tuple(data)

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        *data, selector = bottoms
        values = ctx.kept("selector", jax.lax.stop_gradient(selector))
        if isinstance(values, jax.core.Tracer):
            fail("its output's size depends on data: run the net outside jax.jit")
        kept = np.flatnonzero(np.asarray(values))
        return tuple(x[kept] for x in data)

    def coords(self, rank: int) -> CoordMap:
        """Each pixel on itself."""
        return CoordMap.identity(rank)


@register(bottoms=2)
class BatchReindex(Layer):
    """Pick items of a batch by indices held in floats; one may be picked more than once.

    (N, C, H, W), (M) -> (M, C, H, W). Gradients of an item picked more than once add up.
    Caffe: ``batch_reindex_layer.cpp``. Differs: an index outside the batch, where Caffe aborts,
    gives NaN.
    """

    formula = "y = x[indices]"
    bottom_use = BottomUse.indices(1)
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def shape(self, bottom: Shape, indices: Shape) -> Shape:
        """As many items as indices."""
        require(bottom, "picks items of a batch, but bottom 0 is a scalar")
        require(len(indices) == 1, f"indices must have one axis, but bottom 1 is {text(indices)}")
        require(bottom[0] or not indices[0], f"{text(bottom)} has no items to pick")
        return indices + bottom[1:]

    def apply(self, ctx: Context, x: Array, indices: Array) -> Array:
        return pick_rows(x, indices)

    def coords(self, rank: int) -> CoordMap:
        """Each pixel on itself."""
        return CoordMap.identity(rank)
