"""What a source is to the compiler: known types, shapes and labels."""

from pathlib import Path

import numpy as np
import pytest
from list_sources import opened
from list_sources import rows as rows

from netspec.errors import SourceError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.layers.records import Labels
from netspec.sources import check_labels
from netspec.sources.feed import shapes_of_sources
from netspec.sources.images.decode import preprocess

# The registry


def test_sources_that_are_not_known() -> None:
    with pytest.raises(SourceError) as caught:
        opened(
            'layer { name: "d" type: "Python" top: "a" '
            'python_param { module: "voc_layers" layer: "VOCSegLayer" } }'
        )
    assert str(caught.value) == (
        'net.prototxt:1: layer "d" (Python): no module "voc_layers" in the current folder or on '
        "PYTHONPATH; it should define the class VOCSegLayer; built in are "
        "voc_layers.VOCSegDataLayer, voc_layers.SBDDSegDataLayer, "
        "pascalcontext_layers.PASCALContextSegDataLayer, nyud_layers.NYUDSegDataLayer, "
        "siftflow_layers.SIFTFlowSegDataLayer; "
        'did you mean "voc_layers.VOCSegDataLayer"?'
    )
    with pytest.raises(
        SourceError, match=r"no source feeds this type \(those that are fed: Data, DummyData, "
    ):
        opened('layer { name: "d" type: "Input" top: "a" }')


def test_shapes_of_sources(rows: Path) -> None:
    net = parse_net(
        """
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 4 } } }
        layer { name: "d" type: "HDF5Data" top: "data" top: "label"
                hdf5_data_param { source: "list.txt" batch_size: 4 } }
        """
    )
    graph = connect(net)
    assert shapes_of_sources(graph, {}) == {"data": (4, 2, 3), "label": (4,)}
    given: dict[str, tuple[int, ...]] = {"data": (1, 2, 3)}
    assert shapes_of_sources(graph, given) == {"data": (1, 2, 3), "label": (4,)}
    # What is given whole is not opened.
    (rows / "list.txt").unlink()
    given["label"] = (1,)
    assert shapes_of_sources(graph, given) == given


# Labels


def test_labels() -> None:
    labels = Labels(bottom=1, scores=0, classes=21, ignore=255)
    array = np.zeros((1, 1, 40, 20), np.float32)
    array[0, 0, :2] = 255
    array[0, 0, 3] = 20
    check_labels(array, labels, "a.png")
    check_labels(array.astype(np.uint8), labels, "a.png")
    array[0, 0, 30, 12] = 77
    array[0, 0, 31, 2] = 78
    message = (
        r"^label 77 at \(x 12, y 30\) of a.png; the net has 21 classes \(0..20\) and ignores 255$"
    )
    for kind in (np.float32, np.uint8):
        with pytest.raises(SourceError, match=message):
            check_labels(array.astype(kind), labels, "a.png")


@pytest.mark.parametrize("value", [-1, 21, 0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("ignore", [None, 255])
def test_labels_that_are_no_class(value: float, ignore: int | None) -> None:
    labels = Labels(bottom=1, scores=0, classes=21, ignore=ignore)
    array = np.zeros(5, np.float32)
    array[3] = value
    with pytest.raises(SourceError, match=rf"^label {value:g} in sample 3 of blob; the net has 21"):
        check_labels(array, labels, "blob")


def test_labels_that_nothing_ignores() -> None:
    labels = Labels(bottom=1, scores=0, classes=3, ignore=None)
    array = np.zeros((2, 1, 2, 2), np.uint8)
    array[1, 0, 0, 1] = 255
    with pytest.raises(SourceError) as caught:
        check_labels(array, labels, "label")
    assert str(caught.value) == (
        "label 255 at (x 1, y 0) in sample 1 of label; the net has 3 classes (0..2); "
        "loss_param { ignore_label: 255 } skips such pixels"
    )
    with pytest.raises(SourceError, match=r"^label 255 at \(x 1, y 0\) of b.png; "):
        check_labels(array, labels, "label", ("a.png", "b.png"))
    with pytest.raises(SourceError, match=r"^label 3 of line 2; "):
        check_labels(np.array([0, 3]), labels, "label", ("line 1", "line 2"))
    check_labels(
        np.full((1, 2), -1), Labels(bottom=1, scores=0, classes=3, ignore=-1), "negative ignored"
    )


def test_preprocess() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    blob = preprocess(image, (100, 200, 300))
    assert blob.shape == (1, 3, 2, 2)
    np.testing.assert_array_equal(blob[0, :, 1, 0], [8 - 100, 7 - 200, 6 - 300])
