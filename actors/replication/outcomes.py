"""What the state machine decided, on its way out: to the buffer, to delivery, to who waits for commands, and back to Raft, which hears how far we are.

Raft hands out a window of committed entries before it wants to hear of them; it is told well before that, and not at each commit. When the buffer's writer is more
than `MOST_UNSTORED` bytes or `MOST_BATCHES` batches behind, it is told only when the writer has caught up: so a slow disk holds up what is committed, and not this
node's memory. And a start with a long log to apply writes transactions of a bounded size, not ever longer ones that take the interpreter from all others.

Runs in the publisher's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coterie.actors.errors import NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.replication import spans
from coterie.actors.replication.messages import NewBatch, NewBatches, Restored, Stored, WriteBatches
from coterie.actors.replication.metrics import ReplicationMetrics
from coterie.actors.replication.snapshots import Content
from coterie.actors.replication.state_machine import Outcome, StateMachine
from coterie.actors.room_messages import COMMANDS_TOPIC, Applied
from coterie.actors.tracing import Span

TELL_ENTRIES: Final = 1024
TELL_BYTES: Final = 4 << 20
MOST_UNSTORED: Final = 256 << 20  # bytes
MOST_BATCHES: Final = 8192  # an entry of a single small record is one, and costs several times its bytes


class Outcomes:
    """raft, writer, delivery, commands: references. stored: (first retained, next seq) by topic, from the buffer.

    stored, known: by topic, what the buffer holds and the next seq, of log and stream, for the view.
    """

    def __init__(
        self,
        machine: StateMachine,
        stored: Mapping[str, tuple[int, int]],
        raft: Any,
        writer: Any,
        delivery: Any,
        commands: Any,
        metrics: ReplicationMetrics,
    ) -> None:
        self._machine, self._raft, self._writer, self._delivery, self._commands = machine, raft, writer, delivery, commands
        self._metrics = metrics
        self.stored = dict(stored)
        self.known = {topic: next_seq for topic, (_, next_seq) in stored.items()}
        self._unstored = self._unstored_batches = 0
        self._untold_entries = self._untold_bytes = 0
        self._held: int | None = None
        self._counting: list[tuple[int, LightFuture]] = []

    def show(self) -> None:
        """To the metrics: where each topic stands."""
        for topic, next_seq in self.known.items():
            self._metrics.seq(topic, next_seq - 1)

    def hand_out(self, index: int, entries: int, size: int, traced: dict[int, Span]) -> Outcome:
        """The state machine has applied so many more entries of so many bytes, up to `index`. -> what came of them, for whoever else wants to know."""
        self._untold_entries += entries
        self._untold_bytes += size
        outcome = self._machine.take_outcome()
        fresh = spans.marked(outcome.fresh, traced) if traced else outcome.fresh
        self._writer.send(WriteBatches(outcome.stored, self._machine.applied, outcome.ids, outcome.next_seqs, outcome.roster))
        if fresh:
            self._deliver(fresh, COMMANDS_TOPIC in outcome.next_seqs)
            self._unstored += sum(batch.size for batch in fresh)
            self._unstored_batches += len(fresh)
            for batch in fresh:
                self._metrics.published(batch.topic, len(batch.records))
            self._moved(outcome.next_seqs)
        if self._counting:
            self._count_commands()
        if self._writer_is_behind:
            self._held = index
        elif self._untold_entries >= TELL_ENTRIES or self._untold_bytes >= TELL_BYTES:
            self._tell_applied(index)
        return outcome

    def streamed(self, stored: list[Any], fresh: list[NewBatch]) -> None:
        """From a leader's stream, on a node that is no Raft server: stored and delivered; the state machine waits for the log."""
        if stored:
            for batch in stored:
                self._metrics.seq(batch.topic, batch.first_seq + batch.count - 1)
            self._unstored += sum(len(batch.data) for batch in stored)
            self._unstored_batches += len(stored)
            self._writer.send(WriteBatches(stored))
            self._deliver(fresh, any(batch.topic == COMMANDS_TOPIC for batch in fresh))

    def become(self, content: Content, unknown: tuple[int, int] | None = None) -> None:
        """A snapshot is in the buffer: the state machine is what it says. unknown: as of `Restored`."""
        next_seqs = {topic: next_seq for topic, (next_seq, _) in content.topics.items()}
        self._machine.become(next_seqs, content.applied, content.ids, content.roster)
        self._moved(next_seqs)
        for receiver in (self._delivery, self._commands):
            receiver.send(Restored(next_seqs, unknown))
        self._count_commands()

    def was_stored(self, message: Stored) -> None:
        self.stored.update(message.topics)
        self._unstored = max(0, self._unstored - message.size)
        self._unstored_batches = max(0, self._unstored_batches - message.batches)
        if self._held is not None and not self._writer_is_behind:
            held, self._held = self._held, None
            self._tell_applied(held)

    @property
    def _writer_is_behind(self) -> bool:
        return self._unstored > MOST_UNSTORED or self._unstored_batches > MOST_BATCHES

    def commands_up_to(self, index: int, reply: LightFuture) -> None:
        """`reply` gets how many commands there are up to entry `index`, once that is applied."""
        if index <= self._machine.applied[0]:
            reply.set(self._machine.last_seq(COMMANDS_TOPIC))
        else:
            self._counting.append((index, reply))

    def close(self) -> None:
        """Who waits for commands asks another node."""
        waiting, self._counting = self._counting, []
        for _, reply in waiting:
            reply.fail(NotLeader())

    def _count_commands(self) -> None:
        waiting, self._counting = self._counting, []
        for index, reply in waiting:
            self.commands_up_to(index, reply)

    def _deliver(self, fresh: list[NewBatch], with_commands: bool) -> None:
        if with_commands:
            self._commands.send(NewBatches([batch for batch in fresh if batch.topic == COMMANDS_TOPIC]))
            fresh = [batch for batch in fresh if batch.topic != COMMANDS_TOPIC]
        if fresh:
            self._delivery.send(NewBatches(fresh))

    def _moved(self, next_seqs: Mapping[str, int]) -> None:
        for topic, next_seq in next_seqs.items():
            self.known[topic] = max(next_seq, self.known.get(topic, 0))
            self._metrics.seq(topic, self.known[topic] - 1)

    def _tell_applied(self, index: int) -> None:
        self._untold_entries = self._untold_bytes = 0
        self._raft.send(Applied(index))
