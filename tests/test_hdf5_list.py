"""HDF5Data: files in a list, rows in turn or shuffled."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from list_sources import opened, write_rows
from list_sources import rows as rows

from netspec.errors import SourceError
from netspec.frontend.prototxt import read_net
from netspec.proto.layers_pb2 import TEST
from netspec.sources import Source, open_source

GOLDEN = Path(__file__).parent / "golden" / "data"


def hdf5(seed: int | None = 7, tops: str = "data label", **param: object) -> Source:
    fields = " ".join(f"{key}: {json.dumps(value)}" for key, value in param.items())
    named = " ".join(f'top: "{top}"' for top in tops.split())
    return opened(
        f'layer {{ name: "d" type: "HDF5Data" {named} hdf5_data_param {{ {fields} }} }}', seed
    )


def labels_of(source: Source, batches: int) -> list[list[int]]:
    return [source.next()["label"].astype(int).tolist() for _ in range(batches)]


def test_hdf5_is_caffes(monkeypatch: pytest.MonkeyPatch) -> None:
    net = read_net(GOLDEN / "cases" / "hdf5.prototxt")
    golden = np.load(GOLDEN / "cases" / "hdf5.npz")
    monkeypatch.chdir(GOLDEN / "files")
    source = open_source(net.message.layer[0], TEST, None, net.places[0])
    assert source.tops == {"data": (3, 2, 3, 4), "label": (3,)}
    for i in range(4):
        batch = source.next()
        for name, array in batch.items():
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            np.testing.assert_array_equal(array, golden[f"{i}/{name}"])


def test_hdf5_batches_run_across_files_and_around(rows: Path) -> None:
    source = hdf5(source="list.txt", batch_size=3)
    assert source.describe() == "HDF5Data: 8 rows in 2 files that list.txt lists, in order"
    assert source.batches == 3
    assert labels_of(source, 2) == [[0, 1, 2], [3, 4, 5]]
    assert source.current == "a.h5, b.h5"
    assert labels_of(source, 2) == [[6, 7, 0], [1, 2, 3]]
    batch = hdf5(source="list.txt", batch_size=20).next()
    assert batch["label"].tolist() == [*range(8), *range(8), *range(4)]
    np.testing.assert_array_equal(batch["data"][:, 1, 2], batch["label"])


@pytest.mark.differs("beside")
def test_hdf5_finds_files_beside_their_list(
    rows: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert labels_of(hdf5(source=str(rows / "list.txt"), batch_size=2), 1) == [[0, 1]]
    # What the current folder has goes first, as in Caffe.
    write_rows(elsewhere / "a.h5", 40, 2)
    assert labels_of(hdf5(source=str(rows / "list.txt"), batch_size=3), 1) == [[40, 41, 5]]


def test_hdf5_shuffle_takes_each_row_once_a_pass(rows: Path) -> None:
    source = hdf5(source="list.txt", batch_size=8, shuffle=True)
    passes = labels_of(source, 4)
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    # Rows stay in their file's turn.
    for one in passes:
        assert {*one[:5]} == {*range(5)} or {*one[:3]} == {5, 6, 7}
    assert labels_of(hdf5(source="list.txt", batch_size=8, shuffle=True), 4) == passes
    assert labels_of(hdf5(8, source="list.txt", batch_size=8, shuffle=True), 4) != passes


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("files", ["a.h5", "a.h5 b.h5"])
@pytest.mark.parametrize("taken", [0, 1, 4, 5])
def test_hdf5_goes_on_where_its_state_was_taken(
    rows: Path, shuffle: bool, files: str, taken: int
) -> None:
    (rows / "list.txt").write_text(files)
    source = hdf5(None, source="list.txt", batch_size=2, shuffle=shuffle)
    labels_of(source, taken)
    state = json.loads(json.dumps(source.state()))
    expected = labels_of(source, 9)
    other = hdf5(None, source="list.txt", batch_size=2, shuffle=shuffle)
    other.restore(state)
    assert labels_of(other, 9) == expected


def test_hdf5_refuses_the_state_of_other_files(rows: Path) -> None:
    state = hdf5(source="list.txt", batch_size=2).state()
    (rows / "list.txt").write_text("a.h5")
    with pytest.raises(SourceError, match=r"the state is of files with 5, 3 rows, but they have 5"):
        hdf5(source="list.txt", batch_size=2).restore(state)
    (rows / "list.txt").write_text("a.h5 b.h5")
    with pytest.raises(
        SourceError, match=r"the state is of samples in turn, but they come at rand"
    ):
        hdf5(source="list.txt", batch_size=2, shuffle=True).restore(state)


def fails(message: str, **settings: object) -> None:
    """Opening must fail with this message, after the place and the layer."""
    with pytest.raises(SourceError) as caught:
        hdf5(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == f'net.prototxt:1: layer "d" (HDF5Data): {message}'


def test_hdf5_settings_that_cannot_work(rows: Path) -> None:
    fails("batch_size must be given and positive", source="list.txt")
    fails("source: nil.txt: no such file", source="nil.txt", batch_size=1)
    fails(
        'a.h5: no data set "lable" for this top; it has data, label; did you mean "label"?',
        tops="data lable",
        source="list.txt",
        batch_size=1,
    )
    (rows / "list.txt").write_text("\n")
    fails("list.txt: lists no files", source="list.txt", batch_size=1)
    (rows / "list.txt").write_text("a.h5 c.h5")
    fails("c.h5: no such file", source="list.txt", batch_size=1)
    fails(
        "a.h5: not a text file; source lists HDF5 files, one on a line",
        source="a.h5",
        batch_size=1,
    )
    with pytest.raises(SourceError, match=r"transform_param has no meaning here"):
        opened('layer { type: "HDF5Data" top: "a" transform_param { scale: 2 } }')
    with pytest.raises(SourceError, match=r"feeds the net: 1 bottoms, needs none"):
        opened('layer { type: "HDF5Data" bottom: "a" top: "a" }')


@pytest.mark.differs("hdf5-rows")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"label": np.zeros(2)}, '"label" has 2 rows, but "data" has 3'),
        ({"label": np.array([b"a"] * 3)}, '"label" holds |S1 values; numbers expected'),
        ({"label": np.float32(3)}, '"label" is one number; rows expected'),
        ({"data": np.zeros((0, 2, 3))}, '"data" has no rows'),
        ({"data": np.zeros((3, 2, 4))}, 'a row of "data" is 2x4, but in a.h5 it is 2x3'),
    ],
)
def test_hdf5_contents_that_cannot_work(rows: Path, damage: dict[str, Any], message: str) -> None:
    write_rows(rows / "b.h5", 5, 3, **damage)
    fails(f"b.h5: {message}", source="list.txt", batch_size=1)


def test_hdf5_damaged_file(rows: Path) -> None:
    (rows / "b.h5").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"\(HDF5Data\): b.h5: damaged, or not an HDF5 file$"):
        hdf5(source="list.txt", batch_size=1)
