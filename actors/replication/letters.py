"""Records that a handler has failed on too often, on their way to the dead-letter topic.

    the handler raised `limit` times ──► due ──publish──► out ──committed──► the cursor passes the record
                                          ▲                │
                                          └── retry later ─┘ not published, or unknown

The topic stands until its letter is committed on a quorum: so a record is never passed over before it is somewhere else, and without a leader its topic waits. A
letter that is published twice, after a crash or an unknown outcome, is taken once, by its message id (`actors/dead_letters.py`).

A record of the dead-letter topic itself never becomes a letter, or a failing `handle_dead_letter` would make letters about letters for ever: it is skipped on
that node, counted and named in the log; the topic keeps it.

Runs in the delivery actor's thread, which owns cursors and attempts; nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from coterie.actors.dead_letters import describe, read_letter, write_letter
from coterie.actors.future import LightFuture
from coterie.actors.messages import DeadLettered, Failing, Publish
from coterie.actors.replication.delivery_queue import TopicQueue
from coterie.actors.replication.messages import NewBatch

MOST_TOPICS: Final = 1024  # whose letters are counted one by one; those of further topics are counted together
OTHERS: Final = "(further topics)"


class _Letter:
    """One record's letter. future: of its publish, None while it waits for `due` (monotonic) to be published again; refused: why."""

    __slots__ = ("due", "future", "publish", "refused", "seq")

    def __init__(self, seq: int, publish: Publish) -> None:
        self.seq, self.publish = seq, publish
        self.future: LightFuture | None = None
        self.due = 0.0
        self.refused = ""


class Letters:
    """limit: how often a handler may fail on a record, 0: for ever. topic: the dead-letter topic. publish: asks the publisher. answered(topic, future): told, from
    any thread, when a letter's publish has its outcome."""

    def __init__(
        self,
        node: str,
        limit: int,
        topic: str,
        retry: float,
        publish: Callable[[Publish], LightFuture],
        answered: Callable[[str, LightFuture], object],
    ) -> None:
        self.limit, self.topic = limit, topic
        self.seen: dict[str, int] = {}  # letters that came by, by the topic of their records
        self._node, self._retry, self._publish, self._answered = node, retry, publish, answered
        self._pending: dict[str, _Letter] = {}

    # -- a record is given up -------------------------------------------------------------------------------------------------

    def holds(self, topic: str) -> bool:
        """Whether `topic` waits for a letter of its record."""
        return topic in self._pending

    def write(self, topic: TopicQueue, error: BaseException) -> bool:
        """The record at the cursor of `topic`, on which the handler has failed `topic.failures` times, becomes a letter. False when it is not in memory any
        more: the handler was taken away while it worked."""
        front = topic.front(1)
        if front is None:
            return False
        batch, records = front
        publish = write_letter(self.topic, topic.topic, records[0], batch.index, batch.time, self._node, topic.failures, describe(error))
        self._pending[topic.topic] = letter = _Letter(topic.cursor, publish)
        self._send(topic.topic, letter)
        return True

    def outcome(self, topic: str, future: LightFuture, now: float) -> bool:
        """Whether the letter of `topic` is committed, so that its record may be passed. If not it is published again after the retry time."""
        letter = self._pending.get(topic)
        if letter is None or letter.future is not future:
            return False
        letter.future = None
        if future.error is None:
            del self._pending[topic]
            return True
        letter.refused, letter.due = describe(future.error), now + self._retry
        return False

    def resend(self, now: float) -> None:
        """Publish again what is due."""
        for topic, letter in self._pending.items():
            if letter.future is None and letter.due <= now:
                self._send(topic, letter)

    def next_time(self) -> float | None:
        return min((letter.due for letter in self._pending.values() if letter.future is None), default=None) if self._pending else None

    def withdraw(self) -> list[str]:
        """A new handler is there: the topics whose letter is not under way, whose records it gets instead."""
        back = [topic for topic, letter in self._pending.items() if letter.future is None]
        for topic in back:
            del self._pending[topic]
        return back

    def _send(self, topic: str, letter: _Letter) -> None:
        letter.future = future = self._publish(letter.publish)
        future.on_done(partial(self._answered, topic, future))

    # -- letters come by ------------------------------------------------------------------------------------------------------

    def arrived(self, batch: NewBatch, term: int) -> list[DeadLettered]:
        """Count the letters of a batch of the dead-letter topic. -> their events."""
        events = []
        for seq, record in enumerate(batch.records, batch.first_seq):
            letter = None if record.__class__ is bytes else read_letter(seq, batch.time, record[0], record[2])
            if letter is None:
                continue
            name = letter.topic if letter.topic in self.seen or len(self.seen) < MOST_TOPICS else OTHERS
            self.seen[name] = self.seen.get(name, 0) + 1
            events.append(DeadLettered(batch.time, term, letter.topic, letter.seq, letter.node, letter.reason, seq))
        return events

    # -- what is shown --------------------------------------------------------------------------------------------------------

    def failing(self, topics: dict[str, TopicQueue]) -> tuple[Failing, ...]:
        """The topics that stand at a record their handler fails on."""
        return tuple(
            Failing(self._node, t.topic, t.cursor, t.failures, describe(t.error), self._waits(t.topic))
            for t in topics.values()
            if t.error is not None
        )

    def warning(self, row: Failing) -> str:
        most = f" of {self.limit}" if self.limit else ""
        said = f"the handler fails on {row.topic!r} seq {row.seq} on {row.node} (attempt {row.attempts}{most}): {row.error}"
        return f"{said}; its dead letter waits: {row.waiting}" if row.waiting else said

    def _waits(self, topic: str) -> str:
        letter = self._pending.get(topic)
        if letter is None:
            return ""
        return letter.refused or "it is being published"
