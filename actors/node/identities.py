"""Which data directory stands behind each id of the quorum, and where gossip says that a server is now. Pure.

A server of the quorum is known by its id, and found at the Raft address that the configuration has. When it moves, gossip says so: its metadata has its Raft
address. Whoever gossips may say any id, so what is said is believed as far as it can be checked:

- The metadata also names the **data directory** (a part of its random `incarnation_id`). A node remembers, durably, which one it saw for each server. Another
  directory under the same id is another server with an empty or a foreign memory of its votes, and is not followed. At the address where it was joined it is
  what answers, and counts: it may have left and joined again while this node was away. That it is another one stands in the status.
- Whoever is dialled at such an address must answer with the id (`transport/raft_client`), and is asked for it again before the configuration changes.

The directory's name is no secret. This keeps accidents out, not forgers: those are for `gossip_key` and mutual TLS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coterie.actors.node.topology import LIVE, META_CLUSTER, META_DIRECTORY, META_RAFT, NO_CLUSTER, SOME_CLUSTER
from coterie.actors.room_messages import Member, PeerView
from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError


class Identities:
    """`known`: the data directory of each server, by id. me: this node's id."""

    def __init__(self, me: str, known: Mapping[str, str]) -> None:
        self._me = me
        self.known = dict(known)
        self._before: dict[str, str] = {}  # of servers that have another directory now: the one they had

    def look(self, servers: Iterable[PeerView], members: Iterable[Member]) -> bool:
        """Take in what is seen now. True when `known` changed. A server that is in no configuration any more is forgotten: it may come again as another one. Who is
        where the configuration has it is vouched for by whoever joined it there."""
        before = dict(self.known)
        addresses = {server.id: server.address for server in servers if server.id != self._me}
        if addresses:
            self.known = {server: directory for server, directory in before.items() if server in addresses}
            self._before = {server: directory for server, directory in self._before.items() if server in addresses}
        for member in members:
            directory = member.meta.get(META_DIRECTORY, "")
            if member.id not in addresses or member.state not in LIVE or not directory:
                continue
            if member.id not in self.known or member.meta.get(META_RAFT) == addresses[member.id]:
                self._note_change(member.id, directory)
                self.known[member.id] = directory
        return self.known != before

    def _note_change(self, server: str, directory: str) -> None:
        if self.known.get(server, directory) != directory:
            self._before.setdefault(server, self.known[server])
        if self._before.get(server) == directory:
            del self._before[server]  # it has its own one again

    def elsewhere(self, servers: Iterable[PeerView], members: Iterable[Member]) -> dict[str, str]:
        """Of each server that lives at another Raft address than the configuration says: that address."""
        told = {member.id: member for member in members if member.state in LIVE}
        found: dict[str, str] = {}
        for server in servers:
            member = told.get(server.id)
            if server.id == self._me or member is None or self._is_another(member):
                continue
            address = member.meta.get(META_RAFT, "")
            if address != server.address and _dialable(address):
                found[server.id] = address
        return found

    def warnings(self, servers: Iterable[PeerView], members: Iterable[Member]) -> list[str]:
        """Of ids behind which another server stands than before."""
        addresses = {server.id: server.address for server in servers if server.id != self._me}
        said = [
            f"{server} has another data directory than before: unless it left and joined again meanwhile, it was emptied and has forgotten its votes and what it "
            f"had acknowledged; let {server} leave and join again, better under a new id"
            for server in sorted(self._before)
        ]
        return said + [
            f"{member.id} at {member.addr} says it is the {member.id} of the quorum, with another data directory: it was emptied, or two nodes have one id; "
            f"it is not followed to its address {member.meta.get(META_RAFT, '')}; let {member.id} leave and join again"
            for member in members
            if member.id in addresses
            and member.state in LIVE
            and self._is_another(member)
            and member.meta.get(META_RAFT) != addresses[member.id]
        ]

    def _is_another(self, member: Member) -> bool:
        known, said = self.known.get(member.id, ""), member.meta.get(META_DIRECTORY, "")
        return bool(known) and said != known


def strangers(cluster: str, servers: Iterable[PeerView], members: Iterable[Member]) -> list[str]:
    """Warnings of members that have the log of another cluster than this node's, which has the id `cluster` ("" while it is not known)."""
    ours = {server.id for server in servers}
    return [
        f"{member.id} at {member.addr} is of another cluster ({other}, this one is {cluster}): was it started with bootstrap too? Nothing that is published "
        "there comes here; start it without bootstrap and with an empty data_dir, and join it"
        for member in members
        if cluster and member.state in LIVE and member.id not in ours
        if (other := member.meta.get(META_CLUSTER, "")) not in ("", NO_CLUSTER, SOME_CLUSTER, cluster)
    ]


def _dialable(text: str) -> bool:
    try:
        address = parse_address(text)
    except AddressError:
        return False
    return bool(address.port) and not address.everywhere
