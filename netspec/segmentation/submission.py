"""Write predicted labels of a whole set as a folder of label images, for evaluation servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import GraphError, SourceError, require
from netspec.formats.palette import save_indexed
from netspec.runtime.module import Net
from netspec.segmentation.predict import image_blob, score_blob
from netspec.sources.feed import Feed


class Results:
    """Writes a label image of each sample as a net is run on its data.

    Each is ``folder/SAMPLE.png``, a palette image of class indices of the image's size, below the
    folders that the set's evaluation server expects (for VOC,
    ``results/VOC2012/Segmentation/comp6_test_cls``). Several scores have a folder each, named after
    the blob.
    """

    def __init__(self, folder: str | Path, feed: Feed, scores: Sequence[str]) -> None:
        self.folder = Path(folder) / feed.about.results
        self.written: dict[Path, None] = {}
        self._feed = feed
        self._scores = scores

    def keep(self, blobs: Mapping[str, NDArray[Any]]) -> None:
        """Write the labels of the batch last fed; raises SourceError if nothing names it."""
        sample = self._feed.sample
        require(
            sample,
            "results are named after their images, one a batch, but the data layer hands out "
            "several at once, or has no names for them; set batch_size: 1, or read image files",
            SourceError,
        )
        for name in self._scores:
            folder = self.folder / name if len(self._scores) > 1 else self.folder
            path = folder / f"{sample}.png"
            require(
                path not in self.written,
                f"two images of the set are called {sample}; both would be written to {path}",
                SourceError,
            )
            save_indexed(path, np.asarray(np.argmax(blobs[name][0], axis=0)))
            self.written[path] = None


def scored_blobs(net: Net, labelled: Sequence[str]) -> tuple[str, ...]:
    """The scores whose labels results hold: those compared with labels, or else the only ones.

    Raises GraphError if there are none.
    """
    if labelled:
        return tuple(labelled)
    try:
        return (score_blob(net.shapes, image_blob(net.shapes)),)
    except GraphError as error:
        raise GraphError(f"nothing to score or to save: {error}") from None
