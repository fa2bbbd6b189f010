"""Recurrent layers."""

from .case import flags, normal, row, states

RECURRENT = (
    row("LSTM", "num_output: 5", normal(7, 2, 3), flags(7, 2)),
    row("LSTM of images", "num_output: 5", normal(4, 2, 3, 2), flags(4, 2)),
    row("LSTM static", "num_output: 2", normal(4, 3, 5), flags(4, 3), normal(3, 7)),
    row(
        "LSTM exposed",
        "num_output: 3 expose_hidden: true",
        normal(5, 2, 7),
        flags(5, 2),
        states(1, 2, 3),
        states(1, 2, 3),
        tops=3,
        unheard=("y1", "y2"),
    ),
    row(
        "LSTM static, exposed",
        "num_output: 3 expose_hidden: true",
        normal(4, 2, 5),
        flags(4, 2),
        normal(2, 3, 2),
        states(1, 2, 3),
        states(1, 2, 3),
        tops=3,
        unheard=("y1", "y2"),
    ),
    row("RNN", "num_output: 5", normal(7, 2, 3), flags(7, 2)),
    row("RNN static", "num_output: 2", normal(4, 3, 5, 2), flags(4, 3), normal(3, 7)),
    row(
        "RNN static, exposed",
        "num_output: 3 expose_hidden: true",
        normal(5, 2, 7),
        flags(5, 2),
        normal(2, 4),
        states(1, 2, 3),
        tops=2,
        unheard=("y1",),
    ),
    row("LSTMUnit", "", normal(1, 5, 3), normal(1, 5, 12), flags(1, 5), tops=2),
    row("LSTMUnit of one unit", "", normal(1, 7, 1), normal(1, 7, 4), flags(1, 7), tops=2),
)
