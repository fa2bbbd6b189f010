"""Files appear whole or not at all."""

from pathlib import Path

import pytest
from weight_files import net as net

from netspec.formats.atomic import atomic_write
from netspec.runtime.module import Net
from netspec.weights.caffemodel import write_weights


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as part:
            part.write_bytes(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x"
    with atomic_write(path) as part:
        part.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_weights_that_cannot_be_written_leave_the_old_ones(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"old")
    missing = {key: array for key, array in net.arrays().items() if key.layer != "ip"}
    with pytest.raises(KeyError, match=r"^ParamKey\(layer='ip', "):
        write_weights(path, net.shapes, missing)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
