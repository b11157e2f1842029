"""The replication buffer as the room sees it: the batches this node holds, how far each topic is, and what was applied; all of a change at once.

A batch is opaque here: the record batch as it came in its Raft entry, stored under (topic, seq of its first record). What the buffer knows about
a topic is arithmetic over sequence numbers, which begin at 1:

    first_seq            cursor                    next_seq
        | batch | batch | batch | batch | batch | batch |
        `----- retained, without a hole, whole batches -'

One `write` is one transaction: batches, topic states, cursors, the applied index, the roster and the window of message ids are never seen apart, so after a
crash the state machine goes on from `applied` and repeats nothing. Two implementations keep the same contract
(tests/unit/test_buffer_contract.py): `LmdbBuffer` on disk and `MemoryBuffer`.

The functions at the end are the arithmetic that both share; storage is theirs. A contradiction between a write and the stored state is a
ValueError and changes nothing: the state machine and its buffer disagree, which must surface at the place where it begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final, NamedTuple, Protocol

import attrs

MAX_TOPIC_BYTES: Final = 255
MAX_MESSAGE_ID_BYTES: Final = 0xFFFF


class StoredBatch(NamedTuple):
    """`count` records of `topic`, the first of them `first_seq`, from the Raft entry `index`; `data` exactly as it came."""

    topic: str
    first_seq: int
    count: int  # type: ignore[assignment]  # the number of records; tuple.count() is never wanted here
    index: int  # type: ignore[assignment]  # the Raft index; tuple.index() is never wanted here
    data: bytes


class TopicState(NamedTuple):
    """Where a topic stands.

    next_seq: what its next record gets; 0 while nothing but a cursor is known of it.
    first_seq: the first record retained; next_seq when none is.
    cursor: the next record to be delivered on this node; 0 when nothing was ever written about it.
    batches, size: how many batches are retained, and the bytes of their data.
    """

    next_seq: int = 0
    first_seq: int = 0
    cursor: int = 0
    batches: int = 0
    size: int = 0


class StateHead(NamedTuple):
    """A snapshot of the handler's state, kept in blocks (proto.command_state). index: of the last command in it; log_index: of that one's Raft entry; blocks: how
    many there are, numbered from 0; size: their bytes."""

    index: int  # type: ignore[assignment]  # the command's; tuple.index() is never wanted here
    log_index: int
    blocks: int
    size: int


class NewState(NamedTuple):
    """A state to be kept in the place of the one before. `blocks` may be read several times."""

    head: StateHead
    blocks: Iterable[bytes]


class Remembered(NamedTuple):
    """A message id in the window, and the record it became."""

    message_id: bytes
    topic: str
    seq: int
    index: int  # type: ignore[assignment]  # the Raft index; tuple.index() is never wanted here


@attrs.define(frozen=True)
class BufferWrite:
    """What changes together. Applied in this order, whatever the order of the arguments:

    restart: {topic: seq}: what was retained of the topic is dropped, and it goes on at `seq`, which is not below where it was.
    batches: each continues its topic (first_seq == next_seq); a topic not known before may begin anywhere from 1 on.
    topics: next_seq of topics after this write. Equal to where the batches led it is redundant; higher, without batches, it is a jump (a snapshot was
        restored): what was retained of that topic is dropped. Lower is a contradiction.
    cursors: next seq to deliver on this node. It may be ahead of next_seq, since live nodes deliver from memory before the buffer is written.
    trim: (topic, below_seq): drop batches that lie below it as a whole.
    applied: (index, term) of the last Raft entry this state includes; never goes back.
    dedupe_add, dedupe_drop: message ids that enter the window at its end, and leave it (drops first).
    dedupe_limit: after that the oldest leave until no more than this many are left; None: no bound.
    roster: the document of the roster as of `applied`; None: as it was.
    mark: what the log says of the snapshot that this write installs (bytes of the Raft room); None: as it was.
    state: the handler's state to be kept; None: as it was.
    results: rows of the commands' sessions by index, None for one that goes; with `results_anew` all earlier ones go first.
    `batches` may be read several times.
    """

    batches: Iterable[StoredBatch] = ()
    topics: Mapping[str, int] = attrs.field(factory=dict)
    cursors: Mapping[str, int] = attrs.field(factory=dict)
    applied: tuple[int, int] | None = None
    dedupe_add: Sequence[Remembered] = ()
    dedupe_drop: Sequence[bytes] = ()
    dedupe_limit: int | None = None
    trim: Sequence[tuple[str, int]] = ()
    roster: bytes | None = None
    restart: Mapping[str, int] = attrs.field(factory=dict)
    mark: bytes | None = None
    state: NewState | None = None
    results: Mapping[int, bytes | None] = attrs.field(factory=dict)
    results_anew: bool = False


@attrs.define(frozen=True)
class BufferState:
    """All but the batches. `dedupe` is oldest first; `applied` is (0, 0) before the first; `roster` is None where none was ever written."""

    topics: Mapping[str, TopicState]
    applied: tuple[int, int]
    dedupe: tuple[Remembered, ...]
    roster: bytes | None = None
    state: StateHead | None = None


class Frozen(NamedTuple):
    """One state of a buffer: all batches, topic by topic in order, and the blocks of the handler's state."""

    state: BufferState
    batches: Iterator[StoredBatch]
    blocks: Iterator[bytes]


class Gap(KeyError):
    """The records asked for are no longer retained; the first that is, is `first_retained`."""

    def __init__(self, topic: str, seq: int, first_retained: int) -> None:
        super().__init__(f"{topic!r}: seq {seq} is no longer retained; the first is {first_retained}")
        self.topic, self.seq, self.first_retained = topic, seq, first_retained


class ReplicationBuffer(Protocol):
    """One thread writes; any thread may read."""

    @property
    def applied(self) -> tuple[int, int]:
        """That of `load()`, without reading anything."""
        ...

    def load(self) -> BufferState: ...

    def state(self, topic: str) -> TopicState:
        """Where one topic stands; an empty state when nothing is known of it."""
        ...

    def write(self, change: BufferWrite) -> None:
        """One transaction. ValueError for a contradiction with what is stored (nothing was changed), StorageError when the disk failed."""
        ...

    def read(self, topic: str, seq: int, max_bytes: int, max_batches: int) -> list[StoredBatch]:
        """Batches in order from the one that contains `seq`, cut after the one that reaches `max_bytes`; at least one, at most `max_batches`.
        Empty when nothing is stored there yet. Gap when it is no longer retained."""
        ...

    def frozen(self) -> AbstractContextManager[Frozen]:
        """One state of the buffer, whatever is written meanwhile. Any thread. Batches and blocks raise Overloaded or StorageError when something waits for the
        reader to end."""
        ...

    def state_head(self) -> StateHead | None:
        """Of the handler's state. Any thread."""
        ...

    def block(self, index: int, number: int) -> bytes | None:
        """Block `number` of the handler's state as of command `index`; None when another state is kept now. Any thread."""
        ...

    def results(self) -> list[tuple[int, bytes]]:
        """The rows of the commands' sessions, by index."""
        ...

    def mark(self) -> bytes | None:
        """Of the last snapshot that was installed."""
        ...

    def sync(self) -> None:
        """Make everything written so far survive a power failure."""
        ...

    def close(self) -> None: ...


def check_state(before: StateHead | None, change: NewState) -> StateHead:
    """The state that is kept after the write."""
    head = change.head
    if head.index < 1 or head.blocks < 1 or (before is not None and head.index < before.index):
        raise ValueError(f"state={head}: behind {before}, or of no command")
    return head


def check_topic(topic: str) -> bytes:
    """The topic's name as it is stored: its exact UTF-8 bytes, 1 to 255 of them. ValueError otherwise."""
    name = topic.encode()
    if not 1 <= len(name) <= MAX_TOPIC_BYTES:
        raise ValueError(f"topic={topic!r}: {len(name)} bytes of UTF-8; valid are 1 to {MAX_TOPIC_BYTES}")
    return name


def extended(state: TopicState, batch: StoredBatch) -> TopicState:
    """The topic after one more batch."""
    if batch.count < 1 or batch.first_seq < 1:
        raise ValueError(f"{batch.topic!r}: a batch of {batch.count} records at seq {batch.first_seq}; both begin at 1")
    next_seq = state.next_seq or batch.first_seq
    if batch.first_seq != next_seq:
        raise ValueError(f"{batch.topic!r}: a batch at seq {batch.first_seq}, the next is {next_seq}")
    first_seq = state.first_seq or batch.first_seq
    return TopicState(next_seq + batch.count, first_seq, state.cursor, state.batches + 1, state.size + len(batch.data))


def restarted(topic: str, state: TopicState, seq: int) -> TopicState:
    """The topic when it goes on at `seq`, without what was retained."""
    if seq < max(1, state.next_seq):
        raise ValueError(f"{topic!r}: goes on at {seq}, {state.next_seq} stored")
    return TopicState(seq, seq, state.cursor)


def declared(topic: str, state: TopicState, next_seq: int, has_batches: bool) -> TopicState:
    """The topic when the state machine says what its next_seq is; without batches where that is a jump."""
    if next_seq == state.next_seq:
        return state
    if next_seq < max(1, state.next_seq) or has_batches:
        raise ValueError(f"{topic!r}: next_seq={next_seq} declared, {state.next_seq} stored")
    return TopicState(next_seq, next_seq, state.cursor)


def moved(topic: str, state: TopicState, cursor: int) -> TopicState:
    if cursor < 1:
        raise ValueError(f"{topic!r}: cursor={cursor}; sequence numbers begin at 1")
    return state._replace(cursor=cursor)


def trimmed(state: TopicState, dropped: Iterable[tuple[int, int]]) -> TopicState:
    """The topic without its first batches, given as (count, bytes)."""
    for count, size in dropped:
        state = state._replace(first_seq=state.first_seq + count, batches=state.batches - 1, size=state.size - size)
    return state


def check_applied(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    if after[0] < before[0] or after[1] < before[1]:
        raise ValueError(f"applied={after}: is behind {before}")
    return after


def window_change(known: Collection[bytes], change: BufferWrite) -> tuple[list[bytes], list[Remembered]]:
    """What leaves the window and what enters it, given the ids it holds, oldest first. An id too many of the write itself never enters."""
    leaving = list(change.dedupe_drop)
    gone, added = set(leaving), {remembered.message_id for remembered in change.dedupe_add}
    if len(gone) < len(leaving) or not all(message_id in known for message_id in leaving):
        raise ValueError(f"dedupe_drop={leaving}: not all of them, once each, are in the window")
    if len(added) < len(change.dedupe_add) or any(message_id in known and message_id not in gone for message_id in added):
        raise ValueError(f"dedupe_add={sorted(added)}: not all of them are new to the window")
    for remembered in change.dedupe_add:
        check_topic(remembered.topic)
        if not 1 <= len(remembered.message_id) <= MAX_MESSAGE_ID_BYTES:
            raise ValueError(
                f"message_id={remembered.message_id!r}: {len(remembered.message_id)} bytes; valid are 1 to {MAX_MESSAGE_ID_BYTES}"
            )
    if change.dedupe_limit is None:
        return leaving, list(change.dedupe_add)
    surplus = len(known) - len(gone) + len(added) - change.dedupe_limit
    oldest = (message_id for message_id in known if message_id not in gone)
    leaving += islice(oldest, max(0, surplus))
    return leaving, list(change.dedupe_add[max(0, len(added) - change.dedupe_limit) :])
