"""HDF5 files of rows: read by need, refused where they lead elsewhere or are damaged."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from list_sources import opened
from list_sources import rows as rows

from netspec.cli.verbs import main
from netspec.errors import DamagedDataError, NetSpecError, SourceError
from netspec.formats import hdf5_rows
from netspec.formats.hdf5_rows import RowReader, inspect
from netspec.sources import Source

MUTANTS = 300


def source(tops: str = "data label", batch_size: int = 4, shuffle: bool = False) -> Source:
    named = " ".join(f'top: "{top}"' for top in tops.split())
    return opened(
        f'layer {{ name: "d" type: "HDF5Data" {named} hdf5_data_param {{ source: "list.txt" '
        f"batch_size: {batch_size} shuffle: {json.dumps(shuffle)} }} }}"
    )


@pytest.fixture
def one(rows: Path) -> Path:
    """A folder whose list names x.h5, to be written."""
    (rows / "list.txt").write_text("x.h5")
    return rows


def refused(reason: str) -> None:
    with pytest.raises(DamagedDataError) as caught:
        source("x").next()
    assert str(caught.value) == f'net.prototxt:1: layer "d" (HDF5Data): x.h5: {reason}'


@pytest.mark.differs("hdf5-other-files")
def test_links_to_other_files_are_not_followed(one: Path) -> None:
    leads = '"{}" leads to another file, {}, which is not read'
    with h5py.File("x.h5", "w") as file:
        file["x"] = h5py.ExternalLink("a.h5", "/data")
    refused(leads.format("x", "a.h5"))
    with h5py.File("x.h5", "w") as file:
        file["x"] = h5py.SoftLink("/inner/data")
        file["inner"] = h5py.ExternalLink("a.h5", "/")
    refused(leads.format("inner", "a.h5"))


def test_links_within_the_file_are_followed(one: Path) -> None:
    with h5py.File("x.h5", "w") as file:
        file["x"] = h5py.SoftLink("deep/y")
        file["deep/y"] = h5py.SoftLink("./z")
        file["deep/z"] = np.arange(5)
    assert source("x", 5).next()["x"].tolist() == [0, 1, 2, 3, 4]
    assert source("deep/z", 2).tops == {"deep/z": (2,)}


def test_links_in_circles(one: Path) -> None:
    with h5py.File("x.h5", "w") as file:
        file["x"] = h5py.SoftLink("y/x")
        file["y"] = h5py.SoftLink("x/y")
    refused("is damaged: links in circles")


def test_numbers_in_other_files_are_not_read(one: Path) -> None:
    (one / "secret").write_bytes(bytes(64))
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("x", (8, 2), np.float32, external=[("secret", 0, 64)])
    refused("keeps numbers in other files (external storage), which are not read")
    layout = h5py.VirtualLayout((5, 2, 3), np.float32)
    layout[:] = h5py.VirtualSource("a.h5", "data", (5, 2, 3))
    with h5py.File("x.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    refused("is made of other data (a virtual dataset), which is not read; write the numbers out")


@pytest.mark.differs("hdf5-held")
def test_more_rows_than_the_file_holds(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("x", (10**12,), np.float64)
    refused(
        '"x" states 8,000,000,000,000 bytes, but the file holds 0 of them: it is damaged, '
        "or leaves rows unwritten, which are not read"
    )
    with h5py.File("x.h5", "w") as file:
        # A set that nobody wrote to is zeros, if it is small.
        file.create_dataset("x", (100, 2), np.float64)
    assert source("x").next()["x"].tolist() == [[0, 0]] * 4
    monkeypatch.setattr(hdf5_rows, "_SMALL", 1000)
    with h5py.File("x.h5", "w") as file:
        zeros = np.zeros((200, 200), np.float32)
        file.create_dataset("x", data=zeros, chunks=(200, 200), compression="gzip")
    with pytest.raises(DamagedDataError, match=r'"x" has chunks of 160,000 bytes, but the file ho'):
        source("x")


def test_a_batch_that_no_blob_holds(one: Path) -> None:
    with h5py.File("x.h5", "w") as file:
        file["x"] = np.zeros((3, 1000))
    with pytest.raises(SourceError, match=r'blob "x" is 9000000x1000: 9,000,000,000 numbers, but'):
        source("x", 9_000_000)


def test_rows_that_are_too_many_to_shuffle(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netspec.sources.readers.hdf5_list._MOST_SHUFFLED", 4)
    (one / "list.txt").write_text("a.h5")
    with pytest.raises(SourceError, match=r"a.h5: 5 rows; shuffle: true takes files of at most 4"):
        source(shuffle=True)
    assert source().next()["label"].tolist() == [0, 1, 2, 3]


STORED: dict[str, Callable[[h5py.File, np.ndarray], None]] = {
    "in one piece": lambda file, array: file.create_dataset("x", data=array),
    "chunks": lambda file, array: file.create_dataset("x", data=array, chunks=(3, 2)),
    "packed": lambda file, array: file.create_dataset(
        "x", data=array, chunks=(4, 1), compression="gzip", shuffle=True
    ),
    "big endian": lambda file, array: file.create_dataset("x", data=array.astype(">f8")),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "by need"])
def test_rows_by_need_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, kept: bool
) -> None:
    array = np.random.default_rng(0).normal(size=(23, 2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        STORED[stored](file, array)
    monkeypatch.setattr(hdf5_rows, "_MOST_KEPT", 1000 if kept else 0)
    monkeypatch.setattr(hdf5_rows, "_PIECE", 80)
    about = inspect(tmp_path / "x.h5", ["x"])
    assert about == (tmp_path / "x.h5", 23, {"x": (2,)})
    reader = RowReader(about)
    for seed in range(20):
        rows = np.random.default_rng(seed).permutation(23)[: seed + 1]
        rows = rows if seed % 2 else np.sort(rows)
        np.testing.assert_array_equal(reader.take("x", rows), array[rows].astype(np.float32))
    reader.close()


@pytest.mark.differs("hdf5-by-need")
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_source_by_need_hands_out_the_same(
    rows: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool
) -> None:
    first = source(batch_size=3, shuffle=shuffle)
    expected = [first.next() for _ in range(9)]
    monkeypatch.setattr(hdf5_rows, "_MOST_KEPT", 0)
    second = source(batch_size=3, shuffle=shuffle)
    for batch in expected:
        found = second.next()
        for name, array in batch.items():
            np.testing.assert_array_equal(found[name], array)
    second.close()


def test_summary_reads_no_rows(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one / "list.txt").write_text("a.h5")
    net = one / "net.prototxt"
    net.write_text(
        'layer { name: "d" type: "HDF5Data" top: "data" '
        'hdf5_data_param { source: "list.txt" batch_size: 3 } }'
    )
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
    for verb in (["summary"], ["draw", "-o", str(one / "a.svg")]):
        assert CliRunner().invoke(main, [verb[0], str(net), *verb[1:]]).exit_code == 0


def test_summary_names_damage(one: Path) -> None:
    (one / "x.h5").write_bytes(b"nothing")
    net = one / "net.prototxt"
    net.write_text(
        'layer { name: "d" type: "HDF5Data" top: "data" '
        'hdf5_data_param { source: "list.txt" batch_size: 3 } }'
    )
    result = CliRunner().invoke(main, ["summary", str(net)])
    assert result.exit_code == 1
    assert result.stderr.endswith("x.h5: damaged, or not an HDF5 file\n")


def _mutant(data: bytes, seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    damaged = np.frombuffer(data, np.uint8).copy()
    if seed % 4 == 0:
        return damaged[: draw.integers(len(damaged))].tobytes()
    for at in draw.integers(len(damaged), size=draw.integers(1, 6)):
        damaged[at] = draw.integers(256)
    if seed % 4 == 1:
        start = int(draw.integers(len(damaged)))
        draw.shuffle(damaged[start : start + 16])
    return damaged.tobytes()


def _read_mutants() -> int:
    """How many damaged files are refused, each with one line; what else is raised passes."""
    with h5py.File("x.h5", "w", libver="latest") as file:
        file.create_dataset("data", data=np.ones((6, 4)), chunks=(2, 4), compression="gzip")
        file["label"] = h5py.SoftLink("/inner/label")
        file["inner/label"] = np.arange(6)
    count = 0
    for file in (Path("x.h5"), Path("a.h5")):
        data = file.read_bytes()
        for seed in range(MUTANTS):
            Path("x.h5").write_bytes(_mutant(data, seed))
            try:
                with source() as opened_:
                    opened_.next()
                    opened_.next()
            except NetSpecError as error:
                count += "\n" not in str(error)
                str(error).encode()
    return count


def test_mutants_give_one_line(one: Path) -> None:
    """In a process of its own: HDF5's library may write where it should not."""
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > MUTANTS // 2


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    print(_read_mutants())
