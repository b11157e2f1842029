"""How much of the log may go: a plan in bounded steps. Pure.

What the state machine holds durably is not needed for recovery any more; what is kept beyond that are the trailing entries, with which a follower that was
away for a while is brought up to date without a snapshot. They are bounded in number, in bytes and, if wanted, in age, whichever is reached first. Compaction
begins when a good deal is surplus, so that its cost is paid rarely, and takes it away in steps, so that no step holds the Raft actor up for long.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STEP: Final = 4096  # entries of one transaction
SURPLUS: Final = 4  # compaction begins when a quarter more than what is to be kept is there
MARK_BYTES: Final = 1 << 20
MARKS_OF_AGE: Final = 32  # how finely the time is known at which entries came


class Compaction:
    """entries, size, age: the most that is kept of what is applied; age in seconds, 0.0: any. first: where the log begins; what is there at the start counts as
    new."""

    def __init__(self, entries: int, size: int, first: int, last: int, age: float = 0.0) -> None:
        self._entries, self._size, self._age = entries, size, age
        self._now = 0.0
        self._came: deque[tuple[int, float]] = deque()  # (index, when the log ended there at the latest), rising
        self._first = first
        self._marks: deque[tuple[int, int]] = deque([(last, 0)])  # (index, bytes of the log up to it), about one a mebibyte
        self._bytes = 0
        self.until = 0  # what may go now: entries up to here

    def appended(self, last: int, total: int, now: float = 0.0) -> None:
        """The log ends at `last` now; `total` bytes came into it since the start, without what was cut off again. now: monotonic seconds."""
        if self._age:
            self._now = now
            self._note_time(last, now)
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
        self._came.clear()
        self._marks = deque([(first - 1, total)])

    def compacted(self, first: int) -> None:
        self._first = first
        while len(self._marks) > 1 and self._marks[1][0] < first:
            self._marks.popleft()

    def _note_time(self, last: int, now: float) -> None:
        came, expired = self._came, now - self._age
        while came and came[-1][0] > last:
            came.pop()
        if not came or now - came[-1][1] >= self._age / MARKS_OF_AGE:
            came.append((last, now))
        while len(came) > 1 and came[1][1] <= expired:
            came.popleft()

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
        if self._came and self._came[0][1] <= self._now - self._age:
            keep = max(keep, self._came[0][0] + 1)
        return min(keep, applied + 1)
