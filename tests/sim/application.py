"""What stands on the simulated Raft: it is told when a node starts (and answers what its state machine still has), what is applied, and which proposals were
abandoned, and it acts as a client at every client tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coterie.actors.raft.log import SnapshotMark
from coterie.proto.raft_messages import Entry

if TYPE_CHECKING:
    from tests.sim.node import SimNode


class Application:
    def __init__(self, world: Any) -> None:
        self.world = world
        self.acknowledged_at = 0.0  # when something was acknowledged last

    def start(self, node: SimNode) -> int:
        """The process starts: the index up to which its state machine has applied, durably."""
        raise NotImplementedError

    def sync(self, node: SimNode) -> int:
        """Make what is applied durable; up to where that is."""
        raise NotImplementedError

    def snapshot(self, node: SimNode) -> tuple[int, Any]:
        """The index up to which the state machine is, and its content."""
        raise NotImplementedError

    def restore(self, node: SimNode, mark: SnapshotMark, content: Any) -> None:
        """Put the content in the place of the state machine, durably."""
        raise NotImplementedError

    def apply(self, node: SimNode, entry: Entry, context: Any) -> None:
        raise NotImplementedError

    def abandoned(self, node: SimNode, context: Any) -> None:
        """The outcome of this proposal is unknown."""

    def read(self, node: SimNode, key: str) -> Any:
        """What a read that may be served now gives."""
        raise NotImplementedError

    def client(self) -> None:
        """A client turns to a node."""
        raise NotImplementedError

    def served(self) -> bool:
        """Was something acknowledged since all was healed?"""
        return self.acknowledged_at > self.world.healed_at

    def finish(self, members: list[SimNode]) -> None:
        """All is healed and silent; what was promised must be true on these."""
        raise NotImplementedError
