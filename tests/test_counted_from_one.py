"""Labels of classes that are counted from 1."""

from pathlib import Path

import numpy as np
import pytest

from netspec.errors import SourceError
from netspec.sources.sets.matlab import counted_from_one

PATH = Path("labels.mat")


def test_classes_begin_at_0_and_voids_become_255() -> None:
    labels = np.array([[1, 2, 255], [0, -1, 40]])
    found = counted_from_one(labels, PATH, voids=(-1, 0))
    assert found.tolist() == [[0, 1, 254], [255, 255, 39]]


@pytest.mark.parametrize("label", [-1, 256, 257])
def test_other_numbers_are_told_as_the_file_has_them(label: int) -> None:
    with pytest.raises(SourceError) as raised:
        counted_from_one(np.array([[1, 1], [label, 1]]), PATH)
    assert str(raised.value) == (
        f"labels.mat: label {label} at (x 0, y 1); classes are 1..255, 0 none"
    )
