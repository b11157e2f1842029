"""What the buffer keeps: the last `records` and `size` bytes of each topic, however far its reader is, as long as nothing is taken from under a reader.

The sizes of the batches written by this process are known one by one; of those that were there before only the sum is, so they are taken to be of equal size.
That is exact enough for a bound, and spares a scan of the buffer at the start.

What is known of each batch stands in two arrays of numbers: a topic may have a hundred thousand batches, and as pairs of Python's integers these were the most that
a node kept in memory.
"""

from __future__ import annotations

from array import array
from typing import Final

TIDY: Final = 1024  # entries in front that are gone before they are moved out


class TopicRetention:
    """One topic: `first` is its first retained seq, `next` the next one; older batches hold `size` bytes in [first, next)."""

    __slots__ = ("_after", "_gone", "_old_end", "_old_size", "_size", "_sizes", "first", "next")

    def __init__(self, first: int, next_seq: int, size: int) -> None:
        self.first, self.next = first, next_seq
        self._old_end, self._old_size = next_seq, size
        self._after, self._sizes = array("Q"), array("Q")  # of each batch: the seq after it, its bytes; the first `_gone` are trimmed
        self._gone = 0
        self._size = size

    def added(self, next_seq: int, size: int) -> None:
        """A batch that reaches up to `next_seq` was stored."""
        self.next = next_seq
        self._after.append(next_seq)
        self._sizes.append(size)
        self._size += size

    def restart(self, first: int) -> None:
        """All of it was dropped; the topic goes on at `first`."""
        self.__init__(first, first, 0)  # type: ignore[misc]

    def surplus(self, records: int, size: int, ceiling: int) -> int | None:
        """The seq below which to trim so that at most `records` and `size` bytes are left, but nothing at or above `ceiling`. None: nothing to do."""
        below = max(self.first, self.next - records)
        if self._size > size:
            below = max(below, self._below_for(self._size - size))
        below = min(below, ceiling)
        return below if below > self.first else None

    def trimmed(self, first: int) -> None:
        """Batches that lie below `first` as a whole are gone."""
        if self.first < self._old_end:
            gone = min(first, self._old_end) - self.first
            share = self._old_size * gone // (self._old_end - self.first)
            self._old_size -= share
            self._size -= share
        gone, after = self._gone, self._after
        while gone < len(after) and after[gone] <= first:
            self._size -= self._sizes[gone]
            gone += 1
        if gone >= TIDY and gone * 2 >= len(after):
            del self._after[:gone], self._sizes[:gone]
            gone = 0
        self._gone = gone
        self.first = max(self.first, first)

    def _below_for(self, excess: int) -> int:
        """The seq up to which batches must go to free `excess` bytes."""
        old = self._old_end - self.first
        if old > 0 and self._old_size >= excess:
            return self.first + -(-old * excess // self._old_size)
        excess -= max(0, self._old_size) if old > 0 else 0
        below = max(self.first, self._old_end)
        for place in range(self._gone, len(self._after)):
            if excess <= 0:
                break
            below, excess = self._after[place], excess - self._sizes[place]
        return below
