"""A new configuration for a stopped node whose quorum is lost for good.

What is done, and why it is safe where it is, stands in `raft/forcing`: the configuration becomes the last entry of the log, and the node's term rises far
enough. Before anything is changed,
the whole data directory is copied. An installation of a snapshot that an earlier life had begun is finished first, as the next start would do: it would
throw the entry away.

`plan` only reads; `recover` does it. Both refuse a directory whose log and buffer do not belong together, as the node would at its start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from coterie.actors.disk.data_dir import RESERVE, DataDir, looked_at, read_node
from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.errors import StorageError
from coterie.actors.raft.forcing import forced_entry, forced_state
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import Doubt, HardState
from coterie.actors.raft.peers_file import check_among
from coterie.actors.raft.recovery import check_start, finish_installation, unfinished_installation
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.stores.backups import check_agreement, opened
from coterie.proto.raft_messages import Configuration

CHUNK: Final = 1 << 20

Tell = Callable[[str, int, int], object]


@attrs.define(frozen=True)
class Plan:
    """What recovering changes. first, last: of the log, with the term of the last entry; applied: what the buffer has applied. entries beyond that are taken
    as committed.
    index, term: of the entry with the new configuration; hard_state: before and after. doubt: what the log has lost to damage before, which nobody is left
    to make up for."""

    node_id: str
    configuration_index: int
    before: Configuration
    after: Configuration
    first: int
    last: tuple[int, int]
    applied: int
    index: int
    term: int
    hard_state: tuple[HardState, HardState]
    doubt: Doubt | None

    @property
    def taken_as_committed(self) -> int:
        return self.last[0] - self.applied


def plan(directory: Path, buffer_path: Path | None, configuration: Configuration) -> Plan:
    """What `recover` would do; nothing is changed. StorageError: a node runs there, it is no data directory, it is damaged. InvalidRequest: the node is not
    in the configuration."""
    with ExitStack() as stack:
        stack.enter_context(looked_at(directory))
        identity = _identity(directory)
        check_among(identity.node_id, configuration)
        log, buffer = opened(stack, directory, buffer_path, identity)
        state = buffer.load()
        unfinished = unfinished_installation(log, buffer.mark())
        if unfinished is None:
            check_start(log, state.applied[0])
            check_agreement(log, state.applied)
            last = (log.last_index, log.term(log.last_index) if log.last_index else 0)
            first, (index, before) = log.first_index, log.configuration()
        else:
            last, first = (unfinished.index, unfinished.term), unfinished.index + 1
            index, before = unfinished.configuration_index, unfinished.configuration
        if not last[0]:
            raise StorageError(f"{directory}: its Raft log is empty, so there is nothing to recover; start the node, or restore a backup")
        entry = forced_entry(*last, configuration)
        after = forced_state(log.hard_state(), last[1], identity.node_id, configuration)
        return Plan(
            identity.node_id,
            index,
            before,
            configuration,
            first,
            last,
            state.applied[0],
            entry.index,
            entry.term,
            (log.hard_state(), after),
            log.doubt(),
        )


def recover(directory: Path, buffer_path: Path | None, configuration: Configuration, copy_to: Path, tell: Tell) -> Plan:
    """Copy the directory to `copy_to` (and a buffer that is elsewhere into it, as `buffer-elsewhere`), then force the configuration. Raises as `plan`; what
    was copied stays."""
    planned = plan(directory, buffer_path, configuration)
    held = DataDir.open(directory, planned.node_id)
    try:
        copy(directory, buffer_path, copy_to, tell)
        log = LmdbLog.open(held.raft_path, held.identity)
        try:
            buffer = LmdbBuffer.open(held.buffer_path(buffer_path or ""), held.identity)
            try:
                finish_installation(log, buffer.mark())
            finally:
                buffer.close()
            if (log.last_index, log.hard_state()) != (planned.last[0], planned.hard_state[0]):
                raise StorageError(f"{directory}: its log has changed since it was looked at; nothing was changed here; remedy: try again")
            log.append([forced_entry(*planned.last, configuration)], planned.hard_state[1])
            if planned.doubt is not None:
                log.settle()  # it would never vote: whoever had the lost entries is lost, too, says the operator
        finally:
            log.close()
    finally:
        held.close()
    return planned


def _identity(directory: Path) -> Identity:
    try:
        return read_node(directory)[0]
    except OSError as error:
        raise StorageError(f"{directory}: {error.strerror or error}; remedy: name the data directory of a node") from None


def copy(directory: Path, buffer_path: Path | None, target: Path, tell: Tell) -> None:
    """All of a data directory, synced. StorageError: `target` is there already, there is no room for it, it cannot be written."""
    parts = [(directory, target), *([(buffer_path, target / "buffer-elsewhere")] if buffer_path is not None else [])]
    files = [
        (file, to / file.relative_to(part))
        for part, to in parts
        for file in sorted(part.rglob("*"))
        if file.is_file() and not file.is_symlink()
    ]
    total, done = sum(file.stat().st_size for file, _ in files), 0
    try:
        free = shutil.disk_usage(target.parent).free
        if free < total + RESERVE:
            raise StorageError(
                f"{target}: {total} bytes are to be copied there first, and {free} are free; nothing was changed; remedy: name another place with --copy-to"
            )
        target.mkdir(mode=0o700)
        for file, to in files:
            to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with file.open("rb") as read, to.open("xb") as write:
                while piece := read.read(CHUNK):
                    write.write(piece)
                    done += len(piece)
                    tell("copy", done, total)
                write.flush()
                os.fsync(write.fileno())
            shutil.copystat(file, to)
    except OSError as error:
        raise StorageError(
            f"{target}: the copy failed ({error.strerror}); nothing was changed; remedy: name another place with --copy-to"
        ) from None
