"""The buffer as a snapshot, and a snapshot as the buffer.

A snapshot is what the log up to one entry has made of publishing: where each topic stands, the records that are retained, the window of message ids, the
roster; and the latest snapshot of the handlers' state that this node keeps. Cursors are not in it: how far the handler of a node is, is that node's affair.
Whoever installs one keeps its own cursors; what its handler has not had and the snapshot does not retain any more is a gap, and is reported as one when
delivery comes to it.

`dump` reads one state of the buffer while the node goes on. `check` reads a whole snapshot before anything of it is believed. `restore` is one transaction: a
crash leaves the old state or the new one. `mark` is Raft's, and is kept beside what was restored, so that a restart can finish an installation of which
the log does not know yet.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from coterie.actors.replication.buffer import BufferWrite, Frozen, NewState, Remembered, ReplicationBuffer, StateHead, StoredBatch
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.proto import snapshot
from coterie.proto.command_state import decode_block
from coterie.proto.errors import WireError
from coterie.proto.record_batch import decode_batch
from coterie.proto.roster import decode_document, encode_document
from coterie.proto.snapshot import BATCH, BLOCK, END, HEAD, IDS, MAX_IDS, ROSTER, STATE, TOPIC, encode_frame


class Content(NamedTuple):
    """What a snapshot says, but for its batches. topics: {name: (next seq, first retained seq)}."""

    applied: tuple[int, int]
    topics: dict[str, tuple[int, int]]
    ids: list[Remembered]
    roster: bytes | None
    state: StateHead | None = None


def dump(buffer: ReplicationBuffer, out: IO[bytes], room: int | None = None) -> tuple[int, int]:
    """Write a snapshot of `buffer` to `out`; the (index, term) where it ends. Any thread. room: bytes that it may take, for the disk is the log's too. Raises
    OSError; Overloaded, StorageError: the buffer wants to grow, or is closed."""
    out.write(snapshot.MAGIC)
    count = 0
    with buffer.frozen() as frozen:
        state = frozen.state
        size = sum(stored.size for stored in state.topics.values()) + (state.state.size if state.state is not None else 0)
        if room is not None and size > room:
            raise OSError(errno.ENOSPC, f"a snapshot takes {size} bytes, {room} are free for it")
        for frame in _frames(frozen):
            out.write(frame)
            count += 1
        out.write(encode_frame(END, count))
        return state.applied


def document(buffer: ReplicationBuffer, out: IO[bytes]) -> tuple[int, int]:
    """Write what a node of go-cluster restores: the roster's document. As `dump`."""
    with buffer.frozen() as frozen:
        state = frozen.state
        out.write(state.roster if state.roster is not None else encode_document(()))
        return state.applied


def _frames(frozen: Frozen) -> Iterator[bytes]:
    state = frozen.state
    yield encode_frame(HEAD, *state.applied)
    for topic, stored in state.topics.items():
        if stored.next_seq:
            yield encode_frame(TOPIC, topic, stored.next_seq, stored.first_seq)
    for batch in frozen.batches:
        yield encode_frame(BATCH, *batch)
    for at in range(0, len(state.dedupe), MAX_IDS):
        yield encode_frame(IDS, [list(remembered) for remembered in state.dedupe[at : at + MAX_IDS]])
    if state.roster is not None:
        yield encode_frame(ROSTER, state.roster)
    if state.state is not None:
        yield encode_frame(STATE, *state.state)
        for block in frozen.blocks:
            yield encode_frame(BLOCK, block)


def check(stream: IO[bytes]) -> Content:
    """Read all of it, from its beginning. Raises WireError, which says what is wrong with it."""
    applied, roster, handler = (0, 0), None, _StateCheck()
    topics: dict[str, tuple[int, int]] = {}
    ids: list[Remembered] = []
    reached: dict[str, int] = {}
    for kind, values in snapshot.read(stream):
        if kind == HEAD:
            applied = (values[0], values[1])
        elif kind == TOPIC:
            topic, next_seq, first_seq = values
            if topic in topics or not 1 <= first_seq <= next_seq:
                raise WireError(f"snapshot: topic {topic!r} stands at {first_seq}..{next_seq}, or twice")
            topics[topic], reached[topic] = (next_seq, first_seq), first_seq
        elif kind == BATCH:
            _check_batch(StoredBatch(*values), reached, applied[0])
        elif kind == IDS:
            ids += [_remembered(values_of_one) for values_of_one in values[0]]
        elif kind == ROSTER:
            roster = values[0]
            decode_document(roster)
        elif kind in (STATE, BLOCK):
            handler.take(kind, values)
    handler.end(applied[0], topics)
    for topic, (next_seq, _) in topics.items():
        if reached[topic] != next_seq:
            raise WireError(f"snapshot: the batches of {topic!r} end at {reached[topic]}, its next seq is {next_seq}")
    if len({remembered.message_id for remembered in ids}) < len(ids):
        raise WireError("snapshot: a message id stands twice in the window")
    return Content(applied, topics, ids, roster, handler.head)


def _check_batch(batch: StoredBatch, reached: dict[str, int], applied: int) -> None:
    if batch.count < 1 or batch.first_seq != reached.get(batch.topic) or batch.index > applied:
        raise WireError(f"snapshot: a batch of {batch.count} records of {batch.topic!r} at {batch.first_seq}, entry {batch.index}")
    opened = decode_batch(batch.data)
    if opened.topic != batch.topic or len(opened.records) != batch.count:
        raise WireError(f"snapshot: the batch of {batch.topic!r} at {batch.first_seq} does not hold what its head says")
    reached[batch.topic] += batch.count


class _StateCheck:
    """The handlers' state in a snapshot: its head, then as many blocks as that says."""

    def __init__(self) -> None:
        self.head: StateHead | None = None
        self._blocks = self._size = 0

    def take(self, kind: int, values: tuple[Any, ...]) -> None:
        if (kind == STATE) != (self.head is None):
            raise WireError("snapshot: a block of the handlers' state before its head, or two heads")
        if kind == STATE:
            self.head = StateHead(*values)
            return
        decode_block(values[0])
        self._blocks += 1
        self._size += len(values[0])

    def end(self, applied: int, topics: dict[str, tuple[int, int]]) -> None:
        head = self.head
        if head is None:
            return
        if (head.blocks, head.size) != (self._blocks, self._size) or head.blocks < 1:
            raise WireError(
                f"snapshot: {self._blocks} blocks of the handlers' state came of {head.blocks}, {self._size} bytes of {head.size}"
            )
        if not 1 <= head.index < topics.get(COMMANDS_TOPIC, (1, 1))[0] or head.log_index > applied:
            raise WireError(f"snapshot: the handlers' state goes up to command {head.index}, which is not in it")


def _remembered(values: object) -> Remembered:
    if isinstance(values, list) and [value.__class__ for value in values] == [bytes, str, int, int]:
        return Remembered(*values)
    raise WireError("snapshot: a message id is not in its form")


class _Batches:
    """The batches of a snapshot, as often as they are asked for: a transaction that is run again reads them again. Without those that the buffer has."""

    def __init__(self, stream: IO[bytes], known: dict[str, int]) -> None:
        self._stream, self._known = stream, known

    def __iter__(self) -> Iterator[StoredBatch]:
        self._stream.seek(0)
        for kind, values in snapshot.read(self._stream):
            if kind == BATCH:
                batch = StoredBatch(*values)
                if batch.first_seq >= self._known.get(batch.topic, 0):
                    yield batch


class _Blocks:
    """The blocks of the handlers' state, as often as they are asked for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        self._stream.seek(0)
        return (values[0] for kind, values in snapshot.read(self._stream) if kind == BLOCK)


def restore(buffer: ReplicationBuffer, stream: IO[bytes], content: Content, mark: bytes) -> None:
    """Put the snapshot, which was checked, in the place of what `buffer` holds. One transaction. Raises StorageError."""
    state = buffer.load()
    known, restart = {}, {}
    handler = content.state
    if handler is not None and state.state is not None and handler.index <= state.state.index:
        handler = None  # what is kept here goes further
    for topic, (next_seq, first_seq) in content.topics.items():
        stored = state.topics.get(topic)
        if stored is None or stored.next_seq < first_seq:
            restart[topic] = first_seq
        known[topic] = min(stored.next_seq, next_seq) if stored is not None and topic not in restart else 0
    change = BufferWrite(
        batches=_Batches(stream, known),
        restart=restart,
        applied=content.applied,
        dedupe_drop=[remembered.message_id for remembered in state.dedupe],
        dedupe_add=content.ids,
        roster=content.roster,
        mark=mark,
        state=NewState(handler, _Blocks(stream)) if handler is not None else None,
    )
    buffer.write(change)
