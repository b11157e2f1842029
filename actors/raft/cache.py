"""The log as the core sees it: what is stored, and after it what is still on its way to the disk.

Recent entries stay in memory, in one list, so that sending and committing read no storage. Everything that is not stored yet is in that
list; what is stored leaves it from the front when the list outgrows its bytes. So storage is asked only for indexes below the list, and
there it can hold nothing but what the log holds.

`_ends[i]` is the running total of bytes up to and including `_entries[i]`: the size of any range is one subtraction, and where to cut a
range at a byte limit is a bisection. That is the whole cost of bounding messages by bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from coterie.actors.raft.log import LogReader
from coterie.proto.raft_messages import Entry

ENTRY_OVERHEAD: Final = 64  # bytes counted for an entry beside its data: roughly its frame on the wire


class LogCache:
    """The server's log. One thread. Indexes start at 1; term 0 stands before the first entry."""

    def __init__(self, reader: LogReader, max_bytes: int) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self.last_index = reader.last_index
        self.last_term = reader.term(self.last_index) if self.last_index else 0
        self.stored_index = self.last_index
        self._first = self.last_index + 1
        self._entries: list[Entry] = []
        self._ends: list[int] = []
        self._total_before = 0
        self._unsaved_from = self.last_index + 1
        self._truncate_from: int | None = None
        self.generation = 0
        self._base = (0, 0)  # (index, term) of the snapshot that replaced the log, if one did in this life

    @property
    def first_index(self) -> int:
        return max(self._reader.first_index, self._base[0] + 1)

    @property
    def first_in_memory(self) -> int:
        """Entries below must be read from the disk."""
        return self._first

    @property
    def total_bytes(self) -> int:
        """Of all entries that came into the log since the start, but those that were cut off again."""
        return self._ends[-1] if self._ends else self._total_before

    @property
    def cached_bytes(self) -> int:
        return self._ends[-1] - self._total_before if self._ends else 0

    def term(self, index: int) -> int:
        """Term at `index`, 0 at index 0; KeyError outside of the log."""
        if index == self.last_index:
            return self.last_term
        if index >= self._first:
            if index > self.last_index:
                raise KeyError(index)
            return self._entries[index - self._first].term
        if index == 0:
            return 0
        return self._base[1] if index == self._base[0] else self._reader.term(index)

    def matches(self, index: int, term: int) -> bool:
        """Log matching (Raft paper, 5.3): is there an entry at `index`, and is it of `term`?"""
        if index > self.last_index or (index and index < self.first_index - 1):
            return False
        return self.term(index) == term

    def first_of_term(self, index: int) -> int:
        """First index of the term that stands at `index`. Terms never fall along a log, so this is a bisection."""
        term, low, high = self.term(index), max(self.first_index, 1), index
        while low < high:
            middle = (low + high) // 2
            if self.term(middle) < term:
                low = middle + 1
            else:
                high = middle
        return low

    def last_not_above(self, index: int, term: int) -> int:
        """The largest index <= `index` whose term is <= `term`; first_index - 1 when there is none."""
        low, high = self.first_index - 1, index
        while low < high:
            middle = (low + high + 1) // 2
            if self.term(middle) <= term:
                low = middle
            else:
                high = middle - 1
        return low

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries from `first` on: to `last`, to the byte limit, or to where storage ends and memory begins; at least one."""
        if first < self._first:
            return self._reader.entries(first, min(last, self._first - 1), max_bytes)
        start, stop = first - self._first, last - self._first + 1
        before = self._ends[start - 1] if start else self._total_before
        if self._ends[stop - 1] - before > max_bytes:
            stop = min(stop, bisect_left(self._ends, before + max_bytes, start, stop) + 1)
        return self._entries[start:stop]

    def size(self, entries: Sequence[Entry]) -> int:
        """Bytes of entries that `entries()` gave."""
        if not entries:
            return 0
        start, stop = entries[0].index - self._first, entries[-1].index - self._first
        if start < 0:
            return sum(len(entry.data or b"") + ENTRY_OVERHEAD for entry in entries)
        return self._ends[stop] - (self._ends[start - 1] if start else self._total_before)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add consecutive entries after the last one; they are not stored yet."""
        total = self._ends[-1] if self._ends else self._total_before
        sizes = [len(entry[3]) + ENTRY_OVERHEAD if entry[3] else ENTRY_OVERHEAD for entry in entries]
        sizes[0] += total
        self._ends.extend(accumulate(sizes))
        self._entries.extend(entries)
        self.last_index, self.last_term = entries[-1].index, entries[-1].term

    def truncate(self, index: int) -> None:
        """Drop every entry from `index` on."""
        last_term = self.term(index - 1)
        if index >= self._first:
            keep = index - self._first
            del self._entries[keep:], self._ends[keep:]
        else:
            self._entries.clear()
            self._ends.clear()
            self._first = index
        self.last_index, self.last_term = index - 1, last_term
        if index < self._unsaved_from:
            self._unsaved_from = index
            self._truncate_from = index if self._truncate_from is None else min(index, self._truncate_from)
            self.generation += 1
        self.stored_index = min(self.stored_index, self.last_index)

    def reset(self, index: int, term: int) -> None:
        """A snapshot that ends with the entry (index, term) replaces the log. What was on its way to the disk is worth nothing any more."""
        self._total_before = self.total_bytes
        self._entries.clear()
        self._ends.clear()
        self._base = (index, term)
        self.last_index, self.last_term = index, term
        self.stored_index = 0
        self._first = self._unsaved_from = index + 1
        self._truncate_from = None
        self.generation += 1

    @property
    def has_unsaved(self) -> bool:
        return self._unsaved_from <= self.last_index or self._truncate_from is not None

    def take_unsaved(self) -> tuple[int | None, list[Entry]]:
        """(truncate_from, entries) that storage has not been given yet."""
        truncate_from, self._truncate_from = self._truncate_from, None
        entries = self._entries[self._unsaved_from - self._first :] if self._unsaved_from <= self.last_index else []
        self._unsaved_from = self.last_index + 1
        return truncate_from, entries

    def stored(self, index: int, generation: int) -> None:
        """Everything up to `index`, as it was in that generation, is durable. A truncation since then makes the report worthless:
        the same index and term may have been cut off and come back, and be on its way to the disk once more."""
        if generation == self.generation and index > self.stored_index:
            self.stored_index = index
            if self.cached_bytes > self._max_bytes:
                self._evict()

    def _evict(self) -> None:
        """Shrink to three quarters at once, so that moving the rest of the list to the front is paid rarely."""
        target = self._ends[-1] - self._max_bytes * 3 // 4
        count = min(bisect_left(self._ends, target) + 1, self.stored_index - self._first + 1)
        if count > 0:
            self._total_before = self._ends[count - 1]
            del self._entries[:count], self._ends[:count]
            self._first += count
