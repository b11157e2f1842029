"""A disk that keeps what was synced and nothing else. One write is one transaction: it happens wholly, when it completes, or not at all."""

from __future__ import annotations

from coterie.actors.raft.log import HardState
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry


class SimDisk:
    """Keeps the LogReader contract over what is durable."""

    first_index = 1

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.hard = HardState()

    @property
    def last_index(self) -> int:
        return len(self.log)

    @property
    def last_term(self) -> int:
        return self.log[-1].term if self.log else 0

    def term(self, index: int) -> int:
        if index == 0:
            return 0
        if not 0 < index <= len(self.log):
            raise KeyError(index)
        return self.log[index - 1].term

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        if not 0 < first <= last <= len(self.log):
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
        return 0 <= index <= len(self.log) and self.term(index) == term

    def configuration(self) -> tuple[int, Configuration]:
        return self.configuration_before(len(self.log) + 1)

    def configuration_before(self, index: int) -> tuple[int, Configuration]:
        for entry in reversed(self.log[: index - 1]):
            if entry.kind == CONFIGURATION:
                return entry.index, decode_configuration(entry.data or b"")
        return 0, Configuration()

    def write(self, entries: list[Entry], hard_state: HardState | None, truncate_from: int | None) -> None:
        if truncate_from is not None:
            del self.log[truncate_from - 1 :]
        if entries:
            assert entries[0].index == len(self.log) + 1, f"a gap on the disk: {entries[0].index} after {len(self.log)}"
            self.log += entries
        if hard_state is not None:
            self.hard = hard_state
