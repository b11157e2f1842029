"""One LMDB environment of ours: how it is opened, grown, written, read and closed, whatever a room keeps in it.

The rules, for the Raft log and the replication buffer alike:

- **The file format is pinned.** py-lmdb 3 carries two engines, LMDB 0.9 (data format 1) and LMDB 1.0 (data format 3), and lets an environment
  variable choose for new files. Ours are always format 1, which every py-lmdb since 1.6 reads: `lib_version=0` where that parameter exists.
- **It belongs to one directory of one node.** The `meta` database says what this is (kind and format version) and whose (`Identity`), so
  that a log or a buffer of another node is refused before a byte of it is believed or changed.
- **Values are sealed.** LMDB 0.9 has no checksums. Each value begins with a CRC-32 over its key and the rest of it: a flipped bit and a value
  under the wrong key are both noticed when read. Pages that were cut off the file's end read as zeros, not as SIGBUS (`_fill_up`).
- **A disk may hang.** `stalled` says how long the write that is under way has waited, to whoever watches. `close` waits for it no longer than
  `CLOSE_PATIENCE`; then the files stay open, and so does everything that says they are in use, until the disk answers or the process has gone.
- **One thread writes**, through `write`, which repeats the work in a larger map when the map is full. The first failed write is the last one: what
  the disk holds is then uncertain, and only opening it again, which reads what is really there, makes it certain.
- **Reading is short.** A read transaction pins old pages and makes the file grow, and the map must not move under a reader: readers pass
  a gate, and growing waits until they are out. A huge map instead of growth lost: address space is limited by `ulimit -v` and by some containers.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import attrs
import lmdb

from coterie.actors.errors import Overloaded, StorageError

if TYPE_CHECKING:
    Database = lmdb._Database
    Transaction = lmdb.Transaction[bytes]

T = TypeVar("T")

DEFAULT_MAP_BYTES: Final = 1 << 30
META: Final = "meta"
MEMORY: Final = "/dev/shm"
CLOSE_PATIENCE: Final = 3.0  # seconds
FULL_BYTES: Final = 256 << 10  # a file system with less than this has no room for what a write that failed was about
# What a fresh file system or LMDB itself may have put into a directory that holds nothing of anybody's.
HARMLESS: Final = frozenset({"lost+found", "lock.mdb"})

_CRC = struct.Struct(">I")
_FORMAT = struct.Struct(">I")
_KEY_FORMAT, _KEY_NODE, _KEY_INCARNATION = b"format", b"node_id", b"incarnation_id"


CORRUPT: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.PanicError)


class Damaged(StorageError):
    """Content that is not what was written, in the directory `path`: the next start sees what can be kept of it."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path = path


class Identity(NamedTuple):
    """Whose files these are: the node, and the one data directory of that node they were begun with."""

    node_id: str
    incarnation_id: str


@attrs.define(frozen=True)
class Layout:
    """What a room keeps in its environment.

    kind, format: name and version, stored in `meta`; a newer format is refused.
    later: databases that a later version of the same format added; one that is missing is made.
    metasync: False leaves the last commit's meta page to the next sync: a power failure may lose the last transactions, whole ones.
    remedy: what an operator does when the content is damaged.
    """

    kind: str
    format: int
    databases: tuple[str, ...]
    metasync: bool
    remedy: str
    later: tuple[str, ...] = ()


class Usage(NamedTuple):
    """Bytes of address space, bytes of the file in use (free pages included), and how often the map was grown since opening."""

    map_bytes: int
    used_bytes: int
    growths: int


def seal(key: bytes, body: bytes) -> bytes:
    """The value to store under `key`: CRC-32 over key and body (4 bytes, big-endian), then the body."""
    return _CRC.pack(zlib.crc32(body, zlib.crc32(key))) + body


def unseal(key: bytes, value: bytes) -> bytes | None:
    """The body, or None when it is not what was stored under this key."""
    body = value[4:]
    return body if value[:4] == _CRC.pack(zlib.crc32(body, zlib.crc32(key))) else None


class LmdbEnvironment:
    """An open environment. `open` it, then `write` from one thread and `read` from any; every lmdb error leaves as a StorageError."""

    def __init__(self, path: Path, layout: Layout, environment: lmdb.Environment, map_bytes: int, reads_only: bool = False) -> None:
        self.path, self.layout = path, layout
        self._environment, self._map_bytes = environment, map_bytes
        self._databases: dict[str, Database] = {}
        self._growths = 0
        self._failure: StorageError | None = None
        self._closed, self.reads_only = False, reads_only
        self._writing = threading.Lock()  # held during a write or a sync
        self._busy_since = 0.0  # monotonic; 0.0 while neither is under way
        self._released = False
        self._gate = threading.Condition()
        self._readers = 0
        self._growing = False  # shuts the gate: without it, readers that take turns would hold the writer up for ever

    @classmethod
    def open(cls, path: Path, layout: Layout, identity: Identity, map_bytes: int = DEFAULT_MAP_BYTES) -> LmdbEnvironment:
        """Open or create. StorageError: not a directory, not writable, somebody else's files, another kind or node, a newer format, damage."""
        created = _prepare(path, layout)
        try:
            environment = open_engine(path, layout, map_bytes)
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"{layout.kind} in {path}: cannot be opened: {error}; {_remedy(str(error), error, layout)}") from error
        ours = cls(path, layout, environment, map_bytes)
        try:
            ours._fill_up()
            ours.identify(identity)
        except BaseException as error:
            environment.close()
            if isinstance(error, (lmdb.Error, OSError)):
                text = f"{layout.kind} in {path}: cannot be read: {error}; {_remedy(str(error), error, layout)}"
                raise (Damaged(path, text) if isinstance(error, CORRUPT) else StorageError(text)) from error
            raise
        if created:
            sync_directory(path)
            sync_directory(path.parent)
        return ours

    def database(self, name: str) -> Database:
        return self._databases[name]

    def damaged(self, what: str) -> Damaged:
        """The error for content that is not what was written; `what` names the place."""
        return Damaged(self.path, f"{self.layout.kind} in {self.path / 'data.mdb'}: {what} is damaged; remedy: {self.layout.remedy}")

    def opened(self, what: str, key: bytes, value: bytes | None, unpack: Callable[[bytes], T]) -> T:
        """What a sealed value says; StorageError naming `what` when it is missing, damaged, or in a shape that `unpack` refuses (ValueError)."""
        body = None if value is None else unseal(key, value)
        if body is None:
            raise self.damaged(what)
        try:
            return unpack(body)
        except (ValueError, struct.error) as error:
            raise self.damaged(f"{what} ({error})") from error

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read transaction: one consistent state. Keep it short: it holds back the growth of the map and the reuse of pages."""
        with self._gate:
            self._gate.wait_for(lambda: not self._growing)
            if self._closed:
                raise StorageError(f"{self.layout.kind} in {self.path}: is closed")
            self._readers += 1
        try:
            with self._environment.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            text = f"{self.layout.kind} in {self.path}: reading failed: {error}; {_remedy(str(error), error, self.layout)}"
            raise (Damaged(self.path, text) if isinstance(error, CORRUPT) else StorageError(text)) from error
        finally:
            with self._gate:
                self._readers -= 1
                if not self._readers:
                    self._gate.notify_all()

    def give_way(self) -> None:
        """For a reader that takes long: Overloaded when the map is to grow, StorageError when the environment is to be closed. Both wait for readers."""
        if self._growing:
            raise Overloaded(f"{self.layout.kind} in {self.path}: its map grows, which waits for whoever reads; try again")
        if self._closed:
            raise StorageError(f"{self.layout.kind} in {self.path}: is closed")

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction and commit it; on the disk on return. A full map is grown and `work` runs again from the start.

        An exception of `work` itself leaves everything as it was. StorageError: the disk failed, now or in an earlier write.
        """
        if self._failure is not None:
            raise StorageError(f"{self.layout.kind} in {self.path}: an earlier write failed, nothing more is written: {self._failure}")
        if self._closed:
            raise StorageError(f"{self.layout.kind} in {self.path}: is closed")
        try:
            with self._busy():
                while True:
                    try:
                        with self._environment.begin(write=True) as transaction:
                            return work(transaction)
                    except lmdb.MapFullError:
                        self._grow()
        except (lmdb.Error, OSError) as error:
            what = f"{error} (No space left on device)" if self._is_full(error) else str(error)
            self._failure = StorageError(f"{self.layout.kind} in {self.path}: writing failed: {what}; {_remedy(what, error, self.layout)}")
            raise self._failure from error

    def sync(self) -> None:
        """Make all commits so far survive a power failure; only useful without metasync. StorageError when the disk refuses."""
        try:
            self._environment.sync(True)
        except lmdb.Error as error:
            self._failure = StorageError(
                f"{self.layout.kind} in {self.path}: the sync failed: {error}; {_remedy(str(error), error, self.layout)}"
            )
            raise self._failure from error

    def usage(self) -> Usage:
        with self.read() as transaction:
            page_bytes = transaction.stat()["psize"]
            return Usage(self._map_bytes, (self._environment.info()["last_pgno"] + 1) * page_bytes, self._growths)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with self._writing:
            self._busy_since = time.monotonic()
            try:
                yield
            finally:
                self._busy_since = 0.0

    def stalled(self, now: float) -> float:
        """Seconds that the write or sync under way has taken so far; 0.0 when none is. Any thread; now: monotonic."""
        since = self._busy_since
        return max(0.0, now - since) if since else 0.0

    @property
    def released(self) -> bool:
        """Are the files closed?"""
        return self._released

    def close(self) -> None:
        """Wait for readers and for the write that is under way, sync what a relaxed commit left open, release the files. Closing twice is allowed. StorageError:
        the sync failed, or the disk did not answer in time: then it goes on in a thread of its own, and `released` tells."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        outcome: list[Exception] = []
        closer = threading.Thread(target=self._release, args=(outcome,), name=f"close {self.path.name}", daemon=True)
        closer.start()
        closer.join(CLOSE_PATIENCE)
        if closer.is_alive():
            raise StorageError(
                f"{self.layout.kind} in {self.path}: the disk has not answered for {CLOSE_PATIENCE:g} s; the files stay open until it does, or the process has ended"
            )
        for error in outcome:
            raise StorageError(
                f"{self.layout.kind} in {self.path}: the last sync failed: {error}; {_remedy(str(error), error, self.layout)}"
            ) from error

    def _release(self, outcome: list[Exception]) -> None:
        with self._gate:
            self._gate.wait_for(lambda: not self._readers)
        with self._busy():
            try:
                if self._failure is None and not self.reads_only:
                    self._environment.sync(True)
            except lmdb.Error as error:
                outcome.append(error)
            self._environment.close()
        self._released = True

    def _is_full(self, error: Exception) -> bool:
        """Is it the disk's end? LMDB calls a write that was cut short there an "Input/output error"."""
        if "Input/output error" not in str(error):
            return False
        try:
            system = os.statvfs(self.path)
        except OSError:
            return False
        return system.f_bavail * system.f_frsize < FULL_BYTES

    def _grow(self) -> None:
        with self._gate:
            self._growing = True
            try:
                self._gate.wait_for(lambda: not self._readers)
                self._environment.set_mapsize(self._map_bytes * 2)
                self._map_bytes *= 2
                self._growths += 1
            finally:
                self._growing = False
                self._gate.notify_all()

    def _fill_up(self) -> None:
        """Make the file as long as its meta page says. LMDB reads through a memory map, where a page beyond the end of the file kills the process;
        as zeros it is found damaged. (A sound file may lack its last pages too, when they were freed before they were written.)"""
        file = self.path / "data.mdb"
        wanted = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        if file.stat().st_size < wanted:
            os.truncate(file, wanted)

    def identify(self, identity: Identity) -> None:
        """Read the meta database before anything is changed; begin the environment when it is empty."""
        if self._environment.stat()["entries"] == 0:
            self._begin(identity)
            return
        try:
            meta = self._environment.open_db(META.encode(), create=False)
        except lmdb.NotFoundError:
            raise StorageError(
                f"{self.path}: holds an LMDB file that is not a {self.layout.kind}; remedy: give another directory"
            ) from None
        with self._environment.begin(db=meta) as transaction:
            self._check_format(transaction.get(_KEY_FORMAT))
            for key, wanted in ((_KEY_NODE, identity.node_id), (_KEY_INCARNATION, identity.incarnation_id)):
                found = self.opened(f"its {key.decode()}", key, transaction.get(key), bytes.decode)
                if found != wanted:
                    raise StorageError(
                        f"{self.layout.kind} in {self.path}: belongs to {key.decode()} {found!r}, this is {wanted!r}; "
                        "remedy: give each node its own directory, or move the old one away"
                    )
        self._databases = {name: self._environment.open_db(name.encode(), create=False) for name in (META, *self.layout.databases)}
        for name in self.layout.later:
            try:
                self._databases[name] = self._environment.open_db(name.encode(), create=not self.reads_only)
            except lmdb.NotFoundError:
                raise StorageError(
                    f"{self.layout.kind} in {self.path}: was written by an earlier version and has no table {name!r} yet; remedy: start the node once, which "
                    "adds it (it takes no quorum), stop it, and try again"
                ) from None

    def _check_format(self, value: bytes | None) -> None:
        kind, version = self.opened(
            "its format version", _KEY_FORMAT, value, lambda body: (body[4:].decode(), _FORMAT.unpack_from(body)[0])
        )
        if kind != self.layout.kind:
            raise StorageError(f"{self.path}: holds a {kind}, not a {self.layout.kind}; remedy: give another directory")
        if version > self.layout.format:
            raise StorageError(
                f"{self.layout.kind} in {self.path}: format {version} is newer than this version knows ({self.layout.format}); "
                "remedy: run the newer version of coterie that wrote it"
            )

    def _begin(self, identity: Identity) -> None:
        records = (
            (_KEY_FORMAT, _FORMAT.pack(self.layout.format) + self.layout.kind.encode()),
            (_KEY_NODE, identity.node_id.encode()),
            (_KEY_INCARNATION, identity.incarnation_id.encode()),
        )
        with self._environment.begin(write=True) as transaction:
            for name in (META, *self.layout.databases, *self.layout.later):
                self._databases[name] = self._environment.open_db(name.encode(), txn=transaction)
            for key, body in records:
                transaction.put(key, seal(key, body), db=self._databases[META])


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a file that was synced can still be lost with its name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(path: Path, layout: Layout) -> bool:
    """Make the directory; say whether the environment is new. A directory with other things in it is refused and not touched."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        present = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise StorageError(
            f"{layout.kind} in {path}: {error.strerror}; remedy: name a directory that this user may create and write"
        ) from error
    if "data.mdb" in present:
        return False
    if present - HARMLESS:
        raise StorageError(
            f"{layout.kind} in {path}: the directory holds other files ({min(present - HARMLESS)}); remedy: give it a directory of its own"
        )
    return True


def open_engine(path: Path, layout: Layout, map_bytes: int, **more: Any) -> lmdb.Environment:
    """LMDB in the file format of ours. more: what `lmdb.open` takes. Raises lmdb.Error, OSError.

    LMDB keeps its table of readers in a mapped file beside the data, and writes into it also to read; on a disk that hangs such a write stops the whole process,
    since py-lmdb holds the interpreter then. So that file is in memory where there is such a place, and has no name: the environment is opened by way of a link to
    the data. That it is opened once at a time is `DataDir`'s lock."""
    data = path.resolve() / "data.mdb"
    with tempfile.TemporaryDirectory(prefix="coterie-", dir=MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else None) as elsewhere:
        (Path(elsewhere) / data.name).symlink_to(data)
        return _open_linked(elsewhere, layout, map_bytes, **more)


def _open_linked(path: str, layout: Layout, map_bytes: int, **more: Any) -> lmdb.Environment:
    opener = partial(
        lmdb.open,
        path,
        map_size=map_bytes,
        max_dbs=len(layout.databases) + len(layout.later) + 1,
        mode=0o600,
        sync=True,
        metasync=layout.metasync,
        **more,
    )
    if hasattr(lmdb.Environment, "lib_version"):
        return opener(lib_version=0)
    if lmdb.version()[:2] != (0, 9):
        raise lmdb.Error(f"this py-lmdb is built with LMDB {lmdb.version()}, whose file format is not the one used here (0.9)")
    return opener()


def _remedy(what: str, error: Exception, layout: Layout) -> str:
    if isinstance(error, lmdb.DiskError) or "No space left" in what:
        return "remedy: free space on that file system, then start the node again"
    if isinstance(error, CORRUPT):
        return f"remedy: {layout.remedy}"
    if isinstance(error, (PermissionError, lmdb.ReadonlyError)) or "Permission denied" in what:
        return "remedy: name a directory that this user may create and write"
    return "remedy: look at the disk and the kernel's log, then start the node again"
