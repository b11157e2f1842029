"""Snapshots in the simulated cluster: on their way, in a node's hands, and half installed when it died.

A snapshot travels on a connection of its own, takes its time, and may be lost, or arrive when nobody wants it any more. What the state machine
makes of its content is the application's business; `history` is what the content was made of, for the oracle alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.ready import SendSnapshot
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import OWN_SNAPSHOT, SnapshotRequest

if TYPE_CHECKING:
    from tests.sim.node import SimNode


class Sending:
    """One snapshot on its way. It begins when it is made."""

    def __init__(self, sender: SimNode, wish: SendSnapshot) -> None:
        self.world, self.client, self._wish, self._life = sender.world, sender, wish, sender.life
        kernel, disk = self.world.kernel, sender.disk
        index, self.content = self.world.application.snapshot(sender)
        self.history = disk.log[:index]
        self.mark = SnapshotMark(index, self.history[-1].term if index else 0, *disk.configuration_before(index + 1))
        self.request = SnapshotRequest(
            sender.core._node.header,
            wish.token.term,
            index,
            self.mark.term,
            encode_configuration(self.mark.configuration),
            self.mark.configuration_index,
            100,
            snapshot_version=OWN_SNAPSHOT,
        )
        kernel.note(sender.id, "sends", f"a snapshot up to {index} to {wish.peer}")
        kernel.seen["snapshots sent"] += 1
        self._told = False
        kernel.after(kernel.between(0.001, 0.5) if kernel.chance(0.9) else kernel.between(0.5, 3.0), self._arrive)
        kernel.after(4.0, lambda: self.answer(None, None))  # the sender's patience

    def _arrive(self) -> None:
        host, network = self.world.nodes[self._wish.peer], self.world.network
        if self.world.kernel.chance(network.faults.reset * 5) or not host.reachable() or not network.open_path(self.client.id, host.id):
            self.world.kernel.seen["snapshots lost on their way"] += 1
            self.answer(None, None)
            return
        host.on_snapshot(self)

    def answer(self, token: object, message: Any) -> None:
        """How it ended: the receiver's answer, or None. Only the first is heard, and only by the life that sent it."""
        if not self._told:
            self._told = True
            self.world.kernel.after(self.world.network.latency(), lambda: self._tell(message))

    def _tell(self, message: Any) -> None:
        client = self.client
        if not client.up or client.life != self._life:
            return
        if client.paused:
            self.world.kernel.after(0.02, lambda: self._tell(message))
            return
        client.core.snapshot_sent(self._wish.peer, self._wish.token, self.mark.index, message, client.now())
        client.step()


def installed_before_a_crash(node: SimNode) -> None:
    """The state machine has a snapshot that the log does not know of: the installation is finished now."""
    if node.installed is None:
        return
    mark, history = node.installed
    disk = node.disk
    if mark.index > disk.start and not disk.holds(mark.index, mark.term):
        node.world.kernel.note(node.id, "finishes", f"the installation of {mark.index}")
        node.world.kernel.seen["installations finished after a crash"] += 1
        disk.reset(mark, history)
