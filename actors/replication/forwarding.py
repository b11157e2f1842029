"""A publish at a follower goes to the leader: both ends of the forwarding session.

**The follower** (`Forwarding`) packs what waits, one topic a batch, and sends it over one ordered link. Each batch ends in one of three ways:

| answer | meaning | what happens |
|---|---|---|
| places | in the log | the publishers are answered |
| NotLeader, Overloaded, NoQuorum | refused: certainly not in the log | back to its place in the queue, and sent again until its deadline |
| anything else, or the link broke | unknown | Indeterminate; but what has message ids throughout is sent again, since that is safe |

**The leader** (`Reception`) refuses, after it refused a batch of a topic, every later one of the same session, topic and epoch. The follower sends
nothing of that topic until all of it is answered, then goes on with the next epoch. So a publisher's records stay in order: what was refused is never
overtaken. Topics do not stop one another: refusing the whole session was simpler, and would let one topic whose handler fails stop all the others.

When leadership moves, the follower lets the old link finish before it opens the next: an answer that is still on its way must not be followed by a second
try behind younger records. It waits `DRAIN` seconds from the last answer on, or from the first batch that had none. So a leader that was replaced because it fell
silent, and has had that patience already, gets `LAST_CHANCE` seconds more and no second `DRAIN`.

Bounded: `MOST_BYTES` on the link, and `MOST_BATCHES` of a topic, so that load makes the batches here too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Protocol

from coterie.actors.errors import CoterieError, Indeterminate, InvalidRequest, NoQuorum, NotLeader, Overloaded
from coterie.actors.replication import spans
from coterie.actors.replication.all_acks import AllAcks
from coterie.actors.replication.answers import answer_forwarded, fail
from coterie.actors.replication.messages import ForwardedBatch
from coterie.actors.replication.packing import Chunk, record_size
from coterie.actors.replication.proposals import Ticket
from coterie.actors.replication.waiting import Waiting
from coterie.actors.tracing import TRACING, Span
from coterie.proto.errors import WireError
from coterie.proto.forwarding import decode_answer, decode_forward, encode_forward
from coterie.proto.record_batch import MAX_RECORDS, encode_batch

MOST_BYTES: Final = 8 << 20
MOST_BATCHES: Final = 4
DRAIN: Final = 1.0  # seconds
LAST_CHANCE: Final = 0.25  # seconds
PAUSE: Final = 0.05  # seconds after a refusal or a broken link
HOLD: Final = 0.75  # of its remaining time a batch may wait at the leader; the rest is for the refusal's way back
LAST_TRY: Final = 1.0  # seconds: with less left, a chunk that was refused for overload is not sent again

REFUSALS: Final = (NotLeader, Overloaded, NoQuorum)


class Link(Protocol):
    """One ordered session to a leader."""

    def send(self, forward_id: int, batch: bytes, trace: str = "") -> bool:
        """Queue one forward (proto.forwarding), with its trace; must not block. False: it certainly was not and will not be sent, and the link is broken."""
        ...

    def close(self) -> None: ...


class LeaderLink(Protocol):
    """Opens links. The callbacks may come from any thread; `on_closed` once, and nothing after it."""

    def open(
        self,
        leader_id: str,
        on_reply: Callable[[int, bytes | None, Exception | None], object],
        on_closed: Callable[[Exception | None], object],
    ) -> Link | None:
        """Must not block; None when there is no way to that node now."""
        ...


class _Topic:
    """A topic on the link. returned: chunks to be put back when nothing of it is out any more; refusal: why they were refused."""

    __slots__ = ("epoch", "out", "refusal", "returned", "wait_until")

    def __init__(self) -> None:
        self.epoch = 1
        self.out = 0
        self.returned: list[Chunk] = []
        self.refusal: CoterieError | None = None
        self.wait_until = 0.0


class _Sent:
    __slots__ = ("chunks", "size", "span", "topic")

    def __init__(self, topic: str, chunks: list[Chunk], size: int, span: Span | None) -> None:
        self.topic, self.chunks, self.size, self.span = topic, chunks, size, span


class Forwarding:
    """The follower's end. open_link(leader_id, link_id) opens a link whose answers come back as messages with that id."""

    def __init__(
        self,
        open_link: Callable[[str, int], Link | None],
        waiting: Waiting,
        limit: int,
        most_bytes: int,
        failed: Callable[[int, CoterieError], None],
        held: AllAcks,
        node: str = "",
    ) -> None:
        self._node, self._held = node, held
        self._open_link, self._waiting, self._limit, self._most_bytes, self._failed = open_link, waiting, limit, most_bytes, failed
        self._link: Link | None = None
        self.link_id = 0
        self._linked_to = ""
        self._leader_id = ""
        self._drained_by: float | None = None
        self._heard = 0.0  # when the leader answered last, or when what it has not answered began to be out
        self._open_after = 0.0
        self._next_id = 0
        self._out_bytes = 0
        self._sent: dict[int, _Sent] = {}
        self._topics: dict[str, _Topic] = {}

    @property
    def busy(self) -> bool:
        return bool(self._sent) or self._drained_by is not None

    def follow(self, leader_id: str, now: float) -> None:
        """Who leads now; "" when nobody else is known to."""
        self._leader_id = leader_id
        if self._link is not None and self._linked_to != leader_id and self._drained_by is None:
            self._drained_by = max(now + LAST_CHANCE, self._heard + DRAIN)
        self._finish_drain(now)

    @property
    def drained(self) -> bool:
        """Whether nothing is out with a former leader any more: before, nothing may be proposed elsewhere."""
        return self._drained_by is None

    def forward(self, now: float, wall: float) -> None:
        """Send what waits, as far as the bounds allow."""
        self._finish_drain(now)
        if not self._waiting.active or not self._leader_id or self._drained_by is not None or not self._linked(now):
            return
        for lane in list(self._waiting.active.values()):
            topic = self._topics.get(lane.topic)
            if topic is None:
                topic = self._topics[lane.topic] = _Topic()
            while lane.chunks and self._may_send(topic, lane.chunks[0], now):
                chunks, size = self._waiting.take(lane, min(self._limit, MAX_RECORDS), self._limit, self._most_bytes, uniform=True)
                if not self._send(lane.topic, topic, chunks, size, now, wall):
                    self._waiting.put_back(chunks)
                    self.closed(self.link_id, now)
                    return

    def ask(self, question: bytes, now: float) -> int:
        """Send a question of `AllAcks`. -> the number of its answer; 0: there is no way to the leader now."""
        self._finish_drain(now)
        if not self._leader_id or self._drained_by is not None or not self._linked(now) or self._link is None:
            return 0
        self._next_id += 1
        if self._link.send(self._next_id, question):
            return self._next_id
        self.closed(self.link_id, now)
        return 0

    def replied(self, link_id: int, forward_id: int, payload: bytes | None, error: Exception | None, now: float) -> None:
        """The leader's answer to one batch, or to a question."""
        sent = self._sent.pop(forward_id, None) if link_id == self.link_id else None
        if sent is None:  # of a link that was given up: its batches have had their outcome
            self._held.answered(forward_id, payload, error, self._linked_to, now)
            return
        if sent.span is not None:
            TRACING.finish(sent.span, error)
        self._heard = now
        topic = self._topics[sent.topic]
        topic.out -= 1
        self._out_bytes -= sent.size
        if isinstance(error, REFUSALS):
            for chunk in sent.chunks:
                chunk.refused = True
            topic.returned += sent.chunks
            topic.refusal = error
        elif error is not None:
            self._fail(
                sent.chunks, error if isinstance(error, CoterieError) else Indeterminate(f"the leader {self._linked_to} failed: {error}")
            )
        else:
            self._answer(sent, payload or b"")
        self._settle_topic(topic, now)
        self._finish_drain(now)

    def closed(self, link_id: int, now: float) -> None:
        """The link broke, or was given up: nobody will answer what is out."""
        if link_id != self.link_id or self._link is None:
            return
        link, self._link, self._drained_by = self._link, None, None
        link.close()
        self._held.link_lost()
        self._open_after = now + PAUSE
        unknown = Indeterminate(
            f"the connection to the leader {self._linked_to} ended before its answer: the publish may or may not take effect"
        )
        for sent in self._sent.values():
            if sent.span is not None:
                TRACING.finish(sent.span, unknown)
            safe = [chunk for chunk in sent.chunks if chunk.safe]
            self._topics[sent.topic].returned += safe
            self._fail([chunk for chunk in sent.chunks if not chunk.safe], unknown)
        self._sent.clear()
        self._out_bytes = 0
        for topic in self._topics.values():
            topic.out = 0
            if topic.returned:
                self._settle_topic(topic, now)

    def expire(self, now: float) -> None:
        """Fail what is out and past its deadline; its batch stays out until the leader answers."""
        late = Indeterminate(f"no answer of the leader {self._linked_to} within the deadline: the publish may or may not take effect")
        for sent in self._sent.values():
            self._fail([chunk for chunk in sent.chunks if chunk.deadline <= now], late)
        for topic in self._topics.values():
            self._fail([chunk for chunk in topic.returned if chunk.deadline <= now], topic.refusal or late)

    def refusal(self, topic: str) -> CoterieError | None:
        """Why the leader refused the last batch of this topic; None when it did not."""
        state = self._topics.get(topic)
        return state.refusal if state is not None else None

    def stop(self) -> list[Chunk]:
        """Close. -> what is out or about to go back."""
        chunks = [chunk for sent in self._sent.values() for chunk in sent.chunks]
        chunks += [chunk for topic in self._topics.values() for chunk in topic.returned]
        if self._link is not None:
            self._link.close()
        self._link = None
        self._sent.clear()
        return chunks

    def _may_send(self, topic: _Topic, first: Chunk, now: float) -> bool:
        if topic.returned or topic.out >= MOST_BATCHES or now < topic.wait_until or (self._out_bytes >= MOST_BYTES):
            return False
        return not (first.refused and isinstance(topic.refusal, Overloaded) and first.deadline - now < LAST_TRY)

    def _send(self, name: str, topic: _Topic, chunks: list[Chunk], size: int, now: float, wall: float) -> bool:
        records = chunks[0].records if len(chunks) == 1 else [record for chunk in chunks for record in chunk.records]
        wait = HOLD * (min(chunk.deadline for chunk in chunks) - now)
        data = encode_forward(encode_batch(name, int(wall * 1000), records).data, chunks[0].early, topic.epoch, wait)
        self._next_id += 1
        span = spans.forward(self._node, self._linked_to, name, chunks) if TRACING.on else None
        if self._link is None or not self._link.send(self._next_id, data, spans.text_of(span)):
            return False
        if not self._sent:
            self._heard = now
        self._sent[self._next_id] = _Sent(name, chunks, size, span)
        topic.out += 1
        self._out_bytes += size
        return True

    def _linked(self, now: float) -> bool:
        if self._link is None and now >= self._open_after:
            self.link_id += 1
            self._linked_to = self._leader_id
            self._link = self._open_link(self._leader_id, self.link_id)
            if self._link is None:
                self._open_after = now + PAUSE
        return self._link is not None

    def _answer(self, sent: _Sent, payload: bytes) -> None:
        try:
            found = decode_answer(payload)
        except WireError as error:
            self._fail(sent.chunks, Indeterminate(f"the leader {self._linked_to} answered what cannot be read: {error}"))
            return
        self._topics[sent.topic].refusal = None
        answer_forwarded(sent.chunks, sent.topic, found.index, found.first_seq, found.duplicates, self._held.hold)

    def _settle_topic(self, topic: _Topic, now: float) -> None:
        """Once nothing of a topic is out, what came back may go again, in a new epoch."""
        if topic.out == 0 and topic.returned:
            returned, topic.returned = topic.returned, []
            topic.epoch += 1
            topic.wait_until = now + PAUSE
            self._waiting.put_back(returned)

    def _finish_drain(self, now: float) -> None:
        if self._drained_by is not None and (not self._sent or now >= self._drained_by):
            self.closed(self.link_id, now)
            self._drained_by = None
            self._open_after = now

    def _fail(self, chunks: list[Chunk], error: CoterieError) -> None:
        for chunk in chunks:
            self._failed(fail(chunk, error), error)


class Reception:
    """The leader's end: which batches of which session it refuses."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._refused: dict[Hashable, dict[str, tuple[int, CoterieError]]] = {}  # of each open session

    def receive(self, message: ForwardedBatch, refusal: CoterieError | None, now: float) -> None:
        """Queue a batch, or refuse it: with `refusal` when this node does not lead. Garbage is answered with InvalidRequest."""
        try:
            forward = decode_forward(message.data)
        except WireError as error:
            message.reply(message.forward_id, None, InvalidRequest(f"forwarded batch: {error}"))
            return
        batch = forward.batch
        ticket = Ticket(message.session, message.forward_id, forward.epoch, message.reply, message.trace)
        epoch, earlier = self._refused.setdefault(message.session, {}).get(batch.topic, (0, None))
        if earlier is not None and forward.epoch <= epoch:
            refusal = earlier
        if refusal is None:
            size = sum(map(len, batch.records)) if batch.plain else sum(map(record_size, batch.records))
            try:
                self._waiting.add_forwarded(batch.topic, batch.records, size, now + forward.wait, forward.early, ticket)
            except Overloaded as error:
                refusal = error
        if refusal is not None:
            self._mark(ticket, batch.topic, refusal)
            message.reply(message.forward_id, None, refusal)

    def refuse(self, chunks: list[Chunk], error: CoterieError) -> None:
        """Refuse batches that were queued or proposed and are certainly not in the log, and with them what waits behind them."""
        for chunk in chunks:
            if not chunk.settled:
                self._mark(chunk.ticket, chunk.topic, error)
                fail(chunk, error)
        if chunks:
            for chunk in self._waiting.remove(self._is_refused):
                fail(chunk, error)

    def closed(self, session: Hashable) -> None:
        """A session is over: what it left waiting is not proposed any more."""
        self._refused.pop(session, None)
        for chunk in self._waiting.remove(lambda chunk: chunk.ticket is not None and chunk.ticket.session == session):
            chunk.settled = True

    def _mark(self, ticket: Ticket, topic: str, error: CoterieError) -> None:
        topics = self._refused.get(ticket.session)
        if topics is None:
            return  # the session is over, and nothing more comes from it
        epoch = topics.get(topic, (0, None))[0]
        topics[topic] = (max(epoch, ticket.epoch), error)

    def _is_refused(self, chunk: Chunk) -> bool:
        ticket = chunk.ticket
        return ticket is not None and ticket.epoch <= self._refused.get(ticket.session, {}).get(chunk.topic, (0, None))[0]
