"""What feeds a net from the host, a batch at a time."""

from netspec.sources import (  # noqa: F401 (they enter the registry)
    context,
    dummy,
    hdf5,
    images,
    listed,
    memory,
    nyud,
    python,
    records,
    segmentation,
    siftflow,
    window,
)
from netspec.sources.base import Batch as Batch
from netspec.sources.base import Source as Source
from netspec.sources.base import open_source as open_source
from netspec.sources.checks import check_labels as check_labels
from netspec.sources.prefetch import Prefetch as Prefetch
