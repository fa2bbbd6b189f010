"""Layers that only move elements."""

from .case import indices, label, normal, row

ARRANGEMENT = (
    row("Flatten", "", normal(2, 3, 7, 5)),
    row("Flatten axes 1 to 2", "end_axis: 2", normal(2, 3, 7, 5)),
    row("Flatten axes -3 to -2", "axis: -3 end_axis: -2", normal(2, 3, 7, 5)),
    row("Flatten axis 0", "axis: 0", normal(2, 3, 7)),
    row("Flatten one axis", "axis: 2 end_axis: 2", normal(2, 3, 7, 5)),
    row("Flatten no axis", "axis: 2 end_axis: 1", normal(2, 3, 7, 5)),
    *(
        row(f"Reshape {how}", how, normal(2, 3, 7, 5))
        for how in (
            "shape { dim: 0 dim: -1 dim: 7 }",
            "shape { dim: 5 dim: 7 dim: 3 dim: 2 }",
            "shape { dim: -1 }",
            "shape { dim: 0 dim: 0 dim: 5 dim: 7 dim: -1 }",
            "shape { dim: 7 dim: -1 } axis: 1",
            "shape { dim: -1 dim: 3 } axis: 1 num_axes: 2",
            "shape { dim: 35 } axis: -3 num_axes: 2",
            "shape { dim: 1 dim: 1 } axis: -1",
            "shape { dim: 1 } axis: 1 num_axes: 0",
            "shape { dim: -1 dim: 0 } axis: 1 num_axes: 2",
            "axis: 4",
        )
    ),
    row("Reshape to a scalar", "shape { }", normal(1, 1)),
    row("Slice", "", normal(2, 6, 7, 5), tops=3),
    row("Slice points", "slice_point: 1 slice_point: 4", normal(2, 7, 3, 5), tops=3),
    row("Slice axis -1", "axis: -1 slice_point: 2", normal(2, 3, 7, 5), tops=2),
    row("Slice axis 0", "axis: 0", normal(6, 3, 7, 5), tops=2),
    row("Slice slice_dim", "slice_dim: 2 slice_point: 5", normal(2, 3, 7, 5), tops=2),
    row("Slice with an empty part", "axis: 1 slice_point: 2 slice_point: 7", normal(2, 7), tops=3),
    row("Slice one part", "", normal(2, 3, 7, 5)),
    row("Tile", "tiles: 2", normal(2, 3, 7, 5)),
    row("Tile axis 0", "axis: 0 tiles: 3", normal(2, 3, 7, 5)),
    row("Tile axis -1", "axis: -1 tiles: 3", normal(2, 3, 7, 5)),
    row("Tile once", "axis: 1 tiles: 1", normal(2, 3)),
    row("BatchReindex", "", normal(3, 2, 7, 5), indices(5, below=3)),
    row("BatchReindex of rank 1", "", normal(3), indices(7, below=3)),
    row("BatchReindex one twice", "", normal(2, 3, 7), label(1, 2)),
)
