"""Pooling, over windows and over pyramids."""

from .case import normal, positive, row, whole

POOLING = (
    row("Pooling MAX", "kernel_size: 2 stride: 2", normal(2, 3, 7, 5)),
    row("Pooling MAX overlapping", "kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7, 6)),
    row("Pooling MAX last window clipped", "kernel_size: 2 stride: 2 pad: 1", normal(2, 3, 7, 5)),
    row("Pooling MAX FLOOR", "kernel_size: 3 stride: 2 round_mode: FLOOR", normal(2, 3, 6, 8)),
    row(
        "Pooling MAX FLOOR clipped",
        "kernel_size: 2 stride: 3 pad: 1 round_mode: FLOOR",
        normal(2, 3, 6, 5),
    ),
    row(
        "Pooling MAX h and w",
        "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 2 pad_w: 1",
        normal(2, 3, 7, 5),
    ),
    row("Pooling MAX mask", "kernel_size: 3 stride: 2", normal(2, 3, 7, 5), tops=2),
    row("Pooling MAX mask, ties", "kernel_size: 3 pad: 1", whole(2, 3, 7, 5), tops=2, smooth=False),
    row("Pooling MAX wide", "kernel_size: 5 stride: 2 pad: 2", normal(2, 3, 9, 7), tops=2),
    row(
        "Pooling MAX wide, ties",
        "kernel_h: 3 kernel_w: 6 stride: 2 pad: 2",
        whole(2, 3, 7, 8),
        tops=2,
        smooth=False,
    ),
    row("Pooling MAX wide, clipped", "kernel_size: 5 stride: 4 pad: 3", normal(2, 3, 6, 7)),
    row("Pooling MAX over the image", "kernel_size: 4 stride: 2", normal(2, 3, 3, 7), tops=2),
    row("Pooling MAX global", "global_pooling: true", normal(2, 3, 7, 5), tops=2),
    row("Pooling AVE", "pool: AVE kernel_size: 2 stride: 2", normal(2, 3, 6, 4)),
    row("Pooling AVE overhang", "pool: AVE kernel_size: 3 stride: 2", normal(2, 3, 6, 8)),
    row("Pooling AVE pad", "pool: AVE kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 7, 6)),
    row("Pooling AVE clipped", "pool: AVE kernel_size: 2 stride: 2 pad: 1", normal(2, 3, 7, 5)),
    row(
        "Pooling AVE h and w",
        "pool: AVE kernel_h: 4 kernel_w: 2 stride_h: 3 stride_w: 1 pad_h: 3 pad_w: 0",
        normal(2, 3, 7, 5),
    ),
    row(
        "Pooling AVE FLOOR",
        "pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR",
        normal(2, 3, 6, 8),
    ),
    row("Pooling AVE wide", "pool: AVE kernel_size: 6 stride: 5 pad: 1", normal(2, 3, 9, 8)),
    row("Pooling AVE over the image", "pool: AVE kernel_size: 4 stride: 3", normal(2, 3, 7, 2)),
    row("Pooling AVE global", "pool: AVE global_pooling: true", normal(2, 3, 7, 5)),
    row("Pooling STOCHASTIC", "pool: STOCHASTIC kernel_size: 3 stride: 2", positive(2, 3, 6, 8)),
    row("Pooling STOCHASTIC global", "pool: STOCHASTIC global_pooling: true", positive(2, 3, 4, 5)),
    row("SPP", "pyramid_height: 2", normal(2, 3, 7, 5)),
    row("SPP of one level", "pyramid_height: 1", normal(2, 3, 7, 5)),
    row("SPP of four levels", "pyramid_height: 4", normal(2, 3, 15, 23)),
    row("SPP ties", "pyramid_height: 3", whole(2, 3, 7, 12), smooth=False),
    row("SPP AVE", "pool: AVE pyramid_height: 3", normal(2, 3, 7, 12)),
    row("SPP AVE of one level", "pool: AVE pyramid_height: 1", normal(2, 3, 7, 5)),
    row("SPP STOCHASTIC", "pool: STOCHASTIC pyramid_height: 3", positive(2, 3, 8, 4)),
)
