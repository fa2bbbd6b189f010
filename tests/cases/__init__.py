"""The table of layer cases. A row earns the whole battery of ``test_layers.py``.

A row is a layer with its settings and what it is fed; ``test_layers.py`` compares it with
``reference``. A pair of files in ``golden/layers`` is a case too, compared with what Caffe
itself made of it. Sizes along different axes differ, so that no swapped axes go unseen.
"""

from .activation import ACTIVATION
from .case import GOLDEN as GOLDEN
from .case import Case as Case
from .case import Feed as Feed
from .case import fixed as fixed
from .case import golden
from .case import input_text as input_text
from .case import label as label
from .case import labels as labels
from .case import layer_text as layer_text
from .case import normal as normal
from .case import row as row
from .chains import CHAINS
from .common import COMMON
from .loss import LOSS
from .normalization import NORMALIZATION
from .pooling import POOLING
from .recurrent import RECURRENT
from .reshaping import ARRANGEMENT
from .utility import PARAMETER, UTILITY
from .vision import CONVOLUTION, CROP, IM2COL
from .vision import DECONVOLUTION as DECONVOLUTION

GOLDEN_CASES = tuple(golden(path) for path in sorted(GOLDEN.glob("*.prototxt")))

CASES = (
    *CONVOLUTION,
    *DECONVOLUTION,
    *CROP,
    *IM2COL,
    *POOLING,
    *ACTIVATION,
    *NORMALIZATION,
    *COMMON,
    *UTILITY,
    *RECURRENT,
    *PARAMETER,
    *ARRANGEMENT,
    *LOSS,
    *CHAINS,
    *GOLDEN_CASES,
)
