"""What a node finds when it starts: does its log go on where its state machine is?

A state machine that is ahead of the log was made of a snapshot whose installation the node did not live to finish (`snapshots` says why in this order): the log is
put behind it now. One that is behind the beginning of the log cannot be brought up to date from it.
"""

from __future__ import annotations

from coterie.actors.errors import StorageError
from coterie.actors.raft.log import RaftLog, SnapshotMark
from coterie.actors.raft.log_format import unpack_mark


def finish_installation(log: RaftLog, mark: bytes | None) -> bool:
    """mark: what is kept beside the state machine, of the last snapshot that it was made of. True when the log was put behind it. Raises StorageError."""
    unfinished = unfinished_installation(log, mark)
    if unfinished is not None:
        log.reset(unfinished)
    return unfinished is not None


def unfinished_installation(log: RaftLog, mark: bytes | None) -> SnapshotMark | None:
    """The end of a snapshot that the log is to be put behind. Raises StorageError."""
    if mark is None:
        return None
    try:
        ended = unpack_mark(mark)
    except ValueError as error:
        raise StorageError(
            f"the replication buffer: {error}; remove this server from the quorum, empty its data directory, and join it again"
        ) from error
    if log.hard_state().term < ended.term:
        raise StorageError(
            f"the replication buffer was made of a snapshot of term {ended.term}, the Raft log has not been in a later term than {log.hard_state().term}: was it "
            "removed or replaced? A server that forgot its votes must not vote: remove it from the quorum, empty its data directory, and join it again"
        )
    if ended.index < log.first_index - 1 or (ended.index <= log.last_index and log.term(ended.index) == ended.term):
        return None
    return ended


def check_start(log: RaftLog, applied: int) -> None:
    """Raises StorageError when entries that the state machine has not had are gone from the log."""
    if applied < log.first_index - 1:
        raise StorageError(
            f"the Raft log begins at entry {log.first_index}, the replication buffer has entries up to {applied}: those between are gone. Was the buffer "
            "removed or replaced? Remove this server from the quorum, empty its data directory (and repl_buffer_dir), and join it again"
        )
