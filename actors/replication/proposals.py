"""The leader's side of a publish: from waiting chunks to proposed entries.

At most `MOST_ENTRIES` entries are under way at a time. What comes meanwhile waits and joins the next one: so load makes the batches, at the pace of
the disk and the network, and a lone publish never waits for company.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from coterie.actors.errors import CoterieError, Indeterminate
from coterie.actors.replication import spans
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.spans import EntrySpans
from coterie.actors.replication.waiting import Waiting
from coterie.actors.replication.window import Window
from coterie.actors.room_messages import Propose
from coterie.actors.tracing import TRACING
from coterie.proto.record_batch import MAX_RECORDS, Batch, encode_batch, encode_entry

MOST_ENTRIES: Final = 4
FORWARD_PATIENCE: Final = 30.0  # seconds


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

    def expire(self, now: float, fail: Callable[[list[Chunk], CoterieError], None]) -> None:
        """Fail what has waited too long for its commit."""
        unknown = Indeterminate(
            "no quorum has confirmed it within the deadline: the publish is in this leader's log and may or may not take effect"
        )
        for proposal in list(self.under_way):
            chunks = proposal.all_chunks()
            fail([chunk for chunk in chunks if _overdue(chunk, now)], unknown)
            if all(chunk.settled and _overdue(chunk, now) for chunk in chunks):
                self.ended(proposal, unknown)  # if Raft forgot it, the others must not wait for it

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


def _overdue(chunk: Chunk, now: float) -> bool:
    """Whether a proposed chunk has waited too long. The deadline of a forwarded one is about room in the window; its publisher watches the real one."""
    return chunk.deadline + (FORWARD_PATIENCE if chunk.ticket is not None else 0.0) <= now
