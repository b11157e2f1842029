"""What can be kept of a damaged Raft log, so that its server comes up without a hand and gets the rest from the others.

The damaged file is read to its end. What is whole, and joins the state machine without a hole, goes into a new file, with the hard state; the damaged one is
moved aside and never changed or deleted. Where damage is only in what the state machine has already, nothing is lost, and the log begins behind that. Where
entries are gone that the state machine has not, the server may have acknowledged them: the new file says so (`Doubt`), and the server does not vote until it
has caught up (`doubt`).

Without a hand it is only what is provable: a hard state, a start or a configuration that cannot be read is refused, since a server that may have forgotten
its vote must not vote; and so is the only voter of its cluster that has lost entries, since there is nobody to get them from.

Order on the disk: the new file is made beside the old one and synced; then the old one is renamed, then the new one. A crash between the two renames leaves
the new one under its temporary name, which the next start finishes.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from coterie.actors.disk.lmdb_env import META, Damaged, Identity, sync_directory, unseal
from coterie.actors.disk.lmdb_view import LmdbView
from coterie.actors.errors import StorageError
from coterie.actors.raft.lmdb_log import LAYOUT, LmdbLog
from coterie.actors.raft.log import Doubt, HardState
from coterie.actors.raft.log_format import (
    KEY_DOUBT,
    KEY_HARD_STATE,
    KEY_START,
    key_index,
    unpack_doubt,
    unpack_entry,
    unpack_hard_state,
    unpack_start,
)
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import Configuration, Entry

NEW: Final = ".new"
BY_HAND: Final = (
    "remedy: `clusterctl check` shows what is damaged; take this server out of the quorum, move its data directory away and let it join again empty; "
    "where no quorum is left without it, `clusterctl recover`"
)


@attrs.define
class _Found:
    """What of the damaged file can be read. last: the last index seen; complete: False when there may have been more behind it."""

    hard: HardState
    start: tuple[int, int]
    doubt: Doubt | None
    entries: dict[int, Entry]
    configurations: dict[int, Entry]
    last: int
    complete: bool


class Kept(NamedTuple):
    """before: (index, term) of what stands before the first entry; doubt: None when nothing that counts was lost. words: for the log."""

    hard: HardState
    before: tuple[int, int]
    entries: list[Entry]
    configurations: list[Entry]
    doubt: Doubt | None
    words: str


def finish(path: Path) -> None:
    """An earlier life was cut off between the two renames."""
    new = path.with_name(path.name + NEW)
    if not path.exists() and (new / "data.mdb").exists() and any(path.parent.glob(f"{path.name}.damaged-*")):
        new.rename(path)
        sync_directory(path.parent)


def salvage(path: Path, identity: Identity, applied: tuple[int, int], empty: bool = False) -> str:
    """Put a sound log in the place of the one in `path`; -> what was done. applied: (index, term) of the last entry in the state machine. empty: the state
    machine is lost too, so nothing is kept but the hard state. Raises StorageError when it cannot be done without a hand; then nothing was changed."""
    found = _read(path, identity)
    kept = _keep(found, applied, empty)
    if kept.doubt is not None:
        _not_alone(path, identity.node_id, found)
    new = path.with_name(path.name + NEW)
    shutil.rmtree(new, ignore_errors=True)  # of an attempt that was cut off; the damaged file is still in its place
    LmdbLog.make(new, identity, kept).close()
    aside = move_aside(path)
    new.rename(path)
    sync_directory(path.parent)
    return f"{kept.words}; the damaged log is in {aside}"


def move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    path.rename(aside)
    sync_directory(path.parent)
    return aside


def _read(path: Path, identity: Identity) -> _Found:
    with contextlib.closing(LmdbView.open(path, LAYOUT)) as view:

        def meta(key: bytes) -> bytes | None:
            value = view.get(META, key)
            body = unseal(key, value) if value is not None else None
            if value is not None and body is None:
                raise Damaged(
                    path,
                    f"the Raft log in {path}: its {key.decode()} is damaged, so it cannot be told what this server promised; {BY_HAND}",
                )
            return body

        for key, wanted in ((b"node_id", identity.node_id), (b"incarnation_id", identity.incarnation_id)):
            if meta(key) != wanted.encode():
                raise StorageError(
                    f"the Raft log in {path}: is not of {identity.node_id!r} and this data directory, as far as can be read; {BY_HAND}"
                )
        hard, start, doubt = meta(KEY_HARD_STATE), meta(KEY_START), meta(KEY_DOUBT)
        if start is None or (hard is None and view.count("log")):
            raise Damaged(path, f"the Raft log in {path}: its hard state or its start is missing; {BY_HAND}")
        entries, last, complete = _entries(view, "log")
        configurations, _, whole = _entries(view, "configurations")
        return _Found(
            unpack_hard_state(hard) if hard is not None else HardState(),
            unpack_start(start),
            unpack_doubt(doubt) if doubt is not None else None,
            entries,
            configurations if whole else {},
            last,
            complete,
        )


def _entries(view: LmdbView, table: str) -> tuple[dict[int, Entry], int, bool]:
    """Those that are whole, the last index seen, and whether the table could be read to its end."""
    found: dict[int, Entry] = {}
    last = count = 0
    try:
        wanted = view.count(table)
        for key, value in view.rows(table):
            count, last = count + 1, max(last, key_index(key))
            body = unseal(key, value)
            if body is not None:
                with contextlib.suppress(ValueError, struct.error):
                    found[key_index(key)] = unpack_entry(key_index(key), body)
    except (StorageError, struct.error):
        return found, last, False
    return found, last, count == wanted


def _keep(found: _Found, applied: tuple[int, int], empty: bool) -> Kept:
    first, previous_term = found.start
    if empty:
        last = found.last if found.complete else 0
        lost = bool(found.entries) or found.last > 0 or first > 1
        return Kept(found.hard, (0, 0), [], [], Doubt(last, found.hard.term) if lost else None, "nothing of it is kept but the hard state")
    end = max(found.last, first - 1)
    behind = any(index not in found.entries for index in range(first, min(applied[0], end) + 1))
    before = applied if behind or end < applied[0] else (first - 1, previous_term)
    entries: list[Entry] = []
    while before[0] + 1 + len(entries) in found.entries:
        entries.append(found.entries[before[0] + 1 + len(entries)])
    reached = before[0] + len(entries)
    doubt, complete = found.doubt, found.complete and end >= applied[0]
    if reached < end or not complete:
        known = complete and (doubt is None or doubt.last > 0)
        doubt = Doubt(max(end, doubt.last if doubt is not None else 0) if known else 0, found.hard.term)
    configurations = [entry for index, entry in sorted(found.configurations.items()) if index <= reached]
    if before[0] and not any(entry.index <= before[0] for entry in configurations):
        raise StorageError(f"the Raft log: the configuration that was in force at entry {before[0]} is damaged; {BY_HAND}")
    of = f"entries {before[0] + 1}..{reached} of it are kept" if entries else "no entry of it is kept"
    return Kept(found.hard, before, entries, configurations, doubt, of)


def _not_alone(path: Path, me: str, found: _Found) -> None:
    latest = max(found.configurations, default=0)
    configuration = Configuration()
    with contextlib.suppress(WireError):
        configuration = decode_configuration(found.configurations[latest].data or b"") if latest else configuration
    if [server.id for server in configuration.voters()] == [me]:
        raise StorageError(
            f"the Raft log in {path}: entries are damaged that the state machine does not have, and this is the only voter of its cluster: there is nobody "
            f"to get them from; nothing was changed; {BY_HAND}"
        )
