"""The ways from the replication room to other nodes, made of the management room's client: neither room knows the other.

Addresses come from the latest `Topology`, which the supervisor swaps in as a whole; the wires only read it, from whatever thread asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from coterie.actors.errors import CoterieError, InvalidRequest, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.management.client import AckStream, NodeClient
from coterie.actors.management.node_api import Batch, NodePorts, State, refused
from coterie.actors.management.replication_api import RecordSource, ReplicationPorts
from coterie.actors.node.state_of_others import StateForOthers
from coterie.actors.replication.buffer import StoredBatch
from coterie.actors.replication.following import FollowSource
from coterie.actors.replication.messages import AcksArrived, ForwardedBatch, SessionClosed
from coterie.actors.replication.room import Replication
from coterie.actors.replication.subscriptions import Subscriptions
from coterie.actors.room_messages import Topology

SHARE_PAUSE: Final = 0.5  # seconds
TELL_TIMEOUT: Final = 2.0  # seconds


class Wires:
    """Outgoing: `open` (LeaderLink), `send_acks` (SendAcks), `follow` as FollowLink. Incoming: `ports()` for the node service."""

    def __init__(self, node_id: str, client: NodeClient) -> None:
        self._node_id, self._client = node_id, client
        self.topology = Topology()
        self.follow_link = _FollowLink(self)
        self._lock = threading.Lock()
        self._acks: tuple[str, AckStream] | None = None  # (leader id, stream)
        self._closed = False
        self._told_at = 0.0  # when the others last heard how far the subscribers are, monotonic

    def address_of(self, member: str) -> str:
        return self.topology.grpc_addr.get(member, "")

    @property
    def client(self) -> NodeClient:
        return self._client

    # -- a follower's publishes -----------------------------------------------------------------------------------------------

    def open(self, leader_id: str, on_reply: Callable[..., Any], on_closed: Callable[[Exception | None], Any]) -> Any:
        """The publisher's link to the leader; None when there is no way there now."""
        address = self.address_of(leader_id)
        if not address:
            return None
        try:
            return self._client.open_link(address, on_reply, on_closed)
        except CoterieError:
            return None

    # -- a node's own reads ---------------------------------------------------------------------------------------------------

    def read_index(self, leader_id: str, lease: bool, timeout: float) -> LightFuture:
        """-> ReadFrom, of a leader elsewhere."""
        address = self.address_of(leader_id)
        return self._client.read_index(address, lease, timeout) if address else refused(NotLeader())

    # -- acknowledgements -----------------------------------------------------------------------------------------------------

    def send_acks(self, leader_id: str, acks: dict[str, int], announce: bool) -> bool:
        """False: not sent now; delivery sends its whole state again later."""
        with self._lock:
            stream = self._ack_stream(leader_id, announce)
        return stream is not None and stream.send(acks.items(), announce)

    def _ack_stream(self, leader_id: str, announce: bool) -> AckStream | None:
        """The stream to this leader. A new one begins with an announcement: the leader forgets what it heard over an older one."""
        if self._acks is not None and self._acks[0] == leader_id:
            return self._acks[1]
        if self._acks is not None:
            self._acks[1].close()
            self._acks = None
        address = self.address_of(leader_id)
        if self._closed or not address or not announce:
            return None
        try:
            stream = self._client.open_acks(address, lambda error: self._acks_ended(leader_id))
        except CoterieError:
            return None
        self._acks = (leader_id, stream)
        return stream

    def _acks_ended(self, leader_id: str) -> None:
        with self._lock:
            if self._acks is not None and self._acks[0] == leader_id:
                self._acks = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._acks is not None:
                self._acks[1].close()
                self._acks = None

    # -- what comes in --------------------------------------------------------------------------------------------------------

    def ports(self, room: Callable[[], Replication | None], states: StateForOthers) -> NodePorts:
        """For the node service. `room` is None until the replication room runs: then everything is refused with NotLeader. states: this node's, for others."""

        def forwarded(session: Any, forward_id: int, data: bytes, reply: Callable[..., None], trace: str) -> None:
            there = room()
            if there is None or not there.publisher.send(ForwardedBatch(session, forward_id, data, reply, trace)):
                reply(forward_id, None, NotLeader())

        def session_closed(session: Any) -> None:
            there = room()
            if there is not None:
                there.publisher.send(SessionClosed(session))

        def acks(node_id: str, seqs: dict[str, int], announce: bool) -> None:
            there = room()
            if there is not None:
                there.subscribers.acks_arrived(AcksArrived(node_id, seqs, announce))

        def follow(node_id: str, cursors: dict[str, int]) -> _Served:
            there = room()
            if there is None or not self.topology.leads:
                leader = self.topology.leader_id
                raise NotLeader(leader, self.topology.mgmt_addr.get(leader, ""))
            return _Served(there.hub.open(cursors))

        def read_from(lease: bool) -> LightFuture:
            there = room()
            return refused(NotLeader()) if there is None else there.read_from(lease and not self.topology.foreign)

        def state(at_least: int) -> State | None:
            there = room()
            return there.handler_state(at_least) if there is not None else None

        return NodePorts(forwarded, session_closed, acks, follow, read_from, state, states.reach, states.whole)

    def replication_ports(self, room: Callable[[], Replication | None]) -> ReplicationPorts:
        """For `cluster.v1.Replication`; `room` as for `ports`."""

        def there(node_id: str) -> Replication:
            found = room()
            if found is None:
                raise NotLeader(self.topology.leader_id, self.topology.mgmt_addr.get(self.topology.leader_id, ""))
            if node_id == self._node_id or node_id in self.topology.grpc_addr:
                raise InvalidRequest(f"nodeId={node_id!r}: this is a node of the cluster, which has a way of its own; give another name")
            return found

        def subscribe(node_id: str) -> RecordSource:
            return there(node_id).subscriptions.open(node_id)

        def ack(node_id: str, topic: str, seq: int, forwarded: bool) -> None:
            subscriptions = there(node_id).subscriptions
            if forwarded:
                subscriptions.heard(node_id, topic, seq)
            else:
                subscriptions.ack(node_id, topic, seq)
                self._tell_subscribers(subscriptions, SHARE_PAUSE)

        return ReplicationPorts(subscribe, ack)

    def _tell_subscribers(self, subscriptions: Subscriptions, pause: float) -> None:
        """Tell the other nodes of ours how far this leader's subscribers are, at most once in `pause` seconds. What is lost is made good by the next."""
        now = time.monotonic()
        with self._lock:
            if now - self._told_at < pause or self._closed:
                return
            self._told_at = now
        topology = self.topology
        others = [address for member, address in topology.grpc_addr.items() if member != self._node_id]
        for node_id, topic, seq in subscriptions.take_moved():
            for address in others:
                self._client.ack(address, node_id, topic, seq, TELL_TIMEOUT)

    def tidy(self, room: Replication) -> None:
        """Every few seconds."""
        room.subscriptions.tidy()
        self._tell_subscribers(room.subscriptions, 0.0)


class _Served:
    """A follower's stream as the node service takes it."""

    def __init__(self, source: FollowSource) -> None:
        self._source = source

    def take(self, timeout: float) -> Sequence[Batch] | None:
        return next(self._source, None)

    def close(self) -> None:
        self._source.close()


class _FollowLink:
    """The stream of a member that is no Raft server."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires

    def open(
        self,
        leader_id: str,
        cursors: dict[str, int],
        on_batches: Callable[[list[StoredBatch]], object],
        on_closed: Callable[[Exception | None], object],
    ) -> Any:
        address = self._wires.address_of(leader_id)
        if not address:
            return None

        def came(batches: list[Batch]) -> None:
            on_batches([StoredBatch(*batch) for batch in batches])

        def ended(error: Exception | None) -> None:
            on_closed(error)

        try:
            return self._wires.client.follow(address, cursors, came, ended)
        except CoterieError:
            return None
