"""The Raft log on disk: one LMDB environment, each `append` one synced transaction.

    meta            what this is and whose (`lmdb_env`); `hard_state`; `start`: first index and the term before it; `snapshot`, once there is one
    log             index (8 bytes, big-endian) -> sealed entry
    configurations  index -> the same sealed record, for configuration entries only; below the first index the one that was in force there

- Sync and metasync are on: what `append` returned for is on the disk, hard state and entries together or not at all.
- The configuration entries stand in a table of their own, so that the one in force, or the one in force before a cut, is one seek away; and so
  that compaction can leave the one that was in force where the log begins now.
- `compact` raises `start`, deletes the entries below it and writes `snapshot` in one transaction; `reset` does the same to the whole log, for a snapshot
  that came from elsewhere. `term` knows the term just before `first_index`, and nothing here assumes that a log begins at 1.
- The ends of the log are in memory: an append reads nothing. The number of records must fit the two ends, so that a hole shows at opening.
- A record that fails its CRC is a StorageError. There is no repair in place: the record may be one this server acknowledged, and a server
  that forgets must not vote (Raft paper, section 5: what servers respond from is on stable storage first). `salvage` puts another file in its place, at the
  next start, which says what is lost (`doubt`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coterie.actors.disk.lmdb_env import DEFAULT_MAP_BYTES, META, Identity, Layout, LmdbEnvironment, Usage, seal, unseal
from coterie.actors.disk.lmdb_view import look
from coterie.actors.errors import StorageError
from coterie.actors.raft.log import Doubt, HardState, SnapshotMark
from coterie.actors.raft.log_format import (
    KEY_DOUBT,
    KEY_HARD_STATE,
    KEY_SNAPSHOT,
    KEY_START,
    Damaged,
    index_key,
    key_index,
    pack_doubt,
    pack_entries,
    pack_hard_state,
    pack_snapshot,
    pack_start,
    unpack_doubt,
    unpack_entry,
    unpack_hard_state,
    unpack_records,
    unpack_start,
)
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration, encode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry

if TYPE_CHECKING:
    from coterie.actors.disk.lmdb_env import Database, Transaction
    from coterie.actors.raft.salvage import Kept

LAYOUT: Final = Layout(
    kind="coterie raft log",
    format=1,
    databases=("log", "configurations"),
    metasync=True,
    remedy=(
        "start the node again: it keeps what is sound and fetches the rest; where it says that it cannot, do not edit or copy the file; "
        "remove this server from the quorum, move its data directory away and join it again empty: the leader sends it everything"
    ),
)


class LmdbLog:
    """`RaftLog` (see `log.py`) in the directory `path`. One thread calls `append`, any thread reads."""

    def __init__(self, environment: LmdbEnvironment) -> None:
        self._environment = environment
        self._meta, self._log, self._configurations = (environment.database(name) for name in (META, "log", "configurations"))
        self._hard_state = HardState()
        self._doubt: Doubt | None = None
        self._first, self._previous_term = 1, 0
        self._end = (0, 0)  # (index, term) of the last entry: one tuple, so that other threads never see half of a change

    @classmethod
    def open(cls, path: Path, identity: Identity, map_bytes: int = DEFAULT_MAP_BYTES) -> LmdbLog:
        """Open or create. StorageError: unusable directory, another node's log, a newer format, damage at the ends or a hole."""
        return cls._loaded(LmdbEnvironment.open(path, LAYOUT, identity, map_bytes))

    @classmethod
    def look(cls, path: Path, identity: Identity) -> LmdbLog:
        """Open what is there to read it, and change nothing. StorageError: as `open`."""
        return cls._loaded(look(path, LAYOUT, identity))

    @classmethod
    def _loaded(cls, environment: LmdbEnvironment) -> LmdbLog:
        log = cls(environment)
        try:
            log._load()
        except BaseException:
            log.close()
            raise
        return log

    @classmethod
    def make(cls, path: Path, identity: Identity, kept: Kept) -> LmdbLog:
        """A new log that holds what was kept of a damaged one, in one transaction."""
        log = cls(LmdbEnvironment.open(path, LAYOUT, identity))
        index, term = kept.before
        records = pack_entries(kept.entries, index + 1)
        configurations = [pack_entries([entry], entry.index)[0] for entry in kept.configurations]

        def work(transaction: Transaction) -> None:
            for key, body in ((KEY_START, pack_start(index + 1, term)), (KEY_HARD_STATE, pack_hard_state(kept.hard))):
                transaction.put(key, seal(key, body), db=log._meta)
            if index:
                transaction.put(KEY_SNAPSHOT, seal(KEY_SNAPSHOT, pack_snapshot(index, term)), db=log._meta)
            if kept.doubt is not None:
                transaction.put(KEY_DOUBT, seal(KEY_DOUBT, pack_doubt(kept.doubt)), db=log._meta)
            transaction.cursor(db=log._log).putmulti(records, append=True)
            transaction.cursor(db=log._configurations).putmulti(configurations, append=True)

        log._environment.write(work)
        log._load()
        return log

    def doubt(self) -> Doubt | None:
        return self._doubt

    def settle(self) -> None:
        self._environment.write(lambda transaction: transaction.delete(KEY_DOUBT, db=self._meta))
        self._doubt = None

    @property
    def first_index(self) -> int:
        return self._first

    @property
    def last_index(self) -> int:
        return self._end[0]

    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def path(self) -> Path:
        return self._environment.path

    def usage(self) -> Usage:
        return self._environment.usage()

    def stalled(self, now: float) -> float:
        return self._environment.stalled(now)

    @property
    def released(self) -> bool:
        return self._environment.released

    def term(self, index: int) -> int:
        last, last_term = self._end
        if index == last:
            return last_term
        if index == self._first - 1:
            return self._previous_term
        with self._environment.read() as transaction:
            value = transaction.get(index_key(index), db=self._log) if index >= self._first else None
            if value is None:
                raise self._absent(transaction, index)
        return self._entry(index, value).term

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        if not self._first <= first <= last <= self._end[0]:
            raise KeyError(f"entries {first}..{last}: the log holds {self._first}..{self._end[0]}")
        with self._environment.read() as transaction:
            cursor = transaction.cursor(db=self._log)
            cursor.set_range(index_key(first))
            try:
                found = unpack_records(cursor, first, last, max_bytes)
            except Damaged as damaged:
                raise self._environment.damaged(f"entry {damaged.index}") from damaged
            end = first + len(found)
            if end <= last and sum(len(entry.data or b"") for entry in found) < max_bytes:
                raise self._absent(transaction, end)
            return found

    def configuration(self) -> tuple[int, Configuration]:
        return self.configuration_before(self._end[0] + 1)

    def configuration_before(self, index: int) -> tuple[int, Configuration]:
        with self._environment.read() as transaction:
            cursor = transaction.cursor(db=self._configurations)
            found = cursor.prev() if cursor.set_range(index_key(index)) else cursor.last()
            if not found:
                return 0, Configuration()
            at, value = key_index(cursor.key()), cursor.value()
        try:
            return at, decode_configuration(self._entry(at, value).data or b"")
        except WireError as error:
            raise self._environment.damaged(f"the configuration at index {at} ({error})") from error

    def append(self, entries: list[Entry], hard_state: HardState | None = None, truncate_from: int | None = None) -> None:
        end = self._end[0]
        keep = end if truncate_from is None else min(truncate_from - 1, end)
        cut = keep < end
        if keep < self._first - 1:
            raise ValueError(f"truncate_from={truncate_from}: entries below {self._first} are committed and compacted")
        records = pack_entries(entries, keep + 1)
        configurations = [record for record, entry in zip(records, entries, strict=True) if entry.kind == CONFIGURATION]

        def work(transaction: Transaction) -> int:
            if cut:
                _delete_from(transaction, self._log, keep + 1)
                _delete_from(transaction, self._configurations, keep + 1)
            if records:
                transaction.cursor(db=self._log).putmulti(records, append=True)
            for key, value in configurations:
                transaction.put(key, value, db=self._configurations, append=True)
            if hard_state is not None:
                transaction.put(KEY_HARD_STATE, seal(KEY_HARD_STATE, pack_hard_state(hard_state)), db=self._meta)
            if entries:
                return entries[-1].term
            return self._entry_of(transaction, keep).term if cut and keep >= self._first else self._previous_term

        if not (cut or records or hard_state is not None):
            return
        last_term = self._environment.write(work)
        if cut or records:
            self._end = (keep + len(entries), last_term)
        if hard_state is not None:
            self._hard_state = hard_state

    def compact(self, index: int) -> None:
        end, first = self._end[0], self._first
        if index < first:
            return
        if index > end:
            raise ValueError(f"index={index}: the log ends at {end}")

        def work(transaction: Transaction) -> int:
            term = self._entry_of(transaction, index).term
            _delete_to(transaction, self._log, index)
            cursor = transaction.cursor(db=self._configurations)
            found = cursor.prev() if cursor.set_range(index_key(index + 1)) else cursor.last()
            if found:
                _delete_to(transaction, self._configurations, key_index(cursor.key()) - 1)
            self._put_start(transaction, index, term)
            return term

        self._previous_term = self._environment.write(work)
        self._first = index + 1

    def reset(self, mark: SnapshotMark) -> None:
        entry = Entry(mark.configuration_index, mark.term, CONFIGURATION, encode_configuration(mark.configuration))
        ((key, value),) = pack_entries([entry], mark.configuration_index)

        def work(transaction: Transaction) -> None:
            for database in (self._log, self._configurations):
                transaction.drop(database, delete=False)
            transaction.put(key, value, db=self._configurations)
            self._put_start(transaction, mark.index, mark.term)

        self._environment.write(work)
        self._previous_term = mark.term
        self._first, self._end = mark.index + 1, (mark.index, mark.term)

    def _put_start(self, transaction: Transaction, index: int, term: int) -> None:
        """The log begins after `index`, which the state machine holds."""
        for key, body in ((KEY_START, pack_start(index + 1, term)), (KEY_SNAPSHOT, pack_snapshot(index, term))):
            transaction.put(key, seal(key, body), db=self._meta)

    def close(self) -> None:
        self._environment.close()

    def _load(self) -> None:
        with self._environment.read() as transaction:
            start, hard_state, doubt = (transaction.get(key, db=self._meta) for key in (KEY_START, KEY_HARD_STATE, KEY_DOUBT))
            if doubt is not None:
                self._doubt = self._environment.opened("what it had lost", KEY_DOUBT, doubt, unpack_doubt)
            if start is not None:
                self._first, self._previous_term = self._environment.opened("its start", KEY_START, start, unpack_start)
            if hard_state is not None:
                self._hard_state = self._environment.opened("its hard state", KEY_HARD_STATE, hard_state, unpack_hard_state)
            cursor = transaction.cursor(db=self._log)
            last, last_term = self._first - 1, self._previous_term
            if cursor.last():
                last = key_index(cursor.key())
                last_term = self._entry(last, cursor.value()).term
            if transaction.stat(self._log)["entries"] != last - self._first + 1:
                raise self._environment.damaged(f"the log {self._first}..{last}: entries are missing, it")
            self._end = (last, last_term)
        if start is None and not self._environment.reads_only:
            begun = seal(KEY_START, pack_start(self._first, self._previous_term))
            self._environment.write(lambda transaction: transaction.put(KEY_START, begun, db=self._meta))

    def _entry(self, index: int, value: bytes | None) -> Entry:
        try:
            return unpack_entry(index, unseal(index_key(index), value or b"") or b"")
        except (ValueError, struct.error) as error:
            raise self._environment.damaged(f"entry {index}") from error

    def _entry_of(self, transaction: Transaction, index: int) -> Entry:
        return self._entry(index, transaction.get(index_key(index), db=self._log))

    def _absent(self, transaction: Transaction, index: int) -> KeyError | StorageError:
        """Why an entry was not found: outside of the log as this transaction sees it (the writer may just have cut it), or lost."""
        cursor = transaction.cursor(db=self._log)
        if index < self._first or not cursor.last() or index > key_index(cursor.key()):
            return KeyError(f"entry {index}: the log holds {self._first}..{self._end[0]}")
        return self._environment.damaged(f"the log: entry {index} is missing, it")


def _delete_to(transaction: Transaction, database: Database, index: int) -> None:
    """All up to `index`."""
    cursor = transaction.cursor(db=database)
    cursor.first()
    while (key := cursor.key()) and key_index(key) <= index:
        cursor.delete()


def _delete_from(transaction: Transaction, database: Database, index: int) -> None:
    cursor = transaction.cursor(db=database)
    if cursor.set_range(index_key(index)):
        while cursor.delete():
            pass
