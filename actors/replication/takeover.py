"""When publishes wait and a node of go-cluster leads, this node asks its Raft to take the leadership over.

Such a leader takes no publishes of ours, and hashicorp/raft never gives a leadership back that it holds: without this, publishers would starve until it
dies. A take-over costs the cluster one election of a few milliseconds, so it is bounded: only after publishes have waited for a while for one and the same
leader, and at most once in `EVERY` seconds. Whether it can succeed (a voter in contact, with the whole log) is Raft's to say. Each node has a
patience of its own, from its name, so that two whose publishes wait do not campaign at once.

Pure but for the message to Raft: times come in.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from coterie.actors.room_messages import TakeOver, Topology

PATIENCE: Final = 0.3  # seconds; up to twice that, by the node's name
EVERY: Final = 5.0  # seconds between two attempts


class TakeOvers:
    """enabled: `Config.take_over_from_go`."""

    def __init__(self, node: str, raft: Any, enabled: bool) -> None:
        self._raft, self._enabled = raft, enabled
        self._patience = PATIENCE * (1 + zlib.crc32(node.encode()) / 2**32)
        self._waits_for = ""
        self._since = self._not_before = 0.0

    def look(self, topology: Topology, waiting: bool, now: float) -> None:
        """Called while publishes wait, and when none does any more."""
        leader = topology.leader_id if waiting and self._enabled and topology.foreign_leader and topology.in_quorum else ""
        if leader != self._waits_for:
            self._waits_for, self._since = leader, now
        if leader and now >= self._since + self._patience and now >= self._not_before:
            self._not_before = now + EVERY
            self._raft.send(TakeOver(leader))
