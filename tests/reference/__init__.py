"""What layers compute, in float64 by plain loops, for tests to compare with.

Nothing here comes from netspec's layers: settings are read from the messages afresh, and sizes
and arithmetic are spelled out element by element. Random layers have their rule in TEST only.
"""

from . import (  # noqa: F401 - each enters its rules
    activation,
    common,
    loss,
    normalization,
    pooling,
    recurrent,
    reshaping,
    utility,
    vision,
)
from .nets import carried_on as carried_on
from .nets import evaluate as evaluate
from .nets import in_phase as in_phase
from .normalization import batch_statistics as batch_statistics
from .rules import RULES as RULES
