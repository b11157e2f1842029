"""Where the state machine stood when the buffer was last written.

Usually that is simply what is stored: next_seq per topic, the applied index and the window of ids are written in one transaction. A node that left the
quorum and followed by stream is the exception: its buffer holds batches beyond `applied`, which its state machine never saw. Each batch names the Raft index
it comes from, so the topic's place at `applied` is the first record of the first batch with a greater index.

A buffer of an older version has no roster, since its nodes skipped what changes it: then it is made from the log, once. The log is still whole, as
no version without a roster compacts it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from coterie.actors.errors import StorageError
from coterie.actors.replication.buffer import BufferState, BufferWrite, ReplicationBuffer, TopicState
from coterie.actors.replication.roster import Roster
from coterie.actors.replication.state_machine import StateMachine
from coterie.proto.errors import WireError
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.proto.record_batch import kind_of
from coterie.proto.roster import decode_command

Past = Callable[[int], Iterable[Entry]]


def recovered(buffer: ReplicationBuffer, past: Past = lambda index: ()) -> tuple[StateMachine, BufferState]:
    """The state machine as of the buffer's applied index, and the buffer's state. past(index): the entries of the log up to there.
    StorageError when what is retained does not tell it any more."""
    state = buffer.load()
    index = state.applied[0]
    next_seqs = {}
    if index > 0:
        for topic, stored in state.topics.items():
            if stored.next_seq > 1:
                next_seqs[topic] = next_seq_at(buffer, topic, stored, index)
    roster = _roster(state, past)
    if state.roster is None and index > 0:
        buffer.write(BufferWrite(roster=roster.document()))  # before anything of the log that it was made from can go
    return StateMachine(next_seqs, state.applied, state.dedupe, roster=roster), state


def _roster(state: BufferState, past: Past) -> Roster:
    try:
        roster = Roster(state.roster)
    except WireError as error:
        raise StorageError(
            f"the roster in the replication buffer cannot be read ({error}); remove this node's data directory and let it join again"
        ) from None
    if state.roster is None and state.applied[0] > 0:
        for entry in past(state.applied[0]):
            if entry.kind == COMMAND and entry.data and kind_of(entry.data) == "roster":
                with contextlib.suppress(WireError):  # skipped by every node, and counted when it is applied
                    roster.apply(decode_command(entry.data))
    return roster


def next_seq_at(buffer: ReplicationBuffer, topic: str, stored: TopicState, index: int) -> int:
    """Where a topic stood when the state machine had applied the entry `index`. StorageError when what is retained does not tell it."""
    if stored.batches == 0:
        return stored.next_seq
    last = buffer.read(topic, stored.next_seq - 1, 1, 1)[0]
    if last.index <= index:
        return stored.next_seq
    seq, passed = stored.first_seq, stored.first_seq == 1
    while seq < stored.next_seq:
        for batch in buffer.read(topic, seq, 1 << 20, 256):
            if batch.index > index:
                if passed:
                    return batch.first_seq
                raise StorageError(
                    f"the replication buffer holds {topic!r} from seq {batch.first_seq} (Raft index {batch.index}) on, beyond its applied index {index}: "
                    "where the log goes on cannot be told; remove this node's data directory and let it join again"
                )
            passed, seq = True, batch.first_seq + batch.count
    return stored.next_seq
