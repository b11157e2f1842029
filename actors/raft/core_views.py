"""What one may look at of a `RaftCore` without changing it: for the shell, the status, and the tests."""

from __future__ import annotations

from coterie.actors.raft import replication
from coterie.actors.raft.applying import Handout
from coterie.actors.raft.log import Doubt
from coterie.actors.raft.node import Node, Role
from coterie.actors.raft.progress import PeerView
from coterie.proto.raft_messages import Configuration, Server


class CoreViews:
    """The half of `RaftCore` that only reads."""

    _node: Node
    _handout: Handout

    @property
    def me(self) -> str:
        return self._node.me.id

    @property
    def role(self) -> Role:
        return self._node.role

    @property
    def term(self) -> int:
        return self._node.term

    @property
    def voted_for(self) -> str:
        return self._node.voted_for

    @property
    def leader(self) -> Server | None:
        return self._node.leader

    @property
    def commit(self) -> int:
        return self._node.commit

    @property
    def applied(self) -> int:
        return self._handout.applied

    @property
    def handed(self) -> int:
        """How far committed entries were given out to be applied; those above are still to be read from the log."""
        return self._handout.handed

    @property
    def last_index(self) -> int:
        return self._node.log.last_index

    def has_entry(self, index: int, term: int) -> bool:
        """Is that entry in the log, or the one that it begins behind?"""
        return self._node.log.matches(index, term)

    @property
    def last_term(self) -> int:
        return self._node.log.last_term

    @property
    def log_bytes(self) -> int:
        """Bytes that came into the log since the start; see `LogCache.total_bytes`."""
        return self._node.log.total_bytes

    @property
    def stored_index(self) -> int:
        return self._node.log.stored_index

    @property
    def configuration(self) -> Configuration:
        return self._node.configuration

    @property
    def configuration_index(self) -> int:
        return self._node.configurations.index

    @property
    def configuration_is_news(self) -> bool:
        """It was made while this server ran: its entry is above where the log of the first leader ended that spoke to it in this life."""
        return self._node.configurations.index > self._node.leader_reached

    @property
    def serving(self) -> bool:
        """It leads, and an entry of this leadership is committed: what it has applied then includes all that earlier leaders acknowledged."""
        node = self._node
        return node.role is Role.LEADER and node.commit >= node.first_of_leadership

    def pending(self) -> list[object]:
        """Contexts of proposals of this leadership that are not handed out as committed, for a shell that stops."""
        return [context for context in self._node.contexts if context is not None]

    def reading(self) -> list[object]:
        """Contexts of reads that have no answer yet, for a shell that stops."""
        reads = self._node.reads
        return [*reads.asked, *reads.waiting]

    @property
    def doubt(self) -> Doubt | None:
        """What its log has lost and it has not caught up with: it does not vote meanwhile."""
        return self._node.doubt

    @property
    def transferring(self) -> bool:
        return self._node.transfer is not None

    def counters(self) -> dict[str, int]:
        """What was dropped or refused, by reason."""
        return dict(self._node.counters)

    def lease_valid(self, now: float) -> bool:
        """Did a quorum follow this leader within the lease? For status and for giving up; the lease that answers reads is a shorter one (`reads`), since a
        follower whose connection to the leader broke may vote for another before this one ends."""
        node = self._node
        if node.role is not Role.LEADER:
            return False
        node.now = max(node.now, now)
        return now - replication.quorum_contact(node) < node.settings.lease_timeout

    def silent(self, now: float) -> frozenset[str]:
        """Of a leader: peers that are not connected, or have answered nothing that was sent within the lease."""
        node = self._node
        if node.role is not Role.LEADER:
            return frozenset()
        since = now - node.settings.lease_timeout
        return frozenset(peer for peer, progress in node.progress.items() if not progress.connected or progress.contact < since)

    def progress(self) -> tuple[PeerView, ...]:
        """Of a leader: its followers, also those on their way out."""
        return tuple(progress.view() for progress in self._node.progress.values())

    def servers(self) -> tuple[Server, ...]:
        """Those of the configuration in force; of a leader also who was removed till it knows."""
        node = self._node
        return (*node.configuration.servers, *(Server(p.peer, p.address) for p in node.progress.values() if p.removal_index))

    def peers(self) -> tuple[Server, ...]:
        """Who must be dialled: by a leader everybody, and who was removed till it knows; by another voter the voters."""
        node = self._node
        if node.role is Role.LEADER:
            present = [server for server in node.configuration.servers if server.id != node.me.id]
            return (*present, *(Server(p.peer, p.address) for p in node.progress.values() if p.removal_index))
        return tuple(node.other_voters()) if node.is_voter else ()
