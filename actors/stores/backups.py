"""Backups of a stopped node, and a data directory made of one.

A backup (`proto/backup.py`) is what the node's state machine was made of up to what its buffer has applied, and every entry that its log has beyond that: an
entry may have been acknowledged by
this node and not be in the buffer yet. A running node gives the same over HTTP, without the entries, since its buffer is written first (`operator_desk`).

Restoring makes a new cluster of the servers that the operator names: a buffer from the snapshot, a log that begins where it ends, the entries behind it, and
the
configuration of the new cluster as one entry more (`raft/forcing`), of a term above any that the old cluster was in. Sequence numbers, message ids, retained
records and the roster are those of the
backup; indices go on above its last entry. So restoring one backup on several servers gives them the same log, and they form one cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

import attrs

from coterie import __version__
from coterie.actors.disk.data_dir import looked_at, making, read_node
from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.errors import StorageError
from coterie.actors.raft.following import KNOWN_KINDS
from coterie.actors.raft.forcing import forced_entry, forced_state
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState, SnapshotMark
from coterie.actors.raft.log_format import pack_mark
from coterie.actors.raft.recovery import check_start, unfinished_installation
from coterie.actors.replication import snapshots
from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.proto import backup
from coterie.proto.errors import WireError
from coterie.proto.raft_messages import Configuration, Entry

CHUNK: Final = 1 << 20  # bytes of entries read at a time, and of a file copied
APPEND: Final = 4096  # entries of one transaction

Tell = Callable[[str, int, int], object]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# -- taking one -------------------------------------------------------------------------------------------------------------------


def take(directory: Path, buffer_path: Path | None, out: IO[bytes], tell: Tell) -> backup.Header:
    """Write a backup of the stopped node in `directory` to `out`. buffer_path: where the buffer is, when it is not in there. tell(part, done, total): how
    far it is.
    StorageError: a node runs there, it is damaged, or its log and its buffer do not belong together; OSError: `out` cannot be written."""
    with ExitStack() as stack:
        stack.enter_context(looked_at(directory))
        try:
            identity, _ = read_node(directory)
        except OSError as error:
            raise StorageError(f"{directory}: {error.strerror or error}; remedy: name the data directory of a node") from None
        log, buffer = opened(stack, directory, buffer_path, identity)
        _refuse_followed(directory, buffer)
        content = stack.enter_context(TemporaryFile(dir=Path(out.name).parent, prefix="snapshot-"))
        applied = snapshots.dump(buffer, content)
        size = content.tell()
        content.seek(0)
        cursors = {topic: state.cursor for topic, state in buffer.load().topics.items() if state.cursor}
        unfinished = unfinished_installation(log, buffer.mark())
        if unfinished is None:
            check_start(log, applied[0])
            check_agreement(log, applied)
        header = _header(identity, log, applied, cursors, unfinished)
        entries = entries_of(log, applied[0] + 1, log.last_index) if unfinished is None else ()
        done = 0
        for frame in backup.frames(header, content, _counted(entries, applied[0], header.last[0], tell)):
            out.write(frame)
            done += len(frame)
            tell("backup", min(done, size), size)
        return header


def _refuse_followed(directory: Path, buffer: LmdbBuffer) -> None:
    state = buffer.load()
    for topic, stored in state.topics.items():
        if stored.batches and buffer.read(topic, stored.next_seq - 1, 1, 1)[0].index > state.applied[0]:
            raise StorageError(
                f"{directory}: holds records of {topic!r} that came over a stream, while the node was in no quorum, and no log vouches for "
                "them; back up a server of the quorum"
            )


def opened(stack: ExitStack, directory: Path, buffer_path: Path | None, identity: Identity) -> tuple[LmdbLog, LmdbBuffer]:
    """For reading, until the stack is closed. Raises StorageError."""
    log = LmdbLog.look(directory / "raft", identity)
    stack.callback(log.close)
    buffer = LmdbBuffer.look(buffer_path or directory / "buffer", identity)
    stack.callback(buffer.close)
    return log, buffer


def check_agreement(log: LmdbLog, applied: tuple[int, int]) -> None:
    """Raises StorageError when the log does not have the entry that the buffer has applied last."""
    index, term = applied
    if index > log.last_index:
        raise StorageError(f"the replication buffer has applied entry {index}, and the Raft log ends at {log.last_index}: entries are lost")
    if index and log.term(index) != term:
        raise StorageError(
            f"the replication buffer has applied entry {index} of term {term}, and the Raft log has that of term {log.term(index)}"
        )


def _header(
    identity: Identity, log: LmdbLog, applied: tuple[int, int], cursors: dict[str, int], unfinished: SnapshotMark | None
) -> backup.Header:
    index, configuration = log.configuration() if unfinished is None else (unfinished.configuration_index, unfinished.configuration)
    last = (log.last_index, log.term(log.last_index) if log.last_index else 0) if unfinished is None else applied
    return backup.Header(identity.node_id, now(), __version__, False, log.hard_state().term, applied, last, index, configuration, cursors)


def entries_of(log: LmdbLog, first: int, last: int) -> Iterator[Entry]:
    """Raises StorageError."""
    while first <= last:
        for entry in log.entries(first, last, CHUNK):
            yield entry
            first = entry.index + 1


def _counted(entries: Iterable[Entry], first: int, last: int, tell: Tell) -> Iterator[Entry]:
    for entry in entries:
        if entry.index % APPEND == 0:
            tell("entries beyond the snapshot", entry.index - first, last - first)
        yield entry


# -- verifying one ----------------------------------------------------------------------------------------------------------------


@attrs.define(frozen=True)
class Verified:
    """A backup that was read as a whole: what stands in it."""

    source: backup.Backup
    content: snapshots.Content
    records: int
    entries: int

    @property
    def header(self) -> backup.Header:
        return self.source.header


def verify(stream: IO[bytes]) -> Verified:
    """Read all of the backup in `stream`, which stays in use. Raises WireError, which says what is wrong with it."""
    found = backup.scan(stream)
    header = found.header
    content = snapshots.check(found.snapshot())
    if content.applied != header.applied:
        raise WireError(f"backup: its snapshot ends at {content.applied}, its header says {header.applied}")
    end, count = header.applied, 0
    for entry in found.entries():
        if entry.index != end[0] + 1 or entry.term < end[1] or entry.kind not in KNOWN_KINDS:
            raise WireError(
                f"backup: entry {entry.index} of term {entry.term} and kind {entry.kind} cannot follow entry {end[0]} of term {end[1]}"
            )
        end, count = (entry.index, entry.term), count + 1
    if end != header.last:
        raise WireError(f"backup: its entries end at {end}, its header says {header.last}")
    records = sum(next_seq - first_seq for next_seq, first_seq in content.topics.values())
    return Verified(found, content, records, count)


# -- making a data directory of one -----------------------------------------------------------------------------------------------


@attrs.define(frozen=True)
class Restored:
    """first_index: of the new log; last_index, term: of its last entry, the configuration of the new cluster."""

    identity: Identity
    first_index: int
    last_index: int
    term: int


def restore(
    verified: Verified,
    directory: Path,
    buffer_path: Path | None,
    node_id: str,
    configuration: Configuration,
    keep_cursors: bool = True,
) -> Restored:
    """Make the data directory of `node_id`, a server of `configuration`. keep_cursors: delivery goes on where the node of the backup was; else it begins
    with the first record
    that is retained. Raises StorageError (it is not empty, the disk failed) and leaves nothing behind."""
    header = verified.header
    with making(directory, node_id) as (_, identity), ExitStack() as undo:
        if buffer_path is not None:
            undo.callback(_empty, buffer_path)
        where = buffer_path or directory / "buffer"
        if where.exists() and any(where.iterdir()):
            undo.pop_all()
            raise StorageError(f"repl_buffer_dir={str(where)!r}: is not empty; remedy: name a new or an empty directory")
        _fill_buffer(verified, LmdbBuffer.open(where, identity), configuration, keep_cursors)
        entry = _fill_log(verified, LmdbLog.open(directory / "raft", identity), node_id, configuration)
        undo.pop_all()
        return Restored(identity, header.applied[0] + 1, entry.index, entry.term)


def _empty(path: Path) -> None:
    for name in ("data.mdb", "lock.mdb"):
        (path / name).unlink(missing_ok=True)


def _fill_buffer(verified: Verified, buffer: LmdbBuffer, configuration: Configuration, keep_cursors: bool) -> None:
    try:
        mark = _mark(verified.header, configuration)
        snapshots.restore(buffer, verified.source.snapshot(), verified.content, pack_mark(mark))
        if keep_cursors:
            buffer.write(BufferWrite(cursors=verified.header.cursors))
    finally:
        buffer.close()


def _fill_log(verified: Verified, log: LmdbLog, node_id: str, configuration: Configuration) -> Entry:
    header = verified.header
    try:
        if header.applied[0]:
            log.reset(_mark(header, configuration))
        some: list[Entry] = []
        for entry in verified.source.entries():
            some.append(entry)
            if len(some) == APPEND:
                log.append(some)
                some = []
        forced = forced_entry(*header.last, configuration)
        log.append([*some, forced], forced_state(HardState(header.term), header.last[1], node_id, configuration))
        return forced
    finally:
        log.close()


def _mark(header: backup.Header, configuration: Configuration) -> SnapshotMark:
    """The new configuration is in force from where the log begins: that of the old cluster must never be again, should what follows be cut off."""
    return SnapshotMark(*header.applied, header.applied[0], configuration)
