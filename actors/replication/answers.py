"""From a batch's places in log and topics to the futures of its publishers; and their failures.

A chunk of this node has futures, one for each record or one for all; a forwarded one has a ticket, and is answered over its session. What is published with
acks="all" is handed to `hold` once its place is known (`all_acks`), and settled later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from coterie.actors.errors import CoterieError, NotDelivered
from coterie.actors.future import LightFuture
from coterie.actors.messages import Published, PublishedMany
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.state_machine import Placed
from coterie.proto.forwarding import Duplicates, encode_answer


class Place(NamedTuple):
    """Where the `count` records of a chunk stand; the duplicates among them elsewhere, and they took no number."""

    topic: str
    index: int  # type: ignore[assignment]  # the Raft index; tuple.index() is never wanted here
    first_seq: int
    count: int  # type: ignore[assignment]  # nor is tuple.count()
    duplicates: Duplicates | None

    @property
    def last_seq(self) -> int:
        """The last of all their places."""
        repeated = self.duplicates or {}
        fresh = self.count - len(repeated)
        return max([self.first_seq + fresh - 1] * (fresh > 0) + [seq for seq, _ in repeated.values()])


Hold = Callable[[Chunk, Place], object]


def answer(chunks: list[Chunk], topic: str, index: int, placed: Placed, hold: Hold) -> int:
    """Answer the publishers of one committed batch. -> how many could not be answered, since they resolved their future themselves."""
    position, seq, lost = 0, placed.first_seq, 0
    for chunk in chunks:
        count = len(chunk.records)
        duplicates = _slice(placed.duplicates, position, count) if placed.duplicates else None
        if not chunk.settled:
            if chunk.ticket is not None:
                chunk.settled = True
                chunk.ticket.reply(chunk.ticket.forward_id, encode_answer(index, seq, duplicates), None)
            elif chunk.by_all:
                hold(chunk, Place(topic, index, seq, count, duplicates))
            else:
                lost += settle(chunk, topic, index, seq, count, duplicates)
        position += count
        seq += count - len(duplicates or ())
    return lost


def settle(chunk: Chunk, topic: str, index: int, seq: int, count: int, duplicates: Duplicates | None) -> int:
    """Tell the publishers of a chunk of this node that their `count` records stand from `seq` on. -> as `answer`."""
    chunk.settled = True
    if chunk.whole:
        return int(not _set(chunk.reply, PublishedMany(topic, seq, count, index)))
    lost = _resolve(chunk, topic, index, seq, duplicates)
    chunk.replies = []
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


def answer_forwarded(chunks: list[Chunk], topic: str, index: int, first_seq: int, duplicates: Duplicates, hold: Hold) -> int:
    """Answer the publishers of a batch that the leader has answered."""
    if first_seq == 0:
        return sum(answer_early(chunk, index) for chunk in chunks if not chunk.settled)
    return answer(chunks, topic, index, Placed(first_seq, duplicates or None), hold)


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
        _fail(reply, error)
    return told


def not_delivered(chunk: Chunk, place: Place, missing: tuple[str, ...], why: str) -> None:
    """Fail the publishers of a chunk that is committed and that `missing` have not acknowledged."""
    chunk.settled = True
    topic, index, seq, count, duplicates = place
    if chunk.whole:
        _fail(chunk.reply, _missing(f"seq {seq} to {seq + count - 1} are", topic, seq, seq + count - 1, index, missing, why))
        return
    replies, chunk.replies = chunk.replies, []
    for position, reply in enumerate(replies):
        known = (duplicates or {}).get(position)
        at, entry = known or (seq, index)
        _fail(reply, _missing(f"seq {at} is", topic, at, at, entry, missing, why))
        seq += known is None


def _missing(what: str, topic: str, first: int, last: int, index: int, missing: tuple[str, ...], why: str) -> NotDelivered:
    text = f"topic {topic!r}: {what} published (log index {index}), but not known to be delivered on {', '.join(missing)}: {why}"
    return NotDelivered(text, topic, first, last, index, missing)


def _fail(reply: LightFuture | None, error: CoterieError) -> None:
    if reply is not None and not reply.done:
        reply.fail(error)


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
