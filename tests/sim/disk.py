"""A disk that keeps what was synced and nothing else. One write is one transaction: it happens wholly, when it completes, or not at all.

What was compacted away cannot be read by the server any more; the simulator keeps it (`log` has the whole history), to compare the servers in the end.
"""

from __future__ import annotations

from coterie.actors.raft.log import Doubt, HardState, SnapshotMark
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry


class SimDisk:
    """Keeps the LogReader contract over what is durable. `start`: the index up to which the log was compacted."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.start = 0
        self.hard = HardState()
        self.doubt: Doubt | None = None

    def damage(self, index: int) -> None:
        """The entries from `index` on are found damaged, and given up."""
        assert index > self.start
        if index <= len(self.log):
            last = max(len(self.log), self.doubt.last if self.doubt else 0)
            self.doubt = Doubt(last, self.hard.term)
            del self.log[index - 1 :]

    @property
    def first_index(self) -> int:
        return self.start + 1

    @property
    def last_index(self) -> int:
        return len(self.log)

    @property
    def last_term(self) -> int:
        return self.log[-1].term if self.log else 0

    def term(self, index: int) -> int:
        if not self.start <= index <= len(self.log):
            raise KeyError(index)
        return self.log[index - 1].term if index else 0

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        if not self.start < first <= last <= len(self.log):
            raise KeyError((first, last))
        taken: list[Entry] = []
        size = 0
        for entry in self.log[first - 1 : last]:
            taken.append(entry)
            size += len(entry.data or b"")
            if size >= max_bytes:
                break
        return taken

    def holds(self, index: int, term: int) -> bool:
        """In the log, or in what was made of it."""
        return 0 <= index <= len(self.log) and (self.log[index - 1].term if index else 0) == term

    def configuration(self) -> tuple[int, Configuration]:
        return self.configuration_before(len(self.log) + 1)

    def configuration_before(self, index: int) -> tuple[int, Configuration]:
        assert index > self.start, f"the configuration before {index} is asked of a log that begins after {self.start}"
        for entry in reversed(self.log[: index - 1]):
            if entry.kind == CONFIGURATION:
                return entry.index, decode_configuration(entry.data or b"")
        return 0, Configuration()

    def write(self, entries: list[Entry], hard_state: HardState | None, truncate_from: int | None) -> None:
        if truncate_from is not None:
            assert truncate_from > self.start, f"compacted entries are cut off: {truncate_from} of a log that begins after {self.start}"
            del self.log[truncate_from - 1 :]
        if entries:
            assert entries[0].index == len(self.log) + 1, f"a gap on the disk: {entries[0].index} after {len(self.log)}"
            self.log += entries
        if hard_state is not None:
            self.hard = hard_state

    def compact(self, index: int) -> None:
        assert index <= len(self.log)
        self.start = max(self.start, index)

    def reset(self, mark: SnapshotMark, history: list[Entry]) -> None:
        """`history`: the entries that the snapshot was made of."""
        assert (history[-1].index, history[-1].term) == (mark.index, mark.term)
        self.log, self.start = list(history), mark.index
