"""Settings that have moved to transform_param are ignored in their old place, as Caffe does."""

import numpy as np
import pytest
from image_sources import LMDB_, data, images
from image_sources import _among_the_files as _among_the_files

from netspec.frontend import ignored_fields
from netspec.sources.base import Source

LIST = 'source: "list_full.txt" batch_size: 1 new_height: 8 new_width: 8'
WARNING = "{} has no effect here, nor in Caffe; to have it, write transform_param {{ {}: ... }}"


BOTH = [
    ("scale", "2", "scale"),
    ("mirror", "true", "mirror"),
    ("crop_size", "3", "crop_size"),
    ("mean_file", '"nil"', "mean_file"),
]
ROWS = [
    *((make, *setting) for make in (data, images) for setting in BOTH),
    # ImageData never had this one.
    (data, "force_encoded_color", "true", "force_color"),
]


@pytest.mark.parametrize(("make", "setting", "value", "now"), ROWS)
def test_a_warning_and_the_same_images(
    make: type[Source], setting: str, value: str, now: str, caplog: pytest.LogCaptureFixture
) -> None:
    ignored_fields.warn_once.cache_clear()
    plain = LMDB_ if make is data else LIST
    with make(plain) as source, make(f"{plain} {setting}: {value}") as other:
        expected, found = source.next(), other.next()
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[top], found[top]) for top in expected)
    name = "Data" if make is data else "ImageData"
    assert caplog.messages == [
        f'net.prototxt:1: layer "d" ({name}): {WARNING.format(setting, now)}'
    ]
