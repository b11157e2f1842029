"""The spans of a record's way through this room: forward, propose, commit, apply.

They are of batches, not of records: a follower's batch, a Raft entry. Their parents are the publish spans in the headers of the records, or for a forwarded
batch the forward span that came with it. Everything here runs only while somebody traces, and gives None where nothing of the batch is sampled.

    propose   from the packing until the entry is on the leader's own disk
    commit    from the proposal until a quorum has it (both begin at once: the leader sends an entry before it has stored it). Its context goes into
              the entry's extensions, so that every node's apply is its child
    apply     numbering a committed entry's records and handing them to the buffer and to delivery
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from coterie.actors.replication.messages import NewBatch
from coterie.actors.replication.packing import Chunk
from coterie.actors.tracing import COUNT, TRACING, Span, SpanContext, SpanKind, attributes_of, context_of, from_text, to_text
from coterie.proto.raft_messages import Entry
from coterie.proto.record_batch import Batch

MOST_PARENTS: Final = 128


def contexts(chunks: Iterable[Chunk]) -> list[SpanContext]:
    """The sampled contexts that the records of these chunks belong to, in their order, each once."""
    found: dict[int, SpanContext] = {}
    for chunk in chunks:
        forwarded = chunk.ticket.trace if chunk.ticket is not None else ""
        for context in [from_text(forwarded)] if forwarded else map(_of_record, chunk.records):
            if context is not None and context.trace_flags.sampled:
                found.setdefault(context.span_id, context)
                if len(found) == MOST_PARENTS:
                    return list(found.values())
    return list(found.values())


def _of_record(record: Any) -> SpanContext | None:
    return None if record.__class__ is bytes else context_of(record[2])


def forward(node: str, leader: str, topic: str, chunks: list[Chunk]) -> Span | None:
    """A follower sends a batch to the leader; until its answer."""
    parents = contexts(chunks)
    if not parents:
        return None
    attributes = attributes_of(node, "forward", topic, "send", {COUNT: sum(len(c.records) for c in chunks), "coterie.leader": leader})
    return TRACING.start(f"forward {topic}", SpanKind.CLIENT, parents, attributes)


def text_of(span: Span | None) -> str:
    """What goes along with the batch; "" for nothing."""
    return to_text(span.get_span_context()) if span is not None and span.is_recording() else ""


class EntrySpans:
    """propose and commit of one entry."""

    __slots__ = ("_commit", "_propose")

    def __init__(self, propose: Span, commit: Span) -> None:
        self._propose: Span | None = propose
        self._commit = commit

    @property
    def extensions(self) -> bytes:
        return to_text(self._commit.get_span_context()).encode()

    def appended(self, index: int) -> None:
        """The leader's own disk has it."""
        if self._propose is not None:
            self._propose.set_attribute("coterie.index", index)
            TRACING.finish(self._propose)
            self._propose = None

    def ended(self, error: Exception | None) -> None:
        """It is committed, or failed. The quorum may have it before the leader's own disk."""
        if self._propose is not None:
            TRACING.finish(self._propose, error)
            self._propose = None
        TRACING.finish(self._commit, error)


def entry(node: str, batches: list[Batch], chunks: list[list[Chunk]], term: int) -> EntrySpans | None:
    """An entry is proposed."""
    parents = contexts(chunk for of_batch in chunks for chunk in of_batch)
    if not parents:
        return None
    forwarded = all(chunk.ticket is not None for of_batch in chunks for chunk in of_batch)
    topic = batches[0].topic if len(batches) == 1 else ""
    count = sum(len(batch.records) for batch in batches)
    more = {COUNT: count, "coterie.term": term}
    kind = SpanKind.SERVER if forwarded else SpanKind.INTERNAL
    propose = TRACING.start("propose", kind, parents, attributes_of(node, "propose", topic, more=more))
    commit = TRACING.start("commit", SpanKind.INTERNAL, [propose.get_span_context()], attributes_of(node, "commit", topic, more=more))
    return EntrySpans(propose, commit) if propose.is_recording() else None


def apply(node: str, committed: Entry) -> Span | None:
    """A committed entry whose leader traced it is applied here."""
    try:
        context = from_text((committed.extensions or b"").decode())
    except UnicodeDecodeError:
        return None
    if context is None or not context.trace_flags.sampled:
        return None
    attributes = attributes_of(node, "apply", more={"coterie.index": committed.index, "coterie.term": committed.term})
    return TRACING.start("apply", SpanKind.INTERNAL, [context], attributes)


def marked(fresh: list[NewBatch], applied: dict[int, Span]) -> list[NewBatch]:
    """The new batches, with the context in which their entry was applied; those spans are finished, and say how many records got a place."""
    found: list[NewBatch] = []
    sizes: dict[int, list[int]] = {}
    for batch in fresh:
        span = applied.get(batch.index)
        if span is not None:
            batch = batch._replace(trace=span.get_span_context())
            sizes.setdefault(batch.index, []).append(len(batch.records))
        found.append(batch)
    for index, span in applied.items():
        span.set_attribute(COUNT, sum(sizes.get(index, ())))
        TRACING.finish(span)
    return found
