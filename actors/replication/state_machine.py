"""The replicated state machine of publishing: which record gets which place in its topic.

It is a pure function of the log: every node that applies the same entries in the same order gets the same sequence numbers, for ever. So nothing here depends
on a setting, a clock or this node; the size of the dedupe window is a constant of the protocol. Changing any rule of this file changes what an old log
means, and needs a new format number in the record batch.

Rules:
- each topic counts its records from 1, in log order, and within an entry in the order of the batch;
- a record with a message id that is in the window of its topic is a duplicate: it takes no place, and its publisher gets the place of the first;
- the window holds the last `DEDUPE_WINDOW` ids over all topics, first in, first out; a duplicate does not renew its id. Ids of different topics are different ids;
- an entry at or below `applied` was applied before and changes nothing;
- an entry with a roster command changes the roster (`roster`) and no topic.

What is neither never comes here. What came out of it (batches to store, ids that entered and left the window) collects in `Outcome`, for
the buffer to write in one transaction with the applied index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from coterie.actors.replication.buffer import Remembered, StoredBatch
from coterie.actors.replication.messages import NewBatch
from coterie.actors.replication.roster import Roster
from coterie.proto.forwarding import Duplicates
from coterie.proto.record_batch import Batch, Record, encode_batch
from coterie.proto.roster import RosterCommand

DEDUPE_WINDOW: Final = 65_536


class Placed(NamedTuple):
    """Where the records of a batch went: first_seq, first_seq + 1, … in order, without those at the positions in `duplicates`.
    first_seq is the topic's next one when all of them were duplicates."""

    first_seq: int
    duplicates: Duplicates | None


class Outcome:
    """What applying some entries changed.

    stored: batches for the buffer; fresh: the same for delivery; ids: (key, Remembered) entered the window, (key, None) left it, as it happened;
    next_seqs: of the topics that moved; roster: its document, None when it has not changed.
    """

    __slots__ = ("fresh", "ids", "next_seqs", "roster", "stored")

    def __init__(self) -> None:
        self.stored: list[StoredBatch] = []
        self.fresh: list[NewBatch] = []
        self.ids: list[tuple[bytes, Remembered | None]] = []
        self.next_seqs: dict[str, int] = {}
        self.roster: bytes | None = None


def dedupe_key(topic: str, message_id: str) -> bytes:
    """The window's key: the topic's length, the topic, the id; so that no two pairs meet."""
    name = topic.encode()
    return bytes((len(name),)) + name + message_id.encode()


class StateMachine:
    """next_seqs: {topic: next seq}; applied: (index, term) of the last entry in it; window: what is remembered, oldest first."""

    def __init__(
        self,
        next_seqs: Mapping[str, int] | None = None,
        applied: tuple[int, int] = (0, 0),
        window: Iterable[Remembered] = (),
        window_size: int = DEDUPE_WINDOW,
        roster: Roster | None = None,
    ) -> None:
        self.roster = roster if roster is not None else Roster()
        self.next_seqs: dict[str, int] = dict(next_seqs or {})
        self.applied = applied
        self._window: dict[bytes, tuple[int, int]] = {r.message_id: (r.seq, r.index) for r in window}
        self._window_size = window_size
        self._outcome = Outcome()

    def become(self, next_seqs: Mapping[str, int], applied: tuple[int, int], window: Iterable[Remembered], roster: bytes | None) -> None:
        """Be another one: what a snapshot says. Whoever holds this object, or its roster, goes on with it. Raises WireError, and is as it was."""
        self.roster.become(roster)
        self.next_seqs = dict(next_seqs)
        self.applied = applied
        self._window = {r.message_id: (r.seq, r.index) for r in window}
        self._outcome = Outcome()

    def last_seq(self, topic: str) -> int:
        """The last place given in `topic`; 0 when it has none."""
        return self.next_seqs.get(topic, 1) - 1

    def apply(self, index: int, term: int, batches: Sequence[Batch], command: RosterCommand | None = None) -> list[Placed]:
        """Apply the entry at `index`: its batches, or its roster command; neither for an entry of another kind. -> the places, batch by batch."""
        if index <= self.applied[0]:
            return []
        self.applied = (index, term)
        if command is not None:
            self.roster.apply(command)
        return [self._place(index, batch) for batch in batches]

    def take_outcome(self) -> Outcome:
        """What changed since the last call."""
        outcome, self._outcome = self._outcome, Outcome()
        outcome.roster = self.roster.take_changed()
        return outcome

    def _place(self, index: int, batch: Batch) -> Placed:
        topic = batch.topic
        first = self.next_seqs.get(topic, 1)
        duplicates: Duplicates | None = None
        if not batch.plain:
            records, duplicates = self._unique(topic, batch.records, first, index)
            if duplicates:
                if not records:
                    return Placed(first, duplicates)
                batch = encode_batch(topic, batch.time, records)
        count = len(batch.records)
        self.next_seqs[topic] = first + count
        outcome = self._outcome
        outcome.next_seqs[topic] = first + count
        outcome.stored.append(StoredBatch(topic, first, count, index, batch.data))
        outcome.fresh.append(NewBatch(topic, first, index, batch.time / 1000, batch.records, len(batch.data)))
        return Placed(first, duplicates)

    def _unique(self, topic: str, records: list[Record], first: int, index: int) -> tuple[list[Record], Duplicates]:
        """The records that are no duplicates, and where the others have their first."""
        unique: list[Record] = []
        duplicates: Duplicates = {}
        for position, record in enumerate(records):
            message_id = None if record.__class__ is bytes else record[1]
            if message_id is not None:
                key = dedupe_key(topic, message_id)
                known = self._window.get(key)
                if known is not None:
                    duplicates[position] = known
                    continue
                self._remember(key, topic, first + len(unique), index)
            unique.append(record)
        return unique, duplicates

    def _remember(self, key: bytes, topic: str, seq: int, index: int) -> None:
        window, ids = self._window, self._outcome.ids
        window[key] = (seq, index)
        ids.append((key, Remembered(key, topic, seq, index)))
        if len(window) > self._window_size:
            oldest = next(iter(window))
            del window[oldest]
            ids.append((oldest, None))
