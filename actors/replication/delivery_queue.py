"""How far delivery is in one topic, and which batches wait in memory for it.

        cursor          tail                last
          | b | b | b | b |  . . . . . . . . |
          `-- in memory --'`- only on disk --'

Batches come in order and stay in memory as long as the bound allows. When it does not, or nobody takes them, they are forgotten, and only `last`
moves: the topic is *behind*, and what is missing is read from the buffer when the memory part is used up. While it is behind nothing new is put at
the tail, so what is in memory has no hole but those the leader's stream itself had.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import Any

from coterie.actors.replication.messages import NewBatch
from coterie.proto.record_batch import Record


class TopicQueue:
    """cursor: next seq to deliver; last: the last one known to exist. held: bytes in memory."""

    __slots__ = ("attempt", "batches", "cursor", "error", "failures", "held", "last", "outstanding", "started", "topic")

    def __init__(self, topic: str, cursor: int, last: int) -> None:
        self.topic, self.cursor, self.last = topic, cursor, last
        self.batches: deque[NewBatch] = deque()
        self.held = 0
        self.outstanding: Any = None  # the future of the Deliver under way
        self.started = 0.0  # when it was asked, monotonic
        self.attempt = 1
        self.error: BaseException | None = None  # what the handler raised on the record at the cursor
        self.failures = 0  # how often the handler in force has raised on it

    @property
    def tail(self) -> int:
        """The seq after the last one in memory."""
        return self.batches[-1].last_seq + 1 if self.batches else self.cursor

    @property
    def behind(self) -> bool:
        """Whether records exist that are not in memory."""
        return self.tail <= self.last

    def arrived(self, batch: NewBatch, keep: bool) -> bool:
        """A batch that was just committed. False when it is known already (it came by stream before). keep: whether memory allows."""
        last_seq = batch.last_seq
        if last_seq <= self.last:
            return False
        if keep and not self.behind and last_seq >= self.cursor:
            self._append(batch)
        self.last = last_seq
        return True

    def refilled(self, batch: NewBatch) -> None:
        """A batch read from the buffer, in order."""
        if batch.last_seq >= self.tail:
            self._append(batch)
            self.last = max(self.last, batch.last_seq)

    def forget(self) -> None:
        """Give the memory back; the buffer has it all."""
        self.batches.clear()
        self.held = 0

    def hole(self) -> tuple[int, int] | None:
        """The records missing before the first batch in memory, (first, last)."""
        if self.batches and self.batches[0].first_seq > self.cursor:
            return self.cursor, self.batches[0].first_seq - 1
        return None

    def front(self, most: int) -> tuple[NewBatch, list[tuple[int, bytes, dict[str, str] | None]]] | None:
        """The next records for the handler, at most `most`, all of one batch: (seq, data, headers)."""
        if not self.batches:
            return None
        batch = self.batches[0]
        skip = self.cursor - batch.first_seq
        records = batch.records[skip : skip + most] if skip or most < len(batch.records) else batch.records
        return batch, _numbered(self.cursor, records)

    def advance(self, count: int) -> None:
        """The handler has had `count` more."""
        self.cursor += count
        while self.batches and self.batches[0].last_seq < self.cursor:
            self.held -= self.batches.popleft().size

    def _append(self, batch: NewBatch) -> None:
        self.batches.append(batch)
        self.held += batch.size


def _numbered(first: int, records: list[Record]) -> list[tuple[int, bytes, dict[str, str] | None]]:
    if set(map(type, records)) == {bytes}:
        return list(zip(range(first, first + len(records)), records, repeat(None), strict=False))
    return [
        (first + at, record, None) if record.__class__ is bytes else (first + at, record[0], record[2]) for at, record in enumerate(records)
    ]
