"""Who is asked for the status of the cluster, and how the answers come together; `status.py` says what they mean.

The leader alone hears every server, so a follower asks it, for at most `STATUS_PATIENCE` seconds, and gives its own view with a warning if no answer comes: a
status that fails when the cluster is ill would be of no use. The question that a leader gets from a follower is for its local view, so it never travels on. A
node that has failed, knows no leader, or is asked for its own view asks only its own rooms. A room that is stopped leaves its part out, as does one that does not
answer within `ROOM_PATIENCE` (Raft waits for its disk, say), and what the supervisor last heard of it stands in.

Runs in the supervisor's thread; answers come back to it by `post`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import attrs

from coterie.actors.event_bus import MISSED
from coterie.actors.future import LightFuture, gather
from coterie.actors.messages import ClusterStatus, Status
from coterie.actors.node.assembly import Rooms
from coterie.actors.node.lately import Lately
from coterie.actors.node.status import combine
from coterie.actors.node.topology import Picture
from coterie.actors.replication.requests import check_timeout
from coterie.actors.room_messages import GetMembership, GetRaftView, GetReplicationView, RaftView, ReplicationView
from coterie.actors.tracing import TRACING
from coterie.transport import logs

STATUS_PATIENCE = 2.0  # seconds a follower waits for its leader's view
MOST_TOPICS = 10_000  # in a status; more would hold up the publisher, and make a document that nobody reads
ROOM_PATIENCE = 1.0  # seconds for this node's own rooms


class StatusDesk:
    """See the module's text. notes: warnings of the node itself, by whom they are about, as the supervisor keeps them; disks: those of its disks; lately: what
    happened to it."""

    def __init__(
        self,
        rooms: Rooms,
        picture: Picture,
        notes: dict[str, str],
        disks: Mapping[str, str],
        lately: Lately,
        post: Callable[[Callable[[], None]], object],
    ) -> None:
        self._rooms, self._picture, self._notes, self._disks, self._post = rooms, picture, notes, disks, post
        self._lately = lately
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()  # answers that are due by then, whoever has not spoken

    def next_time(self) -> float | None:
        """When `expire` is wanted."""
        return self._waiting[0][0] if self._waiting else None

    def expire(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1]()

    def look(self, now: float) -> list[str]:
        """-> what to warn of that happened to this node lately. Called every few seconds too, so that it is known when a count has grown."""
        lately, me = self._lately, self._picture.me
        lately.counted(
            "log records",
            logs.backlog.dropped,
            f"log records were dropped on {me}: a log sink of this process blocks, or is slower than what is logged",
            now,
        )
        lately.counted(
            "spans",
            TRACING.ends.dropped,
            f"spans were dropped on {me}: a span processor of this process blocks; use a BatchSpanProcessor",
            now,
        )
        return lately.warnings(now)

    def answer(self, message: Status, reply: LightFuture, failed: bool) -> None:
        """`reply` gets a ClusterStatus. failed: this node serves no more. Raises InvalidRequest."""
        topology = self._picture.topology
        leader, address = topology.leader_id, topology.grpc_addr.get(topology.leader_id, "")
        if message.local or leader in ("", self._picture.me) or not address or failed:
            self._local(reply.set)
            return
        patience = min(STATUS_PATIENCE, check_timeout(message.timeout, self._rooms.config.request_timeout))
        asked = self._rooms.client.status(address, patience)

        def answered() -> None:
            if asked.error is None:
                self._with_own(asked.get(timeout=0), reply)
            else:
                self._local(reply.set, f"the leader {leader} at {address} did not answer ({asked.error}); this is this node's own view")

        asked.on_done(lambda: self._post(answered))

    def _with_own(self, status: ClusterStatus, reply: LightFuture) -> None:
        """The leader's view and, beside it, what the leader cannot know of this node, which was asked: how it finds others, what is wrong with its certificates,
        and what its handler fails on."""
        asked = self._rooms.publisher.ask(GetReplicationView(most=0), block=False)

        def complete() -> None:
            own, membership = asked.get(timeout=0) if asked.error is None else ReplicationView(), self._picture.membership
            lately = self.look(time.monotonic())
            warnings = (*status.warnings, *self._disks.values(), *lately, *membership.discovery, *self._rooms.tls_warnings(), *own.warnings)
            reply.set(attrs.evolve(status, seeds=membership.seeds, failing=status.failing + own.failing, warnings=warnings))

        asked.on_done(lambda: self._post(complete))

    def _local(self, give: Callable[[ClusterStatus], None], note: str = "") -> None:
        rooms, picture = self._rooms, self._picture
        asks = [
            rooms.raft.ask(GetRaftView(), block=False),
            rooms.membership.ask(GetMembership(), block=False),
            rooms.publisher.ask(GetReplicationView(MOST_TOPICS), block=False),
            rooms.events.ask("missed", block=False),
        ]

        given = False

        def all_there() -> None:
            nonlocal given
            if given:
                return
            given = True
            raft, membership, replication, missed = (ask.get(timeout=0) if ask.done and ask.error is None else None for ask in asks)
            if raft is None:
                raft = picture.raft if not asks[0].done else RaftView(term=picture.raft.term, servers=picture.raft.servers)
            if picture.stalled or not picture.topology.in_quorum:  # such a member knows its leader from gossip
                raft = attrs.evolve(raft, term=picture.topology.term, leader_id=picture.topology.leader_id)
            lately = self.look(time.monotonic())
            status = combine(
                picture.me,
                raft,
                membership or picture.membership,
                replication or ReplicationView(),
                picture.topology.mgmt_addr,
                (*self._notes.values(), *self._disks.values(), *([note] if note else []), *lately, *rooms.tls_warnings()),
                rooms.management_counters(),
                {MISSED: missed or 0},
            )
            give(status)

        gather(asks, lambda: self._post(all_there))
        self._waiting.append((time.monotonic() + ROOM_PATIENCE, all_there))
