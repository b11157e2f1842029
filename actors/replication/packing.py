"""The queue of publishes: what waits, per topic and in order, and what of it makes the next entry.

A `Lane` is the queue of one topic. It holds `Chunk`s: runs of records that came in one burst and share deadline and acknowledgement level, so that a
deadline is checked per burst and not per record. A batch that a follower forwarded is a chunk too (with a ticket for its answer instead of futures), and
so are the records of one `PublishMany` (with one future for all of them); these are never split.

Order: a lane numbers its records as they come. What was handed out and came back (certainly not in the log) goes to its old place by that number, in whatever
order the refusals arrive.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from coterie.actors.future import LightFuture
from coterie.proto.record_batch import Record

OVERHEAD: Final = 8  # bytes a record costs in a batch beyond its data, at most


class Chunk:
    """Records of one topic with one deadline (monotonic) and one acknowledgement level. size: bytes of data, ids and headers.

    replies: for each record the asker's future, or None. ticket: the answer's address of a forwarded batch (then replies is empty).
    whole: it is never split: a forwarded batch, or a `PublishMany`, all of whose records have one answer, `reply`.
    early: answer at the leader's append; by_all: when all members have delivered it. safe: every record has a message id, so that sending it twice publishes
    it once. refused: a leader has refused it.
    settled: its publishers have their answer; its records keep their places all the same, if they get any.
    """

    __slots__ = (
        "by_all",
        "deadline",
        "early",
        "records",
        "refused",
        "replies",
        "reply",
        "safe",
        "serial",
        "settled",
        "size",
        "ticket",
        "topic",
        "whole",
    )

    def __init__(self, topic: str, serial: int, deadline: float, early: bool, ticket: Any = None) -> None:
        self.topic, self.serial, self.deadline, self.early, self.ticket = topic, serial, deadline, early, ticket
        self.records: list[Record] = []
        self.replies: list[LightFuture | None] = []
        self.reply: LightFuture | None = None
        self.by_all = False
        self.whole = ticket is not None
        self.size = 0
        self.safe = False
        self.refused = False
        self.settled = False

    def split(self, count: int) -> Chunk:
        """Take the first `count` records off into a chunk of their own."""
        head = Chunk(self.topic, self.serial, self.deadline, self.early)
        head.records, self.records = self.records[:count], self.records[count:]
        head.replies, self.replies = self.replies[:count], self.replies[count:]
        head.safe, head.refused, head.by_all = self.safe, self.refused, self.by_all
        head.size = sum(map(record_size, head.records))
        self.size -= head.size
        self.serial += count
        return head


class Lane:
    """The waiting publishes of one topic. `open`: the chunk that the present burst fills, with its key (timeout, acks)."""

    __slots__ = ("chunks", "key", "open", "serial", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.chunks: deque[Chunk] = deque()
        self.open: Chunk | None = None
        self.key: tuple[float | None, str] | None = None
        self.serial = 0

    def begin(self, deadline: float, early: bool, key: tuple[float | None, str] | None, ticket: Any = None) -> Chunk:
        """A new chunk at the end; it stays open for what comes next with the same key."""
        self.close()
        chunk = Chunk(self.topic, self.serial, deadline, early, ticket)
        self.chunks.append(chunk)
        self.key = key
        self.open = chunk if key is not None else None
        return chunk

    def close(self) -> None:
        """The burst is over: the open chunk gets no more records, and the numbers of its records are known."""
        chunk = self.open
        if chunk is not None:
            self.serial = chunk.serial + len(chunk.records)
            chunk.safe = all(record.__class__ is not bytes and record[1] is not None for record in chunk.records)
            self.open = None

    def put_back(self, chunks: list[Chunk]) -> None:
        """Chunks of this lane that were taken, and are certainly not in the log: back to their place."""
        self.close()
        self.chunks = deque(sorted([*chunks, *self.chunks], key=lambda chunk: chunk.serial))

    def take(self, room: int, limit: int, budget: int, uniform: bool = False) -> tuple[list[Chunk], int]:
        """Chunks from the front with at most `room` records and `budget` bytes, and their bytes. limit: the whole window of the topic; a batch that must stay
        whole and is larger than that goes when nothing else is unacknowledged. uniform: stop where the acknowledgement level changes (for a forward)."""
        self.close()
        taken: list[Chunk] = []
        size = 0
        while self.chunks and room > 0:
            chunk = self.chunks[0]
            count = len(chunk.records)
            if uniform and taken and chunk.early != taken[0].early:
                break
            cost = chunk.size + OVERHEAD * count
            if size + cost > budget or count > room:
                if chunk.whole:
                    if (taken and size + cost > budget) or room < min(count, limit):
                        break
                    self.chunks.popleft()
                else:
                    fitting = _fitting(chunk.records, min(count, room), budget - size, at_least=0 if taken else 1)
                    if fitting == 0:
                        break
                    chunk = chunk.split(fitting) if fitting < count else self.chunks.popleft()
                    cost = chunk.size + OVERHEAD * len(chunk.records)
            else:
                self.chunks.popleft()
            taken.append(chunk)
            size += cost
            room -= len(chunk.records)
            if size >= budget:
                break
        return taken, size


def record_size(record: Record) -> int:
    """Bytes that count against limits: data, message id and headers."""
    if record.__class__ is bytes:
        return len(record)
    data, message_id, headers = record
    size = len(data) + (len(message_id) if message_id else 0)
    return size + sum(len(key) + len(value) for key, value in headers.items()) if headers else size


def _fitting(records: list[Record], most: int, budget: int, at_least: int) -> int:
    """How many records from the front fit."""
    size = 0
    for count in range(most):
        size += record_size(records[count]) + OVERHEAD
        if size > budget and count >= at_least:
            return count
    return most
