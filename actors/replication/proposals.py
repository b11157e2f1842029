"""The leader's side of a publish: from waiting chunks to proposed entries, and from committed ones to answers.

At most `MOST_ENTRIES` entries are under way at a time. What comes meanwhile waits and joins the next one: so load makes the batches, at the pace of
the disk and the network, and a lone publish never waits for company.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from coterie.actors.errors import CoterieError
from coterie.actors.messages import Published, PublishedMany
from coterie.actors.replication import spans
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.spans import EntrySpans
from coterie.actors.replication.state_machine import Placed
from coterie.actors.replication.waiting import Waiting
from coterie.actors.replication.window import Window
from coterie.actors.room_messages import Propose
from coterie.actors.tracing import TRACING
from coterie.proto.forwarding import Duplicates, encode_answer
from coterie.proto.record_batch import MAX_RECORDS, Batch, encode_batch, encode_entry

MOST_ENTRIES: Final = 4


class Ticket(NamedTuple):
    """Where the answer of a forwarded batch goes. trace: the context that came with it, "" for none."""

    session: Any
    forward_id: int
    epoch: int
    reply: Callable[[int, bytes | None, Exception | None], None]
    trace: str = ""


class Proposal:
    """One entry under way; the context of its `Propose`. chunks: of each batch, in its order. trace: its spans, where somebody traces."""

    __slots__ = ("batches", "chunks", "early", "started", "trace")

    def __init__(self, started: float) -> None:
        self.batches: list[Batch] = []
        self.chunks: list[list[Chunk]] = []
        self.early = False
        self.started = started
        self.trace: EntrySpans | None = None

    def all_chunks(self) -> list[Chunk]:
        return [chunk for chunks in self.chunks for chunk in chunks]


class Proposals:
    """The entries under way. `in_flight[topic]`: how many of a topic's records are in them."""

    def __init__(self, raft: Any, window: Window, most_bytes: int, most_entries: int = MOST_ENTRIES, node: str = "") -> None:
        self._node = node
        self._raft, self._window, self._most_bytes, self._most_entries = raft, window, most_bytes, most_entries
        self.under_way: dict[Proposal, None] = {}
        self.in_flight: dict[str, int] = {}
        self._term = 0  # the leadership that the entries under way are meant for

    def propose(self, waiting: Waiting, now: float, wall: float, term: int) -> None:
        """Make entries of what waits, as far as windows and the entries under way allow. What is out with an earlier leadership must have its outcome
        before: what of it is refused goes back to its place, and that is before everything younger."""
        if self.under_way and term != self._term:
            return
        self._term = term
        while waiting.active and len(self.under_way) < self._most_entries:
            proposal = self._packed(waiting, now, int(wall * 1000))
            if proposal is None:
                return
            self.under_way[proposal] = None
            data, early, extensions = encode_entry([batch.data for batch in proposal.batches]), proposal.early, None
            if TRACING.on:
                proposal.trace = spans.entry(self._node, proposal.batches, proposal.chunks, term)
                if proposal.trace is not None:
                    early, extensions = True, proposal.trace.extensions
            self._raft.send(Propose(data, proposal, early, term, extensions))

    def room(self, topic: str) -> int:
        return self._window.room(topic, self.in_flight.get(topic, 0))

    def ended(self, proposal: Proposal, error: Exception | None = None) -> None:
        """It is committed, or failed."""
        if proposal in self.under_way:
            if proposal.trace is not None:
                proposal.trace.ended(error)
            del self.under_way[proposal]
            for batch in proposal.batches:
                left = self.in_flight[batch.topic] - len(batch.records)
                if left:
                    self.in_flight[batch.topic] = left
                else:
                    del self.in_flight[batch.topic]

    def _packed(self, waiting: Waiting, now: float, milliseconds: int) -> Proposal | None:
        proposal = Proposal(now)
        budget = self._most_bytes
        for lane in list(waiting.active.values()):
            room = min(self.room(lane.topic), MAX_RECORDS)
            if room == 0:
                continue
            chunks, size = waiting.take(lane, room, self._window.limit, budget)
            if not chunks:
                continue
            proposal.chunks.append(chunks)
            records = chunks[0].records if len(chunks) == 1 else [record for chunk in chunks for record in chunk.records]
            proposal.batches.append(encode_batch(lane.topic, milliseconds, records))
            proposal.early = proposal.early or any(chunk.early for chunk in chunks)
            self.in_flight[lane.topic] = self.in_flight.get(lane.topic, 0) + len(records)
            budget -= size
            if budget <= 0 or len(proposal.batches) == 1024:
                break
        return proposal if proposal.batches else None


def answer(chunks: list[Chunk], topic: str, index: int, placed: Placed) -> int:
    """Answer the publishers of one committed batch. -> how many could not be answered, since they resolved their future themselves."""
    position, seq, lost = 0, placed.first_seq, 0
    for chunk in chunks:
        count = len(chunk.records)
        duplicates = _slice(placed.duplicates, position, count) if placed.duplicates else None
        if not chunk.settled:
            chunk.settled = True
            if chunk.ticket is not None:
                chunk.ticket.reply(chunk.ticket.forward_id, encode_answer(index, seq, duplicates), None)
            elif chunk.whole:
                lost += not _set(chunk.reply, PublishedMany(topic, seq, count, index))
            else:
                lost += _resolve(chunk, topic, index, seq, duplicates)
            chunk.replies = []
        position += count
        seq += count - len(duplicates or ())
    return lost


def answer_early(chunk: Chunk, index: int) -> int:
    """Answer at the leader's append: the place is not known yet."""
    chunk.settled = True
    if chunk.ticket is not None:
        chunk.ticket.reply(chunk.ticket.forward_id, encode_answer(index, 0, None), None)
        return 0
    if chunk.whole:
        return int(not _set(chunk.reply, PublishedMany(chunk.topic, 0, len(chunk.records), index)))
    replies, chunk.replies = chunk.replies, []
    return sum(not _set(reply, Published(chunk.topic, 0, index)) for reply in replies if reply is not None)


def answer_forwarded(chunks: list[Chunk], topic: str, index: int, first_seq: int, duplicates: Duplicates) -> int:
    """Answer the publishers of a batch that the leader has answered."""
    if first_seq == 0:
        return sum(answer_early(chunk, index) for chunk in chunks if not chunk.settled)
    return answer(chunks, topic, index, Placed(first_seq, duplicates or None))


def fail(chunk: Chunk, error: CoterieError) -> int:
    """Fail the publishers of a chunk. -> how many of them do not wait for an answer: nobody else will say it."""
    if chunk.settled:
        return 0
    chunk.settled = True
    if chunk.ticket is not None:
        chunk.ticket.reply(chunk.ticket.forward_id, None, error)
        return 0
    if chunk.whole:
        replies, records = [chunk.reply], len(chunk.records)
    else:
        (replies, chunk.replies), records = (chunk.replies, []), 1
    told = 0
    for reply in replies:
        if reply is None:
            told += records
        elif not reply.done:
            reply.fail(error)
    return told


def _resolve(chunk: Chunk, topic: str, index: int, seq: int, duplicates: Duplicates | None) -> int:
    """The loop that runs for every record: one `Published` and one `set`."""
    lost = 0
    if not duplicates:
        for reply in chunk.replies:
            if reply is not None:
                try:
                    reply.set(Published(topic, seq, index))
                except Exception:  # noqa: BLE001 - the future or its callback is the user's; the others still get their answers, and it is counted
                    lost += 1
            seq += 1
        return lost
    for position, reply in enumerate(chunk.replies):
        place = duplicates.get(position)
        if reply is not None:
            found = Published(topic, *place) if place else Published(topic, seq, index)
            lost += not _set(reply, found)
        seq += place is None
    return lost


def _set(reply: Any, value: Published | PublishedMany) -> bool:
    try:
        if reply is not None:
            reply.set(value)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _slice(duplicates: Duplicates, start: int, count: int) -> Duplicates:
    return {position - start: place for position, place in duplicates.items() if start <= position < start + count}
