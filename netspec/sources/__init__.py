"""Sources: read data on the host and feed it to a net, a batch at a time.

Imports `frontend` and what is below it, and in `fed_net` alone `runtime`; never `solving`,
`segmentation` or `cli`.
"""

from netspec.sources.base import Batch as Batch
from netspec.sources.base import Source as Source
from netspec.sources.base import open_source as open_source
from netspec.sources.checks import check_labels as check_labels
from netspec.sources.prefetch import Prefetch as Prefetch
from netspec.sources.readers import (  # noqa: F401 (each registers its readers)
    database,
    dummy_data,
    hdf5_list,
    image_list,
    memory_data,
    python_layer,
    segmentation_list,
    windows,
)

# In the order in which messages name them.
from netspec.sources.sets import pascal_voc, pascal_context, nyud, siftflow  # noqa: F401  # isort: skip
