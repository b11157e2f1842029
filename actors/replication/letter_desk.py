"""The desk for questions about dead letters: which there are, and one of them published again.

The letters are read from this node's buffer, which has them all, whoever wrote them, as far as retention goes back. Reading is bounded by `READ_BYTES` a question,
so that a large topic with few letters about the wanted one costs its asker a second question (`LetterPage.next`) and not this node its memory. The desk has
a thread of its own, since a cold disk may keep it waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.dead_letters import read_letter, requeued
from coterie.actors.errors import InvalidRequest, NoQuorum, StorageError
from coterie.actors.future import LightFuture
from coterie.actors.messages import DeadLetter, DeadLetters, LetterPage, Publish, Requeue
from coterie.actors.replication.buffer import Gap, ReplicationBuffer, StoredBatch
from coterie.actors.replication.requests import check_timeout, check_topic
from coterie.proto.errors import WireError
from coterie.proto.record_batch import Batch, decode_batch

MOST_LETTERS: Final = 1000
READ_BYTES: Final = 8 << 20  # of batches, a question
MOST_SEQ: Final = 1 << 62
STORED_WITHIN: Final = 2.0  # seconds
LOOK_EVERY: Final = 0.02


class LetterDesk(Actor):
    """topic: the dead-letter topic. publish: asks the publisher."""

    concern: ClassVar[str] = "letters"

    def __init__(
        self,
        node: str,
        buffer: ReplicationBuffer,
        topic: str,
        publish: Callable[[Publish], LightFuture],
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._buffer, self._topic, self._publish = buffer, topic, publish
        self._early: list[tuple[Requeue, LightFuture | None, float]] = []  # asked for before they were stored, and until when they may be

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, DeadLetters):
            return self._page(message)
        if isinstance(message, Requeue):
            return self._requeue(message, self.reply_to)
        self.log.warning("unexpected message: %r", message)
        return None

    def _page(self, asked: DeadLetters) -> LetterPage:
        if asked.topic is not None:
            check_topic(asked.topic)
        limit = _number("limit", asked.limit, MOST_LETTERS)
        first, end = self._bounds()
        if asked.before is not None:
            end = min(end, _number("before", asked.before, MOST_SEQ))
        found: list[DeadLetter] = []
        size = 0
        for seq, letter, cost in self._backwards(first, end):
            size += cost
            if letter is not None and asked.topic in (None, letter.topic):
                found.append(letter)
            if len(found) == limit or size >= READ_BYTES:
                return LetterPage(tuple(found), seq if seq > first else None)
        return LetterPage(tuple(found))

    def _requeue(self, asked: Requeue, reply: LightFuture | None) -> Any:
        number = _number("letter", asked.letter, MOST_SEQ)
        if asked.timeout is not None:
            check_timeout(asked.timeout, 0.0)
        if number == self._bounds()[1]:  # its event and its handler may be faster than the buffer's writer
            self._early.append((asked, reply, time.monotonic() + STORED_WITHIN))
        else:
            self._send(asked, reply)
        return LATER

    def flush(self) -> None:
        self.wake_at(time.monotonic() + LOOK_EVERY if self._early else None)

    def on_wake(self, now: float) -> None:
        early, self._early = self._early, []
        for asked, reply, until in early:
            if asked.letter < self._bounds()[1] or until <= now:
                self._send(asked, reply)
            else:
                self._early.append((asked, reply, until))

    def on_stop(self) -> None:
        for _, reply, _ in self._early:
            if reply is not None and not reply.done:
                reply.fail(NoQuorum("the node is stopping; the record was not published again"))

    def _send(self, asked: Requeue, reply: LightFuture | None) -> None:
        try:
            publish = requeued(self._find(asked.letter))
        except InvalidRequest as error:
            if reply is not None and not reply.done:
                reply.fail(error)
            return
        publish.timeout = asked.timeout
        outcome = self._publish(publish)

        def published() -> None:
            if reply is None or reply.done:
                return
            if outcome.error is not None:
                reply.fail(outcome.error)
            else:
                reply.set(outcome.get())

        outcome.on_done(published)

    def _find(self, number: int) -> DeadLetter:
        first, end = self._bounds()
        if first <= number < end:
            for _, letter, _ in self._backwards(number, number + 1):
                if letter is not None:
                    return letter
        held = f"{first} to {end - 1}" if end > first else "none"
        raise InvalidRequest(f"letter={number}: there is no such dead letter here; {self._topic!r} holds {held}")

    def _bounds(self) -> tuple[int, int]:
        """The first letter retained, and the seq after the last one."""
        state = self._buffer.state(self._topic)
        return max(1, state.first_seq), max(1, state.next_seq)

    def _backwards(self, first: int, end: int) -> Iterator[tuple[int, DeadLetter | None, int]]:
        """The records of the topic from before `end` down to `first`: seq, the letter in it (None when it is none), bytes. Ends early where they are trimmed."""
        while end > first:
            try:
                found = self._buffer.read(self._topic, end - 1, 1, 1)
            except Gap:
                return
            if not found:
                return
            batch, begin = _opened(found[0]), found[0].first_seq
            for seq in range(end - 1, max(first, begin) - 1, -1):
                record = batch.records[seq - begin]
                data, headers = (record, None) if record.__class__ is bytes else (record[0], record[2])
                yield seq, read_letter(seq, batch.time / 1000, data, headers), len(data)
            end = begin


def _opened(stored: StoredBatch) -> Batch:
    try:
        return decode_batch(stored.data)
    except WireError as error:  # it was valid when it was stored
        raise StorageError(
            f"the buffer's batch {stored.topic!r} seq {stored.first_seq} is not readable: {error}; remove the buffer's directory"
        ) from None


def _number(field: str, value: Any, most: int) -> int:
    if value.__class__ is not int or not 1 <= value <= most:
        raise InvalidRequest(f"{field}={value!r:.80}: give a whole number from 1 to {most}")
    return int(value)
