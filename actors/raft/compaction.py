"""How much of the log may go: a plan in bounded steps. Pure.

What the state machine holds durably is not needed for recovery any more; what is kept beyond that are the trailing entries, with which a follower that was away for
a while is brought up to date without a snapshot. They are bounded in number and in bytes, whichever is reached first. Compaction begins when a good deal is
surplus, so that its cost is paid rarely, and takes it away in steps, so that no step holds the Raft actor up for long.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STEP: Final = 4096  # entries of one transaction
SURPLUS: Final = 4  # compaction begins when a quarter more than what is to be kept is there
MARK_BYTES: Final = 1 << 20


class Compaction:
    """entries, size: the most that is kept of what is applied. first: where the log begins."""

    def __init__(self, entries: int, size: int, first: int, last: int) -> None:
        self._entries, self._size = entries, size
        self._first = first
        self._marks: deque[tuple[int, int]] = deque([(last, 0)])  # (index, bytes of the log up to it), about one a mebibyte
        self._bytes = 0
        self.until = 0  # what may go now: entries up to here

    def appended(self, last: int, total: int) -> None:
        """The log ends at `last` now; `total` bytes came into it since the start, without what was cut off again."""
        self._bytes = total
        while self._marks and self._marks[-1][0] > last:
            self._marks.pop()
        if not self._marks or self._bytes - self._marks[-1][1] >= MARK_BYTES:
            self._marks.append((last, self._bytes))

    def wanted(self, applied: int) -> bool:
        """Is it time to ask what is durable?"""
        return self.until < self._first and self._keep_from(applied) - self._first >= max(1, self._kept(applied) // SURPLUS)

    def allowed(self, durable: int, applied: int) -> None:
        """The state machine has everything up to `durable`, whatever happens."""
        self.until = min(durable, self._keep_from(applied) - 1)

    def step(self) -> int | None:
        """The index up to which to compact now; None when nothing is to be done."""
        if self.until < self._first:
            return None
        return min(self.until, self._first + STEP - 1)

    def replaced(self, first: int, total: int) -> None:
        """A snapshot took the place of the log, which is empty and begins at `first`."""
        self._first, self.until, self._bytes = first, 0, total
        self._marks = deque([(first - 1, total)])

    def compacted(self, first: int) -> None:
        self._first = first
        while len(self._marks) > 1 and self._marks[1][0] < first:
            self._marks.popleft()

    def _kept(self, applied: int) -> int:
        return applied + 1 - self._keep_from(applied)

    def _keep_from(self, applied: int) -> int:
        """The first entry to keep. Of entries that were there at the start only the number is known."""
        keep = applied + 1 - self._entries
        surplus = self._bytes - self._size
        for index, size in self._marks:
            if size > surplus:
                break
            keep = max(keep, index + 1)
        return min(keep, applied + 1)
