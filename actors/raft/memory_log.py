"""The Raft log of a node without a data directory: the contract of `RaftLog` in memory, gone with the process.

Such a server forgets its vote and its entries when it restarts. That is safe only if it never comes back under the same id while the others
remember it, which the supervisor sees to; here "stored" means "in memory".
"""

from __future__ import annotations

import threading

from coterie.actors.raft.log import HardState
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry


class MemoryLog:
    """`RaftLog` (see `log.py`) in a list: the entry of index i is at place i - 1."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._configurations: list[int] = []
        self._hard_state = HardState()
        self._lock = threading.Lock()

    @property
    def first_index(self) -> int:
        return 1

    @property
    def last_index(self) -> int:
        return len(self._entries)

    def hard_state(self) -> HardState:
        return self._hard_state

    def term(self, index: int) -> int:
        if index == 0:
            return 0
        with self._lock:
            if not 1 <= index <= len(self._entries):
                raise KeyError(f"entry {index}: the log holds 1..{len(self._entries)}")
            return self._entries[index - 1].term

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        with self._lock:
            if not 1 <= first <= last <= len(self._entries):
                raise KeyError(f"entries {first}..{last}: the log holds 1..{len(self._entries)}")
            found = self._entries[first - 1 : last]
        size = 0
        for count, entry in enumerate(found, 1):
            size += len(entry.data or b"")
            if size >= max_bytes:
                return found[:count]
        return found

    def configuration(self) -> tuple[int, Configuration]:
        return self.configuration_before(len(self._entries) + 1)

    def configuration_before(self, index: int) -> tuple[int, Configuration]:
        with self._lock:
            at = next((stored for stored in reversed(self._configurations) if stored < index), 0)
            return (at, decode_configuration(self._entries[at - 1].data or b"")) if at else (0, Configuration())

    def append(self, entries: list[Entry], hard_state: HardState | None = None, truncate_from: int | None = None) -> None:
        with self._lock:
            keep = len(self._entries) if truncate_from is None else min(truncate_from - 1, len(self._entries))
            if keep < 0:
                raise ValueError(f"truncate_from={truncate_from}: entries below 1 are committed and compacted")
            for expected, entry in enumerate(entries, keep + 1):
                if entry.index != expected:
                    raise ValueError(
                        f"entry {entry.index} where {expected} must follow: the entries of one append are consecutive and continue the log"
                    )
            del self._entries[keep:]
            self._entries.extend(entries)
            self._configurations = [index for index in self._configurations if index <= keep]
            self._configurations += [entry.index for entry in entries if entry.kind == CONFIGURATION]
            if hard_state is not None:
                self._hard_state = hard_state

    def close(self) -> None:
        """Nothing to release."""
