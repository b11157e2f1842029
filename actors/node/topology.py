"""Whom to talk to: one small picture of the cluster, made from what Raft knows and what gossip tells. Pure.

Raft tells its servers who leads. A member that is no Raft server hears it in gossip: the leader puts its role and term into its metadata, and the highest
term wins. Addresses always come from gossip, since they may change while an id stays.

`Picture` is what the supervisor keeps of it, and what its desks (requests, status) look at: the latest views, and the topology last made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from coterie.actors.messages import RosterMember
from coterie.actors.room_messages import MembershipView, PeerView, RaftView, Topology
from coterie.transport.addresses import Address, host_of, parse_address
from coterie.transport.errors import AddressError

META_MGMT = "mgmt"
META_GRPC = "grpc"
META_HTTP = "http"
META_RAFT = "raft"
META_LEADS = "leads"  # the term this member leads in; only a leader has it
META_DIRECTORY = "dir"  # which data directory stands behind it
META_CLUSTER = "cluster"  # whose log it has: NO_CLUSTER, SOME_CLUSTER, or the cluster's id
META_WANTS = "wants"  # it asks for a place in the quorum, with a token drawn at its start
META_EXPECT = "expect"  # how many nodes it waits for to form a cluster
META_FOUNDER = "founder"  # whom it lets form the cluster
NO_CLUSTER = "new"
SOME_CLUSTER = "?"
# What changes with the life of a node or of the cluster, and has no place in the roster.
PASSING = frozenset({META_LEADS, META_DIRECTORY, META_CLUSTER, META_WANTS, META_EXPECT, META_FOUNDER})
LIVE = ("alive", "suspect")


def topology(me: str, raft: RaftView, membership: MembershipView, told: tuple[int, str] = (0, ""), stalled: bool = False) -> Topology:
    """stalled: this node's Raft server stands still, so that it can only hear in gossip who leads meanwhile. told: (term, leader) as a member of go-cluster said
    when it was asked; for a node that is no Raft server, and where gossip knows no newer leader."""
    live = {member.id: member.meta for member in membership.members if member.state in LIVE or member.id == me}
    servers = {server.id for server in raft.servers}
    term, leader = raft.term, raft.leader_id
    if stalled:
        claimed, claimant = leader_by_gossip({name: meta for name, meta in live.items() if name != me})
        if claimed > term:
            term, leader = claimed, claimant
    elif me not in servers:
        claimed, claimant = leader_by_gossip(live)
        if claimed >= term:
            term, leader = claimed, claimant
        if told[0] > claimed and told[0] >= term and told[1] in live and told[1] != me:
            term, leader = told
    # Whom Raft follows lives, also while gossip still has it for dead, as after a cut of some seconds: its addresses are needed now, to pass publishes on.
    near = live | {m.id: m.meta for m in membership.members if m.id == leader and m.state != "left"}
    return Topology(
        term=term,
        leader_id=leader,
        leads=raft.role == "leader" and raft.ready,
        in_quorum=me in servers,
        grpc_addr={name: meta[META_GRPC] for name, meta in near.items() if META_GRPC in meta},
        mgmt_addr={m.id: _dialable(m.meta[META_MGMT], m.addr) for m in membership.members if m.id in near and META_MGMT in m.meta},
        live=frozenset(live) | {me},
        silent=raft.silent,
        foreign=frozenset(name for name, meta in live.items() if is_foreign(meta)),
        voters=tuple(_voter(server, membership) for server in raft.servers if server.suffrage == "voter"),
        makes={m.id: META_GRPC in m.meta for m in membership.members if m.state != "left" and (META_GRPC in m.meta or is_foreign(m.meta))},
    )


def _dialable(address: str, gossip: str) -> str:
    """A node of go-cluster tells the address it was configured with, which may be `:17946`: then the host is where its gossip comes from."""
    try:
        told = parse_address(address)
        return str(Address(parse_address(gossip).host, told.port)) if told.everywhere else address
    except AddressError:
        return address


def members_by_host(membership: MembershipView) -> Counter[str]:
    """How many members gossip knows at each host, by all addresses that they tell: a connection may come from any of them."""
    hosts: Counter[str] = Counter()
    for member in membership.members:
        if member.state != "left":
            told = (member.addr, *(member.meta.get(key, "") for key in (META_GRPC, META_RAFT)))
            hosts.update({host_of(address) for address in told if address})
    return hosts


def is_foreign(meta: Mapping[str, str]) -> bool:
    """Is it a node of go-cluster that gossips this metadata?"""
    return META_MGMT in meta and META_GRPC not in meta


def _voter(server: PeerView, membership: MembershipView) -> RosterMember:
    """Without what is passing: the roster is about who belongs to the cluster, and must not be written anew at each election, or start of a node."""
    known = next((member for member in membership.members if member.id == server.id and member.state in LIVE), None)
    if known is None:
        return RosterMember(server.id, server.address, None)
    return RosterMember(server.id, known.addr, {key: value for key, value in known.meta.items() if key not in PASSING})


class Picture:
    """The latest view of Raft and of gossip, and the `Topology` that was last made of them and told. Of one thread, the supervisor's. `me`: this node's id."""

    __slots__ = ("me", "membership", "raft", "stalled", "told", "topology")

    def __init__(self, me: str) -> None:
        self.me = me
        self.raft = RaftView()
        self.membership = MembershipView()
        self.topology = Topology()
        self.told = (0, "")
        self.stalled = False

    def look(self) -> Topology:
        """The topology as the views have it now; whoever tells it puts it into `topology`."""
        return topology(self.me, self.raft, self.membership, self.told, self.stalled)

    def mgmt_of(self, member: str) -> str:
        """The management address of a member, "" if unknown: as last told, else as gossip has it by now."""
        return self.topology.mgmt_addr.get(member, "") or self.look().mgmt_addr.get(member, "")


def leader_by_gossip(live: dict[str, dict[str, str]]) -> tuple[int, str]:
    """(term, id) of the member that says it leads in the highest term; (0, "") when nobody does."""
    claims = [(int(meta[META_LEADS]), name) for name, meta in live.items() if meta.get(META_LEADS, "").isdecimal()]
    return max(claims, default=(0, ""))


def own_meta(addresses: Mapping[str, str], leads_in: int | None) -> dict[str, str]:
    """The metadata this node gossips. addresses: mgmt, http, grpc and raft, each host:port as others dial it."""
    meta = {META_MGMT: addresses["mgmt"], META_GRPC: addresses["grpc"], META_RAFT: addresses["raft"]}
    if addresses["http"] != addresses["mgmt"]:  # gRPC sits on the management address: say where HTTP is
        meta[META_HTTP] = addresses["http"]
    if leads_in is not None:
        meta[META_LEADS] = str(leads_in)
    return meta
