"""FCN-32s on NYUDv2, late fusion: the mean of the scores of one on color and one on HHA."""

from nets import nyud
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return nyud.late(phase, width=width)
