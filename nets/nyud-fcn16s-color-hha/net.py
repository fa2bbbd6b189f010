"""FCN-16s on NYUDv2, late fusion: FCN-32s's, and the mean of the scores of both trunks' pool4.

The paper scores this net but published no files of it.
"""

from nets import nyud
from netspec.spec import NetSpec


def net(phase: str, width: float = 1) -> NetSpec:
    """The net for "train", "val" or "deploy", its trunk's channels times ``width``."""
    return nyud.late(phase, "pool4", width=width)
