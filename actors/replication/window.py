"""The publish window: how many records of a topic may be without an acknowledgement before publishing waits.

    unacknowledged = last place given or asked for - the least acknowledged seq of the members that count

A member counts while it is alive in gossip and has announced itself in this leadership (its acknowledgements are cumulative, and it sends all of them to a
new leader first). So neither a departed nor a silently dead member can hold publishing up for longer than gossip takes to notice; and a server that Raft
hears nothing from does not count at once: a process that stands still, unlike a handler that does, stops the others for a lease and not for seconds.

For a topic a member counts only once it has been near the end of it. One that returns with a long way to go catches up beside the others: it does not stop
them until it has caught up. From then on it is within the window, and cannot fall out of it again while it lives, since publishing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

NEAR: Final = 2  # windows: within so many of the end a member counts as caught up; a forwarded batch may overshoot the window once
MAX_MEMBERS: Final = 4096  # that may announce themselves; more are ignored


class Window:
    """limit: records per topic. `last_seq(topic)` gives the last place of a topic so far."""

    def __init__(self, limit: int, last_seq: Callable[[str], int]) -> None:
        self.limit = limit
        self._last_seq = last_seq
        self._live: frozenset[str] = frozenset()
        self._silent: frozenset[str] = frozenset()
        self._acked: dict[str, dict[str, int]] = {}  # announced member -> topic -> seq
        self._caught_up: dict[str, set[str]] = {}  # announced member -> topics it counts for

    def new_leadership(self) -> None:
        """Nobody has announced anything to this leader yet."""
        self._acked.clear()
        self._caught_up.clear()

    def set_live(self, live: frozenset[str]) -> list[str]:
        """Who is alive. -> the announced members that are not any more; they count again when they announce themselves again."""
        gone = [node for node in self._acked if node in self._live and node not in live]
        self._live = live
        for node in gone:
            del self._acked[node], self._caught_up[node]
        return gone

    def set_silent(self, silent: frozenset[str]) -> None:
        """Who does not count while it is in here; when it speaks again it catches up beside the others."""
        self._silent = silent
        for node in silent & self._caught_up.keys():
            self._caught_up[node].clear()

    def acknowledge(self, node: str, acks: Mapping[str, int], announce: bool) -> dict[str, int]:
        """Take a member's acknowledgements. -> by topic, how many records it acknowledged newly. 0 of what it had acknowledged before it first spoke to this
        leadership, and of what it takes back: so counts of acknowledgements do not jump when leadership moves. Who never announced itself is ignored; who is not
        (yet) known to be alive is remembered, and counts when it is."""
        first = node not in self._acked
        if first and (not announce or len(self._acked) >= MAX_MEMBERS):
            return {}
        mine = self._acked.setdefault(node, {})
        near = self._caught_up.setdefault(node, set())
        fresh = {}
        for topic, seq in acks.items():
            before = mine.get(topic, 0)
            if seq > before:
                mine[topic] = seq
                fresh[topic] = 0 if first else seq - before
        if announce:  # it may have lost its disk: then it begins again, and counts again when it is near the end again
            for topic, seq in mine.items():
                if acks.get(topic, 0) < seq:
                    mine[topic] = acks.get(topic, 0)
                    near.discard(topic)
                    fresh[topic] = 0
        return fresh

    def announced(self, node: str) -> bool:
        """Whether it has announced itself in this leadership."""
        return node in self._acked

    def heard(self) -> frozenset[str]:
        """The members that have announced themselves in this leadership, live, and are not silent."""
        return (self._live & self._acked.keys()) - self._silent

    def unacknowledged(self, topic: str, in_flight: int = 0) -> int:
        """Records of `topic` that a counting member has not acknowledged. in_flight: records asked for, without a place yet."""
        last = self._last_seq(topic)
        least = last
        for node, acks in self._acked.items():
            seq = acks.get(topic, 0)
            if seq < least and self._counts(node, topic, last - seq):
                least = seq
        return last + in_flight - least

    def room(self, topic: str, in_flight: int = 0) -> int:
        """How many more records of `topic` may be asked for now; never below 0."""
        return max(0, self.limit - self.unacknowledged(topic, in_flight))

    def slowest(self, topic: str) -> tuple[str, int] | None:
        """The counting member that has acknowledged least of `topic`, and its seq; None when nobody counts."""
        last = self._last_seq(topic)
        rows = [(acks.get(topic, 0), node) for node, acks in self._acked.items() if self._counts(node, topic, last - acks.get(topic, 0))]
        if not rows:
            return None
        seq, node = min(rows)
        return node, seq

    def acked(self, topic: str) -> dict[str, int]:
        """What each announced member has acknowledged of `topic`."""
        return {node: acks.get(topic, 0) for node, acks in self._acked.items()}

    def _counts(self, node: str, topic: str, behind: int) -> bool:
        if node not in self._live or node in self._silent:
            return False
        near = self._caught_up[node]
        if topic in near:
            return True
        if behind <= NEAR * self.limit:
            near.add(topic)
            return True
        return False
