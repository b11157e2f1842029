"""The Raft log of a node without a data directory: the contract of `RaftLog` in memory, gone with the process.

Such a server forgets its vote and its entries when it restarts. That is safe only if it never comes back under the same id while the others
remember it, which the supervisor sees to; here "stored" means "in memory".
"""

from __future__ import annotations

import threading

from coterie.actors.raft.log import HardState, SnapshotMark
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry


class MemoryLog:
    """`RaftLog` (see `log.py`) in a list: the entry of index i is at place i - 1 - start, `start` being where the log was compacted to."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._start, self._start_term = 0, 0
        self._configurations: list[tuple[int, Configuration]] = []
        self._hard_state = HardState()
        self._lock = threading.Lock()

    @property
    def first_index(self) -> int:
        return self._start + 1

    @property
    def last_index(self) -> int:
        return self._start + len(self._entries)

    def hard_state(self) -> HardState:
        return self._hard_state

    def doubt(self) -> None:
        return None

    def settle(self) -> None:
        """There is never anything to settle."""

    def term(self, index: int) -> int:
        with self._lock:
            if index == self._start:
                return self._start_term
            if not self._start < index <= self.last_index:
                raise KeyError(f"entry {index}: the log holds {self.first_index}..{self.last_index}")
            return self._entries[index - 1 - self._start].term

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        with self._lock:
            if not self._start < first <= last <= self.last_index:
                raise KeyError(f"entries {first}..{last}: the log holds {self.first_index}..{self.last_index}")
            found = self._entries[first - 1 - self._start : last - self._start]
        size = 0
        for count, entry in enumerate(found, 1):
            size += len(entry.data or b"")
            if size >= max_bytes:
                return found[:count]
        return found

    def configuration(self) -> tuple[int, Configuration]:
        return self.configuration_before(self.last_index + 1)

    def configuration_before(self, index: int) -> tuple[int, Configuration]:
        with self._lock:
            return next((stored for stored in reversed(self._configurations) if stored[0] < index), (0, Configuration()))

    def append(self, entries: list[Entry], hard_state: HardState | None = None, truncate_from: int | None = None) -> None:
        with self._lock:
            keep = self.last_index if truncate_from is None else min(truncate_from - 1, self.last_index)
            if keep < self._start:
                raise ValueError(f"truncate_from={truncate_from}: entries below {self.first_index} are committed and compacted")
            for expected, entry in enumerate(entries, keep + 1):
                if entry.index != expected:
                    raise ValueError(
                        f"entry {entry.index} where {expected} must follow: the entries of one append are consecutive and continue the log"
                    )
            del self._entries[keep - self._start :]
            self._entries.extend(entries)
            self._configurations = [stored for stored in self._configurations if stored[0] <= keep]
            self._configurations += [(e.index, decode_configuration(e.data or b"")) for e in entries if e.kind == CONFIGURATION]
            if hard_state is not None:
                self._hard_state = hard_state

    def compact(self, index: int) -> None:
        with self._lock:
            if index > self.last_index:
                raise ValueError(f"index={index}: the log ends at {self.last_index}")
            if index <= self._start:
                return
            self._start_term = self._entries[index - 1 - self._start].term
            del self._entries[: index - self._start]
            self._start = index
            below = [stored for stored in self._configurations if stored[0] <= index]
            self._configurations = below[-1:] + [stored for stored in self._configurations if stored[0] > index]

    def reset(self, mark: SnapshotMark) -> None:
        with self._lock:
            self._entries = []
            self._start, self._start_term = mark.index, mark.term
            self._configurations = [(mark.configuration_index, mark.configuration)]

    def close(self) -> None:
        """Nothing to release."""
