"""Normalization, within items and over a batch."""

from .case import normal, row

NORMALIZATION = (
    row("LRN across", "local_size: 3 alpha: 2 beta: 0.6 k: 2", normal(2, 7, 3, 5)),
    row("LRN across all channels", "local_size: 9 alpha: 2", normal(2, 3, 7, 5)),
    row("LRN across one channel", "local_size: 1 alpha: 0.5", normal(2, 3, 7, 5)),
    row(
        "LRN within",
        "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 beta: 0.6",
        normal(2, 3, 7, 5),
    ),
    row(
        "LRN within, without k",
        "norm_region: WITHIN_CHANNEL local_size: 5 alpha: 2 k: 7",
        normal(2, 3, 2, 4),
    ),
    row("BatchNorm", "eps: 0.1", normal(2, 3, 7, 5)),
    row(
        "BatchNorm in TRAIN",
        "moving_average_fraction: 0.7 eps: 0.1",
        normal(2, 3, 7, 5),
        more="phase: TRAIN",
    ),
    row(
        "BatchNorm in TRAIN, of rank 2", "", normal(5, 3), more="phase: TRAIN param { lr_mult: 0 }"
    ),
    row("BatchNorm in TRAIN, of one item", "eps: 2", normal(1, 3), more="phase: TRAIN"),
    row(
        "BatchNorm in TRAIN, of running statistics",
        "use_global_stats: true",
        normal(2, 3, 5),
        more="phase: TRAIN",
    ),
    row("BatchNorm in TEST, of the batch", "use_global_stats: false", normal(2, 3, 7, 5)),
    row("MVN", "", normal(2, 3, 7, 5)),
    row("MVN across channels", "across_channels: true", normal(2, 3, 7, 5)),
    row("MVN mean only", "normalize_variance: false", normal(2, 3, 7, 5)),
    row(
        "MVN mean only, across channels",
        "normalize_variance: false across_channels: true",
        normal(2, 3, 7),
    ),
    row("MVN of rank 2", "across_channels: true", normal(2, 7)),
    row("MVN of great eps", "eps: 0.5", normal(2, 3, 7, 5), smooth=False),
)
