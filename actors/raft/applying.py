"""Committed entries on their way to the state machine: in bounded chunks, and no more of them than it can keep up with.

A node that was away may have millions of entries to apply. Handed out at once they would fill memory and hold up everything behind them; so
the core waits for `applied_to` when a window of entries or bytes is out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import repeat

from coterie.actors.raft.node import Node
from coterie.proto.raft_messages import Entry


class Handout:
    """What was handed to the state machine, and what of it is applied."""

    def __init__(self, node: Node, applied: int) -> None:
        self._node = node
        self.handed = self.applied = applied
        self._chunks: deque[tuple[int, int]] = deque()  # (last index, bytes), not applied yet
        self._bytes = 0

    def applied_to(self, index: int) -> None:
        self.applied = max(self.applied, index)
        while self._chunks and self._chunks[0][0] <= index:
            self._bytes -= self._chunks.popleft()[1]

    def reset(self, index: int) -> None:
        """The state machine was replaced by a snapshot that ends with entry `index`."""
        self.handed = self.applied = index
        self._chunks.clear()
        self._bytes = 0

    def has_more(self) -> bool:
        """Will `take` give something?"""
        node, settings = self._node, self._node.settings
        return (
            self.handed < node.commit
            and self.handed - self.applied < settings.apply_window_entries
            and self._bytes < settings.apply_window_bytes
        )

    def take(self) -> Sequence[tuple[Entry, object | None]]:
        """The next chunk, each entry with the context of its proposal."""
        if not self.has_more():
            return ()
        node, settings = self._node, self._node.settings
        room = settings.apply_window_entries - (self.handed - self.applied)
        first = self.handed + 1
        last = min(node.commit, self.handed + min(room, settings.apply_chunk_entries))
        entries = node.log.entries(first, last, settings.apply_chunk_bytes)
        size = node.log.size(entries)
        self.handed = entries[-1].index
        self._chunks.append((self.handed, size))
        self._bytes += size
        return list(zip(entries, self._take_contexts(first, len(entries)), strict=True))

    def _take_contexts(self, first: int, count: int) -> Sequence[object | None]:
        """Contexts of entries first, first + 1, …: those from before the contexts begin, or after they end, have none."""
        node = self._node
        unknown = min(max(0, node.contexts_from - first), count) if node.contexts else count
        taken = node.contexts[: count - unknown]
        del node.contexts[: count - unknown]
        node.contexts_from += len(taken)
        return [*repeat(None, unknown), *taken, *repeat(None, count - unknown - len(taken))] if len(taken) < count else taken
