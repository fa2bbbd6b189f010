"""Tell what a file is by its first bytes, and refuse one that is no weight file or solver state.

People name an archive, a web page, a PyTorch pickle or the wrong file of a snapshot; the error says
which of these it is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import h5py

from netspec.errors import WeightsError, fail, require
from netspec.formats import hdf5, protobuf_wire
from netspec.formats.regular import open_regular
from netspec.formats.text import encoding_of

# First bytes -> what such a file is.
_BEGINNINGS = {
    b"\x1f\x8b": "is a gzip archive; unpack it first",
    b"BZh": "is a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "is an xz archive; unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"Rar!": "is a rar archive; unpack it first",
    b"\x80\x02": "is a Python pickle, as PyTorch writes; only Caffe's files can be read",
    b"\x80\x03": "is a Python pickle; only Caffe's files can be read",
    b"\x80\x04": "is a Python pickle; only Caffe's files can be read",
    b"\x80\x05": "is a Python pickle; only Caffe's files can be read",
    b"\x93NUMPY": "is a NumPy array; only Caffe's files can be read",
    b"\xff\xd8\xff": "is a JPEG image; only Caffe's files can be read",
    b"\x89PNG": "is a PNG image; only Caffe's files can be read",
}
# First characters of a text, in lower case -> what it is.
_TEXTS = {
    "version https://git-lfs": 'is a pointer of git LFS, not the file itself; "git lfs pull" '
    "fetches it",
    "<": "is a web page, not the file itself; download it again",
    "{": "is JSON, perhaps a server's message; download it again",
}
# Names of a zip archive's first entry.
_ZIPPED = {
    b".npy": "is a NumPy .npz; only Caffe's files can be read",
    b".pkl": "is a PyTorch file; only Caffe's files can be read",
}
_ZIP, _ZIP_NAME = b"PK\x03\x04", 30
_TAR, _TAR_AT = b"ustar", 257
# A manifest begins with a digest in hexadecimal.
_MANIFEST, _MANIFEST_AT = b'\n{"netspec":', 64

# The fields of a net that weights stand in, and those of a solver state with their wire types.
_NAME, _V1_LAYERS, _LAYERS = 1, 2, 100
_ITER, _LEARNED_NET = 1, 2
_STATE = {
    (_ITER, protobuf_wire.VARINT),
    (_LEARNED_NET, protobuf_wire.BYTES),
    (3, protobuf_wire.BYTES),
    (4, protobuf_wire.VARINT),
}


def refuse_other_formats(path: Path) -> None:
    """Raise WeightsError for a file that begins like neither a weight file nor a solver state.

    Raises OSError where it cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(4096)
    require(head, "is empty", WeightsError)
    for beginning, what in _BEGINNINGS.items():
        require(not head.startswith(beginning), what, WeightsError)
    if head.startswith(_ZIP):
        name = head[_ZIP_NAME : _ZIP_NAME + int.from_bytes(head[26:28], "little")]
        named = (what for end, what in _ZIPPED.items() if name.endswith(end))
        fail(next(named, "is a zip archive; unpack it first"), WeightsError)
    require(not head[_TAR_AT:].startswith(_TAR), "is a tar archive; unpack it first", WeightsError)
    require(
        not head[_MANIFEST_AT:].startswith(_MANIFEST),
        "is the record of a snapshot; name the .solverstate or the .caffemodel beside it",
        WeightsError,
    )
    words = _text(head)
    for start, what in _TEXTS.items():
        require(not words.lower().startswith(start), what, WeightsError)
    require(
        "{" not in words,
        "is prototxt text; weights are a .caffemodel, solver states a .solverstate",
        WeightsError,
    )
    shown = words.partition("\n")[0].strip()[:40]
    require(
        not words, f'is text that begins "{shown}"; only Caffe\'s files can be read', WeightsError
    )


def _text(head: bytes) -> str:
    """The text that a file begins with; empty for bytes, such as the tags of a message."""
    encoding, mark = encoding_of(head)
    # The last character may be cut.
    words = head[mark:].decode(encoding, "replace").rstrip("\ufffd")
    plain = all(letter >= " " or letter in "\t\n\r" for letter in words)
    return words.strip() if plain and "\ufffd" not in words else ""


def refuse_solver_state(path: Path) -> None:
    """Raise WeightsError for a solver state; the message names its weight file."""
    named = (
        _hdf5_learned_net(path)
        if hdf5.is_hdf5(path)
        else _binary_learned_net(protobuf_wire.mapped(path))
    )
    if named is not None:
        where = f"; its weights are in {named}" if named else ""
        fail(f"is a solver state, not weights{where}", WeightsError)


def refuse_weights(path: Path) -> None:
    """Raise WeightsError for a file that holds a net's weights."""
    require(
        not (
            _is_hdf5_net(path) if hdf5.is_hdf5(path) else _is_binary_net(protobuf_wire.mapped(path))
        ),
        "holds a net's weights, not a solver state; name the .solverstate written with them",
        WeightsError,
    )


def _binary_learned_net(data: memoryview) -> str | None:
    """The weight file that a state names, empty if none; None if this is no state."""
    found: dict[int, int | memoryview] = {}
    with suppress(WeightsError):
        for number, kind, value in protobuf_wire.fields(data):
            if (number, kind) not in _STATE:
                return None
            found[number] = value
        if _ITER in found:
            return protobuf_wire.string(found[_LEARNED_NET]) if _LEARNED_NET in found else ""
    return None


def _hdf5_learned_net(path: Path) -> str | None:
    with suppress(WeightsError), hdf5.opened(path, "HDF5 file") as file:
        if None not in (hdf5.member(file, "history"), hdf5.member(file, "iter")):
            named = hdf5.member(file, "learned_net")
            return "" if named is None else hdf5.string(named)
    return None


def _is_binary_net(data: memoryview) -> bool:
    with suppress(WeightsError):
        found = {(number, kind) for number, kind, _ in protobuf_wire.fields(data)}
        old = {(_NAME, protobuf_wire.BYTES), (_V1_LAYERS, protobuf_wire.BYTES)}
        return (_LAYERS, protobuf_wire.BYTES) in found or old <= found
    return False


def _is_hdf5_net(path: Path) -> bool:
    with suppress(WeightsError), hdf5.opened(path, "HDF5 file") as file:
        return isinstance(hdf5.member(file, "data"), h5py.Group)
    return False
