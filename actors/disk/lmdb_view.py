"""One LMDB environment of ours as it stands, for a check or a backup: opened for reading only, without LMDB's lock file. Nothing in the directory is changed.

LMDB reads through a memory map, where a page beyond the end of the file kills the process. A node fills such a file up with zeros (`lmdb_env`); this one
makes a
copy in the system's place for temporary files, and fills that up. Pages whose content is garbage can still crash LMDB itself, so whoever wants to survive that
reads in another process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from coterie.actors.disk.lmdb_env import META, Identity, Layout, LmdbEnvironment, open_engine
from coterie.actors.errors import StorageError

if TYPE_CHECKING:
    from coterie.actors.disk.lmdb_env import Database

DATA_FILE = "data.mdb"


def look(path: Path, layout: Layout, identity: Identity) -> LmdbEnvironment:
    """What is there, for whoever trusts it and only reads. The caller sees to it that nobody writes meanwhile. StorageError: as `LmdbEnvironment.open`, and a file
    that is shorter than it says, which only opening it for writing can fill up."""
    try:
        engine = open_engine(path, layout, 0, readonly=True, lock=False, create=False)
    except (lmdb.Error, OSError) as error:
        raise StorageError(f"{layout.kind} in {path}: cannot be opened: {error}; remedy: {layout.remedy}") from error
    environment = LmdbEnvironment(path, layout, engine, 0, reads_only=True)
    try:
        if _lacks(path / DATA_FILE, engine) or engine.stat()["entries"] == 0:
            raise environment.damaged("its end is cut off: it")
        environment.identify(identity)
    except BaseException as error:
        engine.close()
        if isinstance(error, (lmdb.Error, OSError)):
            raise StorageError(f"{layout.kind} in {path}: cannot be read: {error}; remedy: {layout.remedy}") from error
        raise
    return environment


def _lacks(file: Path, engine: lmdb.Environment) -> int:
    """Bytes that the file's header promises and that are not there."""
    return max(0, (engine.info()["last_pgno"] + 1) * engine.stat()["psize"] - file.stat().st_size)


class LmdbView:
    """`Tables` (see `findings`) of the environment in the directory `path`, in one state. `lacks`: bytes of the file that its header promises and that are
    not there."""

    def __init__(self, path: Path, layout: Layout, cleanup: contextlib.ExitStack, environment: lmdb.Environment, lacks: int) -> None:
        self.path, self.layout, self.lacks = path, layout, lacks
        self._cleanup = cleanup
        self._transaction = cleanup.enter_context(environment.begin())
        self._databases: dict[str, Database] = {}
        for name in (META, *layout.databases, *layout.later):
            with contextlib.suppress(lmdb.NotFoundError):
                self._databases[name] = environment.open_db(name.encode(), txn=self._transaction, create=False)

    @classmethod
    def open(cls, path: Path, layout: Layout) -> LmdbView:
        """StorageError: it is not there, or LMDB cannot read its beginning."""
        file = path / DATA_FILE
        cleanup = contextlib.ExitStack()
        try:
            environment = _open(path, layout, cleanup)
            lacks = _lacks(file, environment)
            if lacks:
                copy = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="coterie-check-")))
                shutil.copyfile(file, copy / DATA_FILE)
                os.truncate(copy / DATA_FILE, file.stat().st_size + lacks)
                environment = _open(copy, layout, cleanup)
            return cls(path, layout, cleanup, environment, lacks)
        except (lmdb.Error, OSError) as error:
            cleanup.close()
            raise StorageError(f"{layout.kind} in {path}: cannot be opened: {error}") from error

    def tables(self) -> frozenset[str]:
        return frozenset(self._databases)

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        if table not in self._databases:
            return
        with self._readable(table), self._transaction.cursor(db=self._databases[table]) as cursor:
            yield from cursor

    def get(self, table: str, key: bytes) -> bytes | None:
        if table not in self._databases:
            return None
        with self._readable(table):
            return self._transaction.get(key, db=self._databases[table])

    def count(self, table: str) -> int:
        if table not in self._databases:
            return 0
        with self._readable(table):
            entries: int = self._transaction.stat(self._databases[table])["entries"]
            return entries

    @contextlib.contextmanager
    def _readable(self, table: str) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise StorageError(f"the table {table!r} cannot be read any further: {error}") from error

    def close(self) -> None:
        self._cleanup.close()


def _open(path: Path, layout: Layout, cleanup: contextlib.ExitStack) -> lmdb.Environment:
    environment = open_engine(path, layout, 0, readonly=True, lock=False, create=False)
    cleanup.callback(environment.close)
    return environment
