"""The one thread that writes the replication buffer: what was decided, delivered and may be forgotten, a transaction per flush.

What there is to write gathers for `gap` seconds, and goes into one transaction: nobody waits for the buffer, since an acknowledgement rests on the Raft
log, and what a crash takes from the buffer comes again from there. The thread really sleeps while it gathers: woken for each message, it would take the
interpreter from those that a publish waits for.

Batches that are stored already are skipped: a node that followed by stream and then became a Raft server sees the same batches again, from log index
1 on. Until its state machine has reached, in every topic, what the stream had brought, the applied index, the roster and the window of ids are kept back: so what
is stored as applied is always the state machine's whole state, and a restart before that begins with the log's first entry once more.

Retention: the last `retain_records` and `retain_bytes` of each topic stay; nothing at or above the local cursor is trimmed while a handler is registered. Of
commands nothing goes that the handler's next life needs (`CommandsDone`).

A disk error is fatal for the node (the base class sees to that).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from coterie.actors.base import Actor, Crash
from coterie.actors.errors import InvalidRequest
from coterie.actors.replication.buffer import BufferState, BufferWrite, Remembered, ReplicationBuffer, StoredBatch
from coterie.actors.replication.messages import (
    CommandsDone,
    CursorsMoved,
    HandlerPresent,
    KeepState,
    MakeSafe,
    Restore,
    RestoreRoster,
    Stored,
    WriteBatches,
)
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.replication.retention import TopicRetention
from coterie.actors.replication.roster_snapshot import restore_roster
from coterie.actors.replication.snapshots import Content, check, restore
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.proto.errors import WireError


class BufferWriter(Actor):
    """buffer: written by this actor alone, and closed by whoever opened it. state: what `buffer.load()` gave; next_seqs: of the recovered state machine.
    on_stored is called from this thread after each transaction and must not block."""

    concern: ClassVar[str] = "buffer"

    def __init__(
        self,
        node: str,
        buffer: ReplicationBuffer,
        state: BufferState,
        next_seqs: dict[str, int],
        on_stored: Callable[[Stored], None],
        *,
        gap: float = 0.02,
        retain_records: int = 100_000,
        retain_bytes: int = 256 << 20,
        metrics: ReplicationMetrics | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._buffer, self._on_stored, self._gap = buffer, on_stored, gap
        self._retain_records, self._retain_bytes = retain_records, retain_bytes
        self._metrics = metrics or NoMetrics()
        self._handler_present = False
        self._gathered = False
        self._batches: list[StoredBatch] = []
        self._moved: dict[str, int] = {}
        self._applied: tuple[int, int] | None = None
        self._roster: bytes | None = None
        self._entered: dict[bytes, Remembered] = {}
        self._left: dict[bytes, None] = {}
        self._dirty = False
        self._results: dict[int, bytes | None] = {}
        self._results_anew = False
        # Until its handler is there, a node that had one keeps all that it may ask for again.
        commands = state.topics.get(COMMANDS_TOPIC)
        self._hold = (state.state.index if state.state is not None else 0) + 1 if commands is not None and commands.cursor > 1 else None
        self._begin(state, next_seqs)

    def _begin(self, state: BufferState, next_seqs: Mapping[str, int]) -> None:
        """The buffer is in this state, the state machine at `next_seqs`."""
        self._topics = {t: TopicRetention(s.first_seq, s.next_seq, s.size) for t, s in state.topics.items() if s.next_seq}
        self._cursors = {t: s.cursor for t, s in state.topics.items()}
        self._behind = {t: s.next_seq for t, s in state.topics.items() if next_seqs.get(t, 1) < s.next_seq}
        self._applied_stored = state.applied[0]

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is WriteBatches:
            self._take(message)
        elif kind is CursorsMoved:
            self._moved.update(message.cursors)
            self._cursors.update(message.cursors)
            self._dirty = True
        elif kind is CommandsDone:
            self._moved[COMMANDS_TOPIC] = self._cursors[COMMANDS_TOPIC] = message.cursor
            self._hold = message.hold
            if message.anew:
                self._results, self._results_anew = {}, True
            self._results.update(message.rows)
            self._dirty = True
        elif kind is KeepState:
            if self._dirty:
                self._write()
            self._buffer.write(BufferWrite(state=message.new))
            return True
        elif kind is MakeSafe:
            return self._make_safe()
        elif kind is Restore:
            return self._restore(message)
        elif kind is RestoreRoster:
            return self._restore_roster(message)
        elif kind is HandlerPresent:
            self._handler_present = message.present
        else:
            self.log.warning("unexpected message: a %s", type(message).__name__)
        return None

    def flush(self) -> None:
        if not self._dirty:
            return
        if not self._gathered:
            time.sleep(self._gap)
            self._gathered = True
            self.wake_at(0.0)  # as soon as what has come meanwhile is taken
            return
        self._gathered = False
        self._write()

    def on_stop(self) -> None:
        if self._dirty:
            self._write()

    def on_restart(self) -> None:
        raise RuntimeError("the buffer writer lost what it held; the node stops rather than leave a hole in its buffer")

    def _make_safe(self) -> int:
        if self._dirty:
            self._write()
        self._buffer.sync()
        return self._applied_stored

    def _restore(self, message: Restore) -> Content:
        """See `state_transfer`. What was given before is stored first: cursors, and what a stream had brought beyond the snapshot."""
        try:
            content = check(message.content)
        except (WireError, OSError) as error:
            raise InvalidRequest(f"the snapshot cannot be used: {error}") from error
        if content.applied != message.applied:
            raise InvalidRequest(f"the snapshot ends at {content.applied}, it was said to end at {message.applied}")
        if self._dirty:
            self._write()
        restore(self._buffer, message.content, content, message.mark)
        return self._became(content)

    def _restore_roster(self, message: RestoreRoster) -> Content:
        if self._dirty:
            self._write()
        try:
            content = restore_roster(
                self._buffer, message.document, message.applied, message.mark, list(self._entered.values()), list(self._left)
            )
        except WireError as error:
            raise InvalidRequest(f"the snapshot of a Go leader cannot be used: {error}") from error
        return self._became(content)

    def _became(self, content: Content) -> Content:
        self._buffer.sync()
        self._applied, self._roster = None, None  # what was kept back is in the snapshot
        self._entered, self._left = {}, {}
        self._begin(self._buffer.load(), {topic: next_seq for topic, (next_seq, _) in content.topics.items()})
        self._on_stored(Stored(self._applied_stored, {name: (t.first, t.next) for name, t in self._topics.items()}, 0))
        return content

    def _take(self, message: WriteBatches) -> None:
        self._dirty = True
        self._batches += message.batches
        for key, remembered in message.ids:
            if remembered is not None:
                self._entered[key] = remembered
            elif self._entered.pop(key, None) is None:
                self._left[key] = None
        for topic, next_seq in message.next_seqs.items():
            if next_seq >= self._behind.get(topic, 0):
                self._behind.pop(topic, None)
        if message.applied is None:  # streamed: these topics are ahead of the state machine now
            for batch in message.batches:
                self._behind[batch.topic] = batch.first_seq + batch.count
        else:
            self._applied = message.applied
        if message.roster is not None:
            self._roster = message.roster

    def _write(self) -> None:
        started = time.monotonic()
        self._dirty = False
        batches, self._batches = self._batches, []
        size = sum(len(batch.data) for batch in batches)
        fresh: list[StoredBatch] = []
        touched = dict.fromkeys(self._moved)
        for batch in batches:
            topic = self._topics.get(batch.topic)
            if topic is None:
                topic = self._topics[batch.topic] = TopicRetention(batch.first_seq, batch.first_seq, 0)
            if batch.first_seq > topic.next:
                self._jump(fresh, batch, topic)
                fresh = []
            if batch.first_seq == topic.next:
                topic.added(batch.first_seq + batch.count, len(batch.data))
                fresh.append(batch)
                touched[batch.topic] = None
        self._commit(fresh, list(touched))
        self._metrics.buffer_write_seconds(time.monotonic() - started, len(batches))
        positions = {name: (t.first, t.next) for name in touched if (t := self._topics.get(name)) is not None}
        self._on_stored(Stored(self._applied_stored, positions, size, len(batches)))

    def _jump(self, before: list[StoredBatch], batch: StoredBatch, topic: TopicRetention) -> None:
        """A stream goes on behind a gap: what the topic held before it is dropped, so that what is retained has no hole."""
        self._buffer.write(BufferWrite(batches=before))
        self._buffer.write(BufferWrite(topics={batch.topic: batch.first_seq}))
        topic.restart(batch.first_seq)

    def _commit(self, batches: list[StoredBatch], touched: list[str]) -> None:
        trim = []
        for name in touched:
            topic = self._topics.get(name)
            if topic is None:
                continue
            ceiling = self._cursors.get(name, 0) or topic.first if self._handler_present else topic.next
            if name == COMMANDS_TOPIC:
                ceiling = topic.next if self._hold is None else self._hold
            below = topic.surplus(self._retain_records, self._retain_bytes, ceiling)
            if below is not None:
                trim.append((name, below))
                topic.trimmed(below)
        cursors, self._moved = self._moved, {}
        results, self._results = self._results, {}
        anew, self._results_anew = self._results_anew, False
        if self._behind or self._applied is None:
            self._buffer.write(BufferWrite(batches=batches, cursors=cursors, trim=trim, results=results, results_anew=anew))
            return
        entered, self._entered = self._entered, {}
        left, self._left = self._left, {}
        applied, self._applied = self._applied, None
        roster, self._roster = self._roster, None
        change = BufferWrite(
            batches, {}, cursors, applied, list(entered.values()), list(left), None, trim, roster, results=results, results_anew=anew
        )
        self._buffer.write(change)
        self._applied_stored = applied[0]
