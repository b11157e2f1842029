"""The log as the Raft room sees it: what the core reads, what the shell writes, and in which units.

Two implementations keep the same contract (tests/unit/test_raft_log_contract.py): `LmdbLog` on disk and `MemoryLog` for nodes without a data
directory. The core only reads, and only through `LogReader`; every write is one `append` call, which is one transaction: the entries,
the truncation that makes room for them and the hard state that vouches for them are stored together or not at all.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from coterie.proto.raft_messages import Configuration, Entry


@attrs.define(frozen=True)
class HardState:
    """What a server must never forget (Raft paper, figure 2): its term and whom it voted for in it ("" for nobody)."""

    term: int = 0
    voted_for: str = ""


@attrs.define(frozen=True)
class SnapshotMark:
    """Where a snapshot ends: the last entry in it, and the configuration in force there, with the index of its entry."""

    index: int
    term: int
    configuration_index: int
    configuration: Configuration


@attrs.define(frozen=True)
class Doubt:
    """Entries were lost that this server had acknowledged (see `doubt`): the last one it had, 0 when that is not known; and its term then, which is above none that
    it has acknowledged anything in."""

    last: int
    term: int


class LogReader(Protocol):
    """Stored entries, first_index..last_index inclusive; an empty log has last_index == first_index - 1 (0 and 1 when nothing was compacted)."""

    @property
    def first_index(self) -> int: ...

    @property
    def last_index(self) -> int: ...

    def term(self, index: int) -> int:
        """Term of the entry at `index`, or at first_index - 1 (0 for index 0). KeyError outside of that, StorageError when the bytes are damaged."""
        ...

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries first..last inclusive, cut after the one that reaches `max_bytes` of data; at least one. KeyError when first..last is no
        range within the log (also an empty one), StorageError when an entry is damaged."""
        ...


class RaftLog(LogReader, Protocol):
    """The durable log of one server. One thread writes; any thread may read."""

    def hard_state(self) -> HardState: ...

    def doubt(self) -> Doubt | None:
        """What was lost of it and not made up for yet."""
        ...

    def settle(self) -> None:
        """It is made up for. One transaction."""
        ...

    def configuration(self) -> tuple[int, Configuration]:
        """(index, configuration) of the latest configuration entry in the log; (0, empty) when there is none."""
        ...

    def configuration_before(self, index: int) -> tuple[int, Configuration]:
        """The same, among entries below `index`: what is in force again after the log is cut at `index`."""
        ...

    def append(self, entries: list[Entry], hard_state: HardState | None = None, truncate_from: int | None = None) -> None:
        """Remove every entry from `truncate_from` on (none when that is beyond the end), add `entries` (consecutive from the then last index + 1),
        store `hard_state`: one transaction, on the disk when this returns. ValueError for a gap or a cut below first_index: nothing was changed.
        StorageError when the disk failed: nothing more may be written, every later append raises it again."""
        ...

    def compact(self, index: int) -> None:
        """Remove the entries up to `index`, but for what is known of it: its term, and the configuration in force there. One transaction. Nothing happens
        when they are gone already; ValueError when `index` is beyond the end."""
        ...

    def reset(self, mark: SnapshotMark) -> None:
        """Put a snapshot in the place of every entry: the log is empty, and begins after `mark`. One transaction; the hard state stays."""
        ...

    def close(self) -> None: ...
