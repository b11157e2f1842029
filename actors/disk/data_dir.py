"""The data directory: everything one node keeps, and the proof that it is this node's and nobody else uses it now.

    LOCK          held (flock) for as long as the node lives; its text is the holder's pid, for whoever is refused
    node.json     whose directory this is
    raft/         the Raft log (LMDB)
    buffer/       the replication buffer (LMDB), unless `repl_buffer_dir` puts it elsewhere
    members.json  last known members

`node.json` is written once, by temporary file, fsync and rename, before anything else is: a directory without it that holds anything is somebody
else's and is not touched. Its `incarnation_id` is drawn at random with the directory and repeated in both LMDB environments, so that a log
or a buffer of another life of the same node (its directory was emptied, the buffer elsewhere was not) is noticed as well.

flock lost against nothing: fcntl locks vanish when any descriptor of the file is closed, and a pid file alone outlives a crash. A forked child
inherits a flock, so it gives its copy back at once; the parent's stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from coterie.actors.disk.lmdb_env import Identity, sync_directory
from coterie.actors.errors import StorageError

FORMAT: Final = 1
LOCK_FILE: Final = "LOCK"
NODE_FILE: Final = "node.json"
_TEMPORARY: Final = "node.json.tmp"
# What may stand in a directory that is still nobody's: a fresh file system's own, and what a creation leaves that was cut short.
_HARMLESS: Final = frozenset({"lost+found", LOCK_FILE, _TEMPORARY})

_open_directories: weakref.WeakSet[DataDir] = weakref.WeakSet()
RESERVE: Final = 64 << 20  # bytes of the disk that snapshots leave alone


class DataDir:
    """An open data directory. `open` makes or checks it and takes the lock; `close` gives the lock back."""

    def __init__(self, path: Path, identity: Identity, created: str, lock: int) -> None:
        self.path, self.identity, self.created = path, identity, created
        self._lock: int | None = lock
        _open_directories.add(self)

    @classmethod
    def open(cls, path: str | os.PathLike[str], node_id: str) -> DataDir:
        """Create the directory (mode 0700) or open it for `node_id`.

        StorageError, naming the field, the path and the remedy: not a directory, not writable, not empty and nobody's, another node's, a newer
        format, damaged, or in use by another process (named by pid).
        """
        directory = Path(path)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_foreign(directory)
            lock = _take_lock(directory)
        except OSError as error:
            raise _unusable(directory, error) from error
        try:
            _refuse_foreign(directory)
            identity, created = _node(directory, node_id)
            return cls(directory, identity, created, lock)
        except OSError as error:
            os.close(lock)
            raise _unusable(directory, error) from error
        except BaseException:
            os.close(lock)
            raise

    @property
    def raft_path(self) -> Path:
        return self.path / "raft"

    @property
    def members_path(self) -> Path:
        return self.path / "members.json"

    def buffer_path(self, repl_buffer_dir: str | os.PathLike[str] = "") -> Path:
        """Where the replication buffer lives: `repl_buffer_dir` when it is given. Whose it is, is checked where it is opened."""
        return Path(repl_buffer_dir) if os.fspath(repl_buffer_dir) else self.path / "buffer"

    def close(self) -> None:
        """Release the lock. Closing twice is allowed."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._forget()

    def _forget(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _forget_in_child() -> None:
    for directory in list(_open_directories):
        directory._forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _refuse_foreign(directory: Path) -> None:
    present = {entry.name for entry in directory.iterdir()}
    if NODE_FILE not in present and present - _HARMLESS:
        raise StorageError(
            f"data_dir={str(directory)!r}: holds other files ({min(present - _HARMLESS)}) and no {NODE_FILE}, so it is not a node's; nothing was changed; "
            "remedy: name an empty or a new directory"
        )


def _take_lock(directory: Path) -> int:
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise StorageError(
            f"data_dir={str(directory)!r}: is in use by process {holder}; remedy: stop that one, or give each node its own directory"
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        os.close(lock)
        raise
    return lock


def _node(directory: Path, node_id: str) -> tuple[Identity, str]:
    """Read node.json, or write it: (identity, when the directory was created)."""
    try:
        identity, created = read_node(directory)
    except FileNotFoundError:
        return _begin(directory, node_id)
    if identity.node_id != node_id:
        raise StorageError(
            f"node_id={node_id!r}: data_dir {str(directory)!r} belongs to node {identity.node_id!r}; remedy: start it as {identity.node_id!r}, or name "
            "another directory"
        )
    return identity, created


def read_node(directory: Path) -> tuple[Identity, str]:
    """Whose directory it is, and when it was made. StorageError: damaged, a newer format; FileNotFoundError and other OSErrors as they are."""
    text = (directory / NODE_FILE).read_bytes()
    remedy = f"remedy: restore {NODE_FILE} from a backup, or move the directory away and join again as a new node"
    try:
        node = json.loads(text)
        version = node["format"]
        if isinstance(version, int) and version > FORMAT:
            raise StorageError(
                f"data_dir={str(directory)!r}: format {version} is newer than this version knows ({FORMAT}); "
                "remedy: run the newer version of coterie that wrote it"
            )
        found, incarnation_id, created = node["node_id"], node["incarnation_id"], node["created"]
        if version != FORMAT or not all(isinstance(field, str) and field for field in (found, incarnation_id, created)):
            raise ValueError(f"a field of {node} is not what format {FORMAT} says")
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"data_dir={str(directory)!r}: {NODE_FILE} is damaged: {error!r}; {remedy}") from error
    return Identity(found, incarnation_id), created


@contextlib.contextmanager
def making(path: str | os.PathLike[str], node_id: str) -> Iterator[tuple[Path, Identity]]:
    """A new directory for `node_id`, to be filled in the block. It is a node's once the block has ended: node.json comes last, so one that was cut short is
    refused by name
    (`open`), and what the block had made is taken away when it raises. StorageError: it is not empty, or cannot be made or written."""
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_full(directory)
        lock = _take_lock(directory)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        _refuse_full(directory)
        identity = Identity(node_id, secrets.token_hex(16))
        yield directory, identity
        _write_node(directory, identity)
    except BaseException as error:
        for left in directory.iterdir():
            if left.is_dir() and left.name not in _HARMLESS:
                shutil.rmtree(left, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unusable(directory, error) from error
        raise
    finally:
        os.close(lock)


def _refuse_full(directory: Path) -> None:
    present = {entry.name for entry in directory.iterdir()} - _HARMLESS
    if present:
        raise StorageError(
            f"data_dir={str(directory)!r}: is not empty ({min(present)}); nothing was changed; remedy: name a new or an empty directory, or move what is there away"
        )


@contextlib.contextmanager
def looked_at(directory: Path) -> Iterator[None]:
    """While it lasts no node can start in the directory; nothing in it is changed. StorageError: one runs there (named by pid), or it cannot be read."""
    try:
        lock = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # a copy, perhaps: nobody runs there
        yield
        return
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StorageError(
            f"data_dir={str(directory)!r}: is in use by process {holder}; remedy: stop that node first, or look at a copy"
        ) from None
    finally:
        os.close(lock)


def _begin(directory: Path, node_id: str) -> tuple[Identity, str]:
    identity = Identity(node_id, secrets.token_hex(16))
    return identity, _write_node(directory, identity)


def _write_node(directory: Path, identity: Identity) -> str:
    """When it was made."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    node = {"format": FORMAT, "node_id": identity.node_id, "incarnation_id": identity.incarnation_id, "created": created}
    write_durably(directory / NODE_FILE, json.dumps(node, ensure_ascii=False, indent=1).encode() + b"\n")
    sync_directory(directory.parent)
    return created


def room_in(directory: Path | None) -> int:
    """Bytes that a temporary file may take: as much is left for what is made of it, and `RESERVE`: who fills the disk up kills the node. directory: None for
    the
    system's place, where nothing else is kept. Raises OSError."""
    if directory is None:
        return shutil.disk_usage(tempfile.gettempdir()).free
    return max(0, (shutil.disk_usage(directory).free - RESERVE) // 2)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a small file so that after any crash it holds either the old content or the new. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def _unusable(directory: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f"data_dir={str(directory)!r}: is not a directory; remedy: name a directory, existing or new")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
        return StorageError(
            f"data_dir={str(directory)!r}: is not writable ({error.strerror}); remedy: name a directory that this user may create and write"
        )
    return StorageError(f"data_dir={str(directory)!r}: {error.strerror}; remedy: look at that file system, or name another directory")
