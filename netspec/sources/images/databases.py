"""Databases of key-value records, LMDB and LevelDB, read and written in the order of keys.

Caffe: ``db_lmdb.cpp``, ``db_leveldb.cpp``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property, partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from netspec.errors import SourceError, fail, require, unreadable
from netspec.formats.regular import open_regular
from netspec.proto.layers_pb2 import DataParameter

KeyValue = tuple[bytes, bytes]
# A key, and a function that reads its value, in any thread.
UnreadValue = tuple[bytes, Callable[[], bytes]]
# A function that puts some records into a database in one transaction.
Put = Callable[[Iterable[KeyValue]], None]


class Database(ABC):
    """Records by key, opened to be read; nothing is ever written into the folder ``path``.

    kind: its name in ``backend``. mark: the file by which its folder is known.
    """

    kind: str
    mark: str

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def records(self, start: bytes = b"") -> Generator[KeyValue, None, None]:
        """(key, value) of each record in the order of keys, from ``start`` on; SourceError."""

    def unread(self, start: bytes = b"") -> Generator[UnreadValue, None, None]:
        """As `records`, but values are read when they are asked for, if that is as fast."""
        for key, value in self.records(start):
            yield key, partial(bytes, value)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many records there are."""

    @abstractmethod
    def close(self) -> None:
        """Close files."""

    @classmethod
    @abstractmethod
    def created(cls, folder: Path) -> AbstractContextManager[Put]:
        """Create a database in an empty folder; gives a function that puts records into it."""

    @contextmanager
    def _blamed(self, error: type[Exception]) -> Iterator[None]:
        """Turn the library's own error, raised inside, into a SourceError."""
        try:
            yield
        except error as raised:
            reason = raised.args[0] if raised.args else raised
            if isinstance(reason, bytes):
                reason = reason.decode("utf-8", "replace")
            fail(f"{self.path}: damaged, or no {self.kind} database ({reason})", SourceError)


# By device and inode of their files.
_ENVIRONMENTS: weakref.WeakValueDictionary[tuple[int, int], lmdb.Environment] = (
    weakref.WeakValueDictionary()
)


class LMDB(Database):
    """An LMDB, opened without its lock file, so that it may lie where nothing can be written.

    A process may open an LMDB only once, so all its readers share one environment.
    """

    kind = "LMDB"
    mark = "data.mdb"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with open_regular(path / self.mark) as file:
                status = os.fstat(file.fileno())
        except OSError as error:
            fail(unreadable(path / self.mark, error), SourceError)
        same = status.st_dev, status.st_ino
        with self._blamed(lmdb.Error):
            self._environment = _ENVIRONMENTS.get(same) or lmdb.open(
                str(path), readonly=True, lock=False, create=False
            )
            _ENVIRONMENTS[same] = self._environment
            pages = self._environment.info()["last_pgno"] + 1
            size = pages * self._environment.stat()["psize"]
        if status.st_size < size:
            self.close()
            # Touching a page that the file lacks would kill the process.
            fail(
                f"{path / self.mark}: truncated: it has {status.st_size} of its {size} bytes",
                SourceError,
            )

    def records(self, start: bytes = b"") -> Generator[KeyValue, None, None]:
        with (
            self._blamed(lmdb.Error),
            self._environment.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            if cursor.set_range(start):
                yield from cursor

    def unread(self, start: bytes = b"") -> Generator[UnreadValue, None, None]:
        with (
            self._blamed(lmdb.Error),
            self._environment.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            if cursor.set_range(start):
                for key in cursor.iternext(keys=True, values=False):
                    yield key, partial(self._get, key)

    def _get(self, key: bytes) -> bytes:
        with self._blamed(lmdb.Error), self._environment.begin() as transaction:
            value = transaction.get(key)
        if value is None:
            fail(f"{self.path}: has changed since it was opened", SourceError)
        return value

    @property
    def count(self) -> int:
        with self._blamed(lmdb.Error):
            return int(self._environment.stat()["entries"])

    def close(self) -> None:
        # Closed when the last object that shares it is gone.
        del self._environment

    @classmethod
    @contextmanager
    def created(cls, folder: Path) -> Iterator[Put]:
        # Room to grow, not to fill: the file is as long as what is in it.
        with lmdb.open(str(folder), map_size=1 << 40) as environment:

            def put(records: Iterable[KeyValue]) -> None:
                with environment.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)

            yield put


class LevelDB(Database):
    """A LevelDB, read through a temporary folder of links to its files.

    LevelDB writes into the folder that it opens and locks it; here that is the folder of links.
    Needs plyvel.
    """

    kind = "LEVELDB"
    mark = "CURRENT"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._library = _plyvel(path)
        links = Path(tempfile.mkdtemp(prefix="netspec-leveldb-"))
        self._remove = weakref.finalize(self, shutil.rmtree, links, ignore_errors=True)
        for file in path.resolve().iterdir():
            # Whoever opens a database locks the one file and writes into the others.
            if file.name not in ("LOCK", "LOG", "LOG.old"):
                (links / file.name).symlink_to(file)
        with self._blamed(self._library.Error):
            self._database = self._library.DB(str(links), create_if_missing=False)

    def records(self, start: bytes = b"") -> Generator[KeyValue, None, None]:
        # Plyvel's other iterator ends at a damaged block as if it were the last.
        with (
            self._blamed(self._library.Error),
            self._database.raw_iterator(verify_checksums=True) as found,
        ):
            found.seek(start)
            while found.valid():
                yield found.item()
                found.next()

    @cached_property
    def count(self) -> int:
        return sum(1 for _ in self.records())

    def close(self) -> None:
        self._database.close()
        self._remove()

    @classmethod
    @contextmanager
    def created(cls, folder: Path) -> Iterator[Put]:
        library = _plyvel(folder)
        try:
            with closing(library.DB(str(folder), create_if_missing=True)) as database:

                def put(records: Iterable[KeyValue]) -> None:
                    with database.write_batch(sync=True) as batch:
                        for key, value in records:
                            batch.put(key, value)

                yield put
        except library.Error as error:
            fail(f"{folder}: {error}", SourceError)


BACKENDS: dict[int, type[Database]] = {
    DataParameter.LEVELDB: LevelDB,
    DataParameter.LMDB: LMDB,
}


def open_database(path: Path, backend: int) -> Database:
    """The database in a folder; raises SourceError. backend: a value of ``DataParameter.DB``."""
    named = BACKENDS[backend]
    try:
        files = {file.name for file in path.iterdir()}
    except ValueError:
        fail(f"source: {path}: no path of a folder", SourceError)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        fail(
            f"source: {path}: no such folder" if missing else f"source: {unreadable(path, error)}",
            SourceError,
        )
    for other in BACKENDS.values():
        require(
            named.mark in files or other.mark not in files,
            f"source: {path} is a database of the other kind; write backend: {other.kind} "
            "(LEVELDB is what is read where none is given)",
            SourceError,
        )
    require(
        named.mark in files,
        f"source: {path}: no {named.kind} database; it lacks the file {named.mark}",
        SourceError,
    )
    return named(path)


def write_database(path: Path, backend: int, records: Iterable[KeyValue]) -> int:
    """Write a new database, which appears whole or not at all; returns the number of records.

    path: its folder, which must not exist. Raises SourceError.
    """
    count = 0
    with new_database(path, backend) as put:
        for some in _batches(records):
            put(some)
            count += len(some)
    return count


@contextmanager
def new_database(path: Path, backend: int) -> Iterator[Put]:
    """Give a function that puts records into a new database, which appears whole or not at all.

    path: its folder, which must not exist. Raises SourceError.
    """
    require(not os.path.lexists(path), f"{path}: exists already", SourceError)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        with BACKENDS[backend].created(part) as put:
            yield put
        os.rename(part, path)
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except lmdb.Error as error:
        fail(f"{path}: {str(error).replace(str(part), str(path))}", SourceError)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _batches(records: Iterable[KeyValue], size: int = 1000) -> Iterator[list[KeyValue]]:
    """Records in lists of ``size``, as many as one transaction writes."""
    left = iter(records)
    while some := list(islice(left, size)):
        yield some


def _plyvel(path: Path) -> Any:
    """The library that reads LevelDB."""
    try:
        # Not every installation has it.
        return import_module("plyvel")
    except ImportError:
        fail(
            f'{path}: LevelDB needs plyvel: pip install "netspec[leveldb]"; or convert it to LMDB',
            SourceError,
        )
