"""Delivery: the committed records of each topic go to the application's handler, in order, once.

Per topic there is a cursor, and at most one `Deliver` under way at the handler actor; topics do not wait for one another, but they share the
handler's thread. Batches come from memory as they are committed; above `memory` bytes, or while there is no handler, they are forgotten and read from
the buffer when their turn comes.

A handler that raises gets the same record again after `retry` seconds; the topic stands meanwhile, its error is shown as a warning and counted. After
`attempts` failures the record becomes a dead letter (`letters.py`), and once that is committed the cursor passes it. Only what the handler itself raised
counts: a handler actor that cannot answer at all says nothing about the record. A handler actor that died is the same as none.

**Without a handler** the cursor does not move, so a handler registered later gets everything that is retained from there on. But the node acknowledges what it
has taken in: a node that only stores must not hold up the publishers of the others. A handler that is replaced while it works gets `retry` seconds to
finish; after that its batch goes to the new one, too.

Acknowledgements are cumulative and coalesced, one message per burst, to the leader of the day. A new leader is told the whole state. It is told
again, all of it, some time after the last change: so an acknowledgement lost with its connection never keeps a window shut.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, ClassVar, Final

import pykka

from coterie.actors.base import Actor, Crash
from coterie.actors.dead_letters import describe
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import Deliver, Delivered, SetHandler
from coterie.actors.messages import Publish, ReplicationGap
from coterie.actors.replication.buffer import BufferState, Gap, ReplicationBuffer
from coterie.actors.replication.delivery_queue import TopicQueue
from coterie.actors.replication.letters import Letters
from coterie.actors.replication.messages import (
    CommandsMoved,
    CursorsMoved,
    DeliveryDone,
    DeliveryView,
    GetDeliveryView,
    HandlerPresent,
    LetterDone,
    NewBatch,
    NewBatches,
    PeerAcks,
    Restored,
    Stored,
)
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.replication.refill import READ_BATCHES, READ_BYTES, opened
from coterie.actors.room_messages import COMMANDS_TOPIC, Topology

ACK_PAUSE: Final = 0.01  # seconds
STOP_PATIENCE: Final = 2.0  # seconds
UNSENT_PAUSE: Final = 0.2  # seconds until acknowledgements that could not be sent are tried again

SendAcks = Callable[[str, dict[str, int], bool], bool]  # (leader id, {topic: seq}, announce) -> False: not sent, it is tried again


class Delivery(Actor):
    """writer: the buffer writer's reference. to_publisher: tells this node's publisher; publish: asks it. send_acks: to a leader elsewhere; must not block.
    attempts, letters: how often a record is tried (0: for ever), and the dead-letter topic."""

    concern: ClassVar[str] = "delivery"

    def __init__(
        self,
        node: str,
        buffer: ReplicationBuffer,
        state: BufferState,
        writer: Any,
        to_publisher: Callable[[Any], object],
        send_acks: SendAcks,
        emit: Callable[[Any], object],
        publish: Callable[[Publish], LightFuture],
        *,
        retry: float = 1.5,
        attempts: int = 10,
        letters: str = "dead-letters",
        memory: int = 64 << 20,
        ack_records: int = 256,
        most_records: int = 1024,
        metrics: ReplicationMetrics | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._buffer, self._writer, self._to_publisher, self._send_acks, self._emit = buffer, writer, to_publisher, send_acks, emit
        self._retry, self._memory, self._most = retry, memory, most_records
        self._metrics = metrics or NoMetrics()
        self._topics = {t: TopicQueue(t, max(1, s.cursor), s.next_seq - 1) for t, s in state.topics.items() if s.next_seq}
        self._acked = {t: q.last for t, q in self._topics.items() if q.last}  # no handler yet: what is stored is acknowledged
        self._topics.pop(COMMANDS_TOPIC, None)  # they have a delivery of their own, which tells how far it is
        self._commands = CommandsMoved(0, 0, (), {})
        self._handler: Any = None
        self._lost_handler = False  # it died; a node that never had one only stores, and nothing is wrong with that
        self._patience: float | None = None  # until when a replaced handler may finish
        self._topology = Topology()
        self._held = 0
        self._unknown: list[tuple[int, int]] = []  # (first, last) of entries whose records nobody knows, untold
        self._retries: dict[str, float] = {}  # topics whose handler raised, and when it gets the record again
        self._ready: dict[str, None] = {}
        self._moved: dict[str, int] = {}
        self._fresh_acks: dict[str, int] = {}
        self._announce = False
        self._ack_records, self._unsaid = ack_records, 0
        self._send_at: float | None = None
        self._announce_at: float | None = None
        self._announced_times = 0
        self._letters = Letters(node, attempts, letters, retry, publish, lambda topic, future: self.ref.send(LetterDone(topic, future)))
        self._counters = {"delivery_errors": 0, "redelivered": 0, "gaps": 0, "dead_letters": 0, "dead_letters_skipped": 0}

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is NewBatches:
            self._arrived(message.batches)
        elif kind is DeliveryDone:
            self._done(message.topic, message.future)
        elif kind is LetterDone:
            self._letter_done(self._topics[message.topic], message.future)
        elif kind is Stored:
            self._ready.update(dict.fromkeys(message.topics))
        elif kind is Restored:
            self._restored(message.next_seqs)
            if message.unknown is not None:
                self._unknown.append(message.unknown)
                self.log.warning(
                    "what the entries %d to %d of the log held, of any topic, is not known here and is not delivered", *message.unknown
                )
        elif kind is SetHandler:
            self._set_handler(message.ref)
        elif kind is Topology:
            self._set_topology(message)
        elif kind is CommandsMoved:
            self._commands = message
            self._acknowledge(COMMANDS_TOPIC, message.acked)
        elif kind is GetDeliveryView:
            return self._view(message.topics)
        else:
            self.log.warning("unexpected message: a %s", type(message).__name__)
        return None

    def flush(self) -> None:
        if self._unknown and self._handler is not None:
            self._tell_unknown()
        if self._ready:
            ready, self._ready = self._ready, {}
            if self._handler is not None:
                for name in ready:
                    topic = self._topics.get(name)
                    if topic is not None and topic.outstanding is None and name not in self._retries and not self._letters.holds(name):
                        self._deliver(topic)
        if self._moved:
            moved, self._moved = self._moved, {}
            self._writer.send(CursorsMoved(moved))
        if self._fresh_acks or self._announce:
            self._pace(time.monotonic())
        times = (*self._retries.values(), self._announce_at, self._patience, self._send_at, self._letters.next_time())
        self.wake_at(min((when for when in times if when is not None), default=None))

    def on_wake(self, now: float) -> None:
        for name in [name for name, when in self._retries.items() if when <= now]:
            del self._retries[name]
            self._ready[name] = None
        if self._patience is not None and self._patience <= now:
            self._patience = None
            for topic in self._topics.values():
                if topic.outstanding is not None:
                    topic.outstanding = None
                    topic.attempt += 1
                    self._ready[topic.topic] = None
        self._letters.resend(now)
        if self._announce_at is not None and self._announce_at <= now:
            self._announce_at = None
            self._announce = True
        if self._send_at is not None and self._send_at <= now:
            self._send()

    def on_stop(self) -> None:
        """Let the handler finish what it has, within `STOP_PATIENCE`: what it did not report would be delivered again."""
        until = time.monotonic() + STOP_PATIENCE
        for topic in self._topics.values():
            if topic.outstanding is not None:
                with contextlib.suppress(Exception):  # it raised, died, or does not return: then what it has had is not known
                    topic.outstanding.get(timeout=max(0.0, until - time.monotonic()))
                    self._advance(topic, _result(topic.outstanding).count)
        if self._moved:
            self._writer.send(CursorsMoved(self._moved))

    def on_restart(self) -> None:
        raise RuntimeError("delivery lost its place; the node stops rather than deliver out of order")

    # -- what arrives ---------------------------------------------------------------------------------------------------------

    def _arrived(self, batches: list[NewBatch]) -> None:
        for batch in batches:
            topic = self._topics.get(batch.topic)
            if topic is None:
                topic = self._topics[batch.topic] = TopicQueue(batch.topic, 1, 0)
                self._show_position(topic)
            before = topic.held
            keep = self._handler is not None and self._held < self._memory
            if topic.arrived(batch, keep):
                if batch.topic == self._letters.topic:
                    for event in self._letters.arrived(batch, self._topology.term):
                        self._emit(event)
                self._held += topic.held - before
                self._ready[batch.topic] = None
                if self._handler is None:
                    self._acknowledge(batch.topic, batch.last_seq)

    def _restored(self, next_seqs: dict[str, int]) -> None:
        """A snapshot brought what this node had missed: it is in the buffer, and what is not there any more is a gap."""
        for name, next_seq in next_seqs.items():
            if name == COMMANDS_TOPIC:
                continue
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = TopicQueue(name, 1, 0)
                self._show_position(topic)
            topic.last = max(topic.last, next_seq - 1)
            self._ready[name] = None
            if self._handler is None:
                self._acknowledge(name, topic.last)

    def _tell_unknown(self) -> None:
        """Nobody can tell what these entries held: there are no numbers to jump over, and no cursor moves. Told when there is a handler that lacks it."""
        unknown, self._unknown = self._unknown, []
        for first, last in unknown:
            self._counters["gaps"] += 1
            self._emit(ReplicationGap(time=time.time(), term=self._topology.term, first_index=first, last_index=last))

    def _set_handler(self, ref: Any) -> None:
        self._handler, self._lost_handler = ref, False
        self._letters.withdraw()
        self._writer.send(HandlerPresent(ref is not None))
        for topic in self._topics.values():
            if ref is None:
                self._forget(topic)
                if topic.last:
                    self._acknowledge(topic.topic, topic.last)
            topic.failures = 0
            if not self._letters.holds(topic.topic):
                topic.error = None
            self._ready[topic.topic] = None
            self._show_position(topic)
        self._retries.clear()
        if ref is not None and any(t.outstanding is not None for t in self._topics.values()):
            self._patience = time.monotonic() + self._retry

    def _set_topology(self, topology: Topology) -> None:
        before, self._topology = self._topology, topology
        if topology.leader_id and (before.leader_id, before.term) != (topology.leader_id, topology.term):
            self._announce, self._announced_times = True, 0

    # -- towards the handler --------------------------------------------------------------------------------------------------

    def _deliver(self, topic: TopicQueue) -> None:
        if not topic.batches and topic.behind:
            self._refill(topic)
        hole = topic.hole()
        if hole is not None:
            self._jump(topic, *hole)
        front = topic.front(self._most)
        if front is None:
            return
        batch, records = front
        if topic.attempt > 1:
            self._counters["redelivered"] += 1
            self._metrics.redelivered(topic.topic, 1)
        letters = topic.topic == self._letters.topic
        message = Deliver(topic.topic, records, batch.index, batch.time, topic.attempt, self.node, batch.trace, letters)
        topic.started = time.monotonic()
        topic.outstanding = future = self._handler.ask(message, block=False)
        future.on_done(partial(self._tell_done, topic.topic, future))

    def _tell_done(self, topic: str, future: LightFuture) -> None:
        """In the handler's thread."""
        self.ref.send(DeliveryDone(topic, future))

    def _done(self, name: str, future: LightFuture) -> None:
        topic = self._topics[name]
        if topic.outstanding is not future:
            return  # it was given up: the batch went to the next handler
        topic.outstanding = None
        self._ready[name] = None
        if isinstance(future.error, pykka.ActorDeadError):
            self._handler_died()
            return
        result = _result(future)
        self._metrics.delivery_seconds(time.monotonic() - topic.started, result.count)
        if result.count:
            self._advance(topic, result.count)
        if result.error is not None:
            self._failed(topic, result.error, by_handler=future.error is None and future.get() is result)

    def _advance(self, topic: TopicQueue, count: int) -> None:
        before = topic.held
        topic.advance(count)
        topic.attempt, topic.failures, topic.error = 1, 0, None
        self._held += topic.held - before
        self._moved[topic.topic] = topic.cursor
        self._acknowledge(topic.topic, topic.cursor - 1)
        self._metrics.delivered(topic.topic, count)
        self._show_position(topic)

    def _show_position(self, topic: TopicQueue) -> None:
        """A node without a handler is not behind. One whose handler died is."""
        present = self._handler is not None or self._lost_handler
        self._metrics.position(topic.topic, topic.cursor - 1 if present else None)

    def _failed(self, topic: TopicQueue, error: BaseException, by_handler: bool) -> None:
        """by_handler: it raised on this record, which is what counts against the record."""
        self._counters["delivery_errors"] += 1
        topic.error = error
        topic.failures += by_handler
        if topic.attempt == 1:
            self.log.warning(
                "the handler raised on %r seq %d; again every %g s: %s",
                topic.topic,
                topic.cursor,
                self._retry,
                describe(error),
                exc_info=error,
            )
        topic.attempt += 1
        given_up = by_handler and self._letters.limit and topic.failures >= self._letters.limit
        if given_up and topic.topic == self._letters.topic:
            self._counters["dead_letters_skipped"] += 1
            self.log.error("number %d of %r is skipped after %d failures: %s", topic.cursor, topic.topic, topic.failures, describe(error))
            self._advance(topic, 1)
        elif not given_up or not self._letters.write(topic, error):
            self._retries[topic.topic] = time.monotonic() + self._retry

    def _letter_done(self, topic: TopicQueue, future: LightFuture) -> None:
        if not self._letters.outcome(topic.topic, future, time.monotonic()):
            return
        self._counters["dead_letters"] += 1
        self._metrics.dead_letter(topic.topic)
        error = describe(topic.error) if topic.error is not None else ""
        self.log.error("%r seq %d is a dead letter now, number %d: %s", topic.topic, topic.cursor, future.get().seq, error)
        self._advance(topic, 1)
        self._ready[topic.topic] = None

    def _handler_died(self) -> None:
        if self._handler is not None and self._handler.actor_stopped.is_set():
            self.log.warning("the handler actor is dead; records wait for a new one")
            self._set_handler(None)
            self._lost_handler = True
            for topic in self._topics.values():
                self._show_position(topic)

    # -- memory and disk ------------------------------------------------------------------------------------------------------

    def _refill(self, topic: TopicQueue) -> None:
        """Read what comes next from the buffer. Nothing there yet: the writer will say when it is."""
        while True:
            try:
                found = self._buffer.read(topic.topic, topic.cursor, READ_BYTES, READ_BATCHES)
                break
            except Gap as gap:  # more than once, where the writer does not know of the handler yet and goes on trimming
                self._jump(topic, topic.cursor, gap.first_retained - 1)
        before = topic.held
        for stored in found:
            topic.refilled(opened(stored))
        self._held += topic.held - before

    def _forget(self, topic: TopicQueue) -> None:
        self._held -= topic.held
        topic.forget()

    def _jump(self, topic: TopicQueue, first: int, last: int) -> None:
        self._counters["gaps"] += 1
        where = {"topic": topic.topic, "first_missing": first, "last_missing": last}
        self.log.warning("records %d to %d of %r are gone before this node had them", first, last, topic.topic, extra=where)
        topic.cursor = last + 1
        topic.attempt, topic.failures, topic.error = 1, 0, None  # those were of a record that is gone
        self._show_position(topic)
        self._moved[topic.topic] = topic.cursor
        self._acknowledge(topic.topic, last)
        self._emit(ReplicationGap(time=time.time(), term=self._topology.term, topic=topic.topic, first_missing=first, last_missing=last))

    # -- towards the leader ---------------------------------------------------------------------------------------------------

    def _acknowledge(self, topic: str, seq: int) -> None:
        before = self._acked.get(topic, 0)
        if seq > before:
            self._acked[topic] = self._fresh_acks[topic] = seq
            self._unsaid += seq - before

    def _pace(self, now: float) -> None:
        """Say it now, or with what else comes within `ACK_PAUSE`: an acknowledgement that no window waits for is not worth a message of its own."""
        if self._announce or self._unsaid >= self._ack_records:
            self._send()
        elif self._send_at is None:
            self._send_at = now + ACK_PAUSE

    def _send(self) -> None:
        self._unsaid, self._send_at = 0, None
        leader = self._topology.leader_id
        if not leader:
            self._fresh_acks, self._announce = {}, False  # a new leader is told everything anyway
            return
        announce, acks = self._announce, dict(self._acked) if self._announce else self._fresh_acks
        self._fresh_acks, self._announce = {}, False
        if leader == self.node:
            self._to_publisher(PeerAcks(self.node, acks, announce))
            return
        sent = self._send_acks(leader, acks, announce)
        if sent and announce:
            self._announced_times += 1
            pause = self._retry * min(self._announced_times, 10)
        else:
            pause = self._retry if sent else min(self._retry, UNSENT_PAUSE)
        again = time.monotonic() + pause
        self._announce_at = again if announce or self._announce_at is None else min(again, self._announce_at)

    def _view(self, wanted: Collection[str]) -> DeliveryView:
        letters = self._letters
        failing = letters.failing(self._topics)
        warnings = [*map(letters.warning, failing), *self._commands.warnings]
        if self._lost_handler and any(t.cursor <= t.last for t in self._topics.values()):
            warnings.append("the handler actor is dead: records are kept and wait for a new one to be registered")
        delivered = {topic: self._topics[topic].cursor - 1 for topic in wanted if topic in self._topics} | {
            COMMANDS_TOPIC: self._commands.delivered
        }
        return DeliveryView(delivered, {**self._counters, **self._commands.counters}, tuple(warnings), failing, dict(letters.seen))


def _result(future: LightFuture) -> Delivered:
    """What a handler actor answered, whatever went wrong with it."""
    if future.error is not None:
        return Delivered(0, future.error)
    result = future.get()
    return (
        result
        if isinstance(result, Delivered)
        else Delivered(0, TypeError(f"the handler actor answered {type(result).__name__}; is it a HandlerActor?"))
    )
