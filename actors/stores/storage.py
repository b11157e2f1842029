"""What a node keeps on disk: opened together, and mended where that needs no hand.

Damage is found where something is read: at the start, or later, when it ends the node (`note_damage` writes down which part it was, for the next start, which
then reads all of it). A damaged part is moved aside, and what can be kept of it goes on: `raft/salvage` and `replication/salvage` say what that is. The two
hold each other to account: a log is kept from where the state machine is, and a state machine that is lost is made from the whole log or, where that does not
begin at its beginning any more, by a snapshot from a leader; then the log begins anew too, but for the hard state. What cannot be decided without a hand is a
StorageError, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from coterie.actors.disk.data_dir import DataDir, write_durably
from coterie.actors.disk.lmdb_env import Damaged, sync_directory
from coterie.actors.errors import StorageError
from coterie.actors.raft import salvage as log_salvage
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.replication import salvage as buffer_salvage
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.transport.logs import Log

NOTE: Final = "damaged.json"


class Stores(NamedTuple):
    log: LmdbLog
    buffer: LmdbBuffer


def note_damage(directory: Path, error: Damaged) -> None:
    """For the next start: the part in `error.path` is to be read as a whole. Raises OSError."""
    write_durably(directory / NOTE, json.dumps(sorted({*_noted(directory), str(error.path)})).encode())


def _noted(directory: Path) -> list[str]:
    try:
        noted = json.loads((directory / NOTE).read_bytes())
    except (OSError, ValueError):
        return []
    return [path for path in noted if isinstance(path, str)] if isinstance(noted, list) else []


def open_stores(directory: DataDir, buffer_path: Path, opened: Callable[[LmdbLog | LmdbBuffer], object], notes: Log) -> Stores:
    """opened: told of each store that is to be closed one day. Raises StorageError."""
    noted = _noted(directory.path)
    log_salvage.finish(directory.raft_path)
    buffer, fresh = _open_buffer(directory, buffer_path, str(buffer_path) in noted, notes)
    opened(buffer)
    log = _open_log(directory, buffer.applied, str(directory.raft_path) in noted, notes)
    if fresh and log.first_index > 1:
        log.close()
        words = log_salvage.salvage(directory.raft_path, directory.identity, (0, 0), empty=True)
        notes.error("the state machine is lost and the log does not begin at its beginning: a leader sends a snapshot; %s", words)
        log = LmdbLog.open(directory.raft_path, directory.identity)
    opened(log)
    if noted:
        with contextlib.suppress(FileNotFoundError):
            (directory.path / NOTE).unlink()
        sync_directory(directory.path)
    return Stores(log, buffer)


def _open_buffer(directory: DataDir, path: Path, noted: bool, notes: Log) -> tuple[LmdbBuffer, bool]:
    """The buffer, and whether it is a new one in the place of a damaged one."""
    try:
        buffer = LmdbBuffer.open(path, directory.identity)
        if not noted:
            return buffer, False
        with contextlib.closing(buffer):
            _read_all(buffer)
        return LmdbBuffer.open(path, directory.identity), False
    except Damaged as error:
        cursors = buffer_salvage.read_cursors(path)
        aside = log_salvage.move_aside(path)
        notes.error(
            "the replication buffer is damaged, and was moved to %s; %d cursors are kept, its records come again: %s",
            aside,
            len(cursors),
            error,
        )
        return buffer_salvage.begin_anew(path, directory.identity, cursors), True


def _read_all(buffer: LmdbBuffer) -> None:
    """Every batch that is retained, and the handler's state. Raises Damaged."""
    with buffer.frozen() as frozen:
        for _ in chain(frozen.batches, frozen.blocks):
            pass


def _open_log(directory: DataDir, applied: tuple[int, int], noted: bool, notes: Log) -> LmdbLog:
    path = directory.raft_path
    try:
        log = LmdbLog.open(path, directory.identity)
        if not noted:
            return log
        with contextlib.closing(log):
            first = log.first_index
            while first <= log.last_index:
                first = log.entries(first, log.last_index, 1 << 20)[-1].index + 1
        return LmdbLog.open(path, directory.identity)
    except Damaged as error:
        try:
            words = log_salvage.salvage(path, directory.identity, applied)
        except StorageError as refusal:
            raise StorageError(f"{error}; and it cannot be mended without a hand: {refusal}") from refusal
        notes.error("the Raft log is damaged: %s; %s", error, words)
        return LmdbLog.open(path, directory.identity)
