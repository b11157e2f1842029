"""How the views of the rooms become one `ClusterStatus`. Pure: views in, status out.

The rows are the union of whom gossip knows and whom the quorum lists, so that a server nobody hears is a row and not a hole. Whether a voter lives is told
by the leader's own contact with it first, and by gossip where there is no leader to ask. A leader goes by what its leadership itself goes by: a voter whose
connection is gone, or that has answered nothing of what was sent within the lease, is not heard. (Seconds of patience lost: for so long after the death of a
leader all was said to be well.)
"""

from __future__ import annotations

from collections.abc import Mapping

from coterie.actors.messages import ClusterStatus, MemberStatus
from coterie.actors.node.topology import is_foreign
from coterie.actors.room_messages import Member, MembershipView, PeerView, RaftView, ReplicationView

# What rooms count of their ordinary work: in the metrics, but nothing of it was refused or lost.
ORDINARY = frozenset(
    f"{room}: {reason}"
    for room, reasons in {
        "raft": (
            "elections",
            "leaderships",
            "take-overs",
            "read_rounds",
            "reads_by_round",
            "reads_by_lease",
            "entries compacted",
            "followers_behind_the_log",
            "snapshots_sent",
            "snapshots_installed",
            "server: connections",
            "server: connections now",
            "server: requests",
            "server: half bytes now",
            "links: dials",
            "links: connections",
        ),
        "gossip": (
            "packets received",
            "packets sent",
            "streams",
            "streams now",
            "merged",
            "join_merged",
            "alive_old",
            "accusation_old",
            "refuted",
            "suspected",
            "forgotten",
            "health",
        ),
        "management": ("tls: reloads", "foreign records", "records sent again"),
    }.items()
    for reason in reasons
)


def combine(
    me: str,
    raft: RaftView,
    membership: MembershipView,
    replication: ReplicationView,
    mgmt_addr: Mapping[str, str],
    notes: tuple[str, ...] = (),
    management: Mapping[str, int] | None = None,
    events: Mapping[str, int] | None = None,
) -> ClusterStatus:
    """mgmt_addr: management address of each live member; notes: warnings of the node itself (a failed actor, a failing disk); management: what its
    servers have refused; events: what listeners have lost."""
    known = {member.id: member for member in membership.members}
    servers = {server.id: server for server in raft.servers}
    rows = tuple(
        _row(name, known.get(name), servers.get(name))
        for name in sorted(known.keys() | servers.keys())
        if _shown(known.get(name), name in servers)
    )
    voters, living = living_voters(me, raft, membership)
    needed = len(voters) // 2 + 1
    healthy = bool(raft.leader_id) and bool(voters) and len(living) >= needed
    return ClusterStatus(
        healthy=healthy,
        term=raft.term,
        leader_id=raft.leader_id,
        leader_addr=mgmt_addr.get(raft.leader_id, ""),
        members=rows,
        warnings=(
            *notes,
            *_warnings(raft, voters, living, needed, rows),
            *_foreign_leader(me, raft.leader_id, known.get(raft.leader_id)),
            *membership.warnings,
            *membership.discovery,
            *replication.warnings,
        ),
        answered_by=me,
        role=raft.role,
        commit_index=raft.commit_index,
        applied_index=replication.applied_index,
        last_index=raft.last_index,
        topics=replication.topics,
        topics_left_out=replication.left_out,
        dropped=_dropped(
            raft=raft.counters,
            gossip=membership.counters,
            replication=replication.counters,
            management=management or {},
            events=events or {},
        ),
        seeds=membership.seeds,
        roster=replication.roster,
        failing=replication.failing,
        dead_letters=replication.dead_letters,
    )


def living_voters(me: str, raft: RaftView, membership: MembershipView) -> tuple[list[PeerView], list[str]]:
    """The voters that `me` knows of, and the ids of those that live as it sees them."""
    known = {member.id: member for member in membership.members}
    voters = [server for server in raft.servers if server.suffrage == "voter"]
    return voters, [server.id for server in voters if _lives(server, known.get(server.id), me, raft)]


def _shown(member: Member | None, in_quorum: bool) -> bool:
    """Who left and is in no quorum any more is history."""
    return in_quorum or (member is not None and member.state != "left")


def _row(name: str, member: Member | None, server: PeerView | None) -> MemberStatus:
    return MemberStatus(
        id=name,
        addr=member.addr if member is not None else "",
        meta=member.meta if member is not None else {},
        state=member.state if member is not None else "unknown",
        suffrage=server.suffrage if server is not None else "none",
        raft_addr=server.address if server is not None else (member.meta.get("raft", "") if member is not None else ""),
        match_index=server.match_index if server is not None else None,
        last_contact=server.last_contact if server is not None else None,
    )


def _lives(server: PeerView, member: Member | None, me: str, raft: RaftView) -> bool:
    if server.id == me:
        return True
    if raft.role == "leader" and server.last_contact is not None:
        return server.id not in raft.silent
    return member is not None and member.state in ("alive", "suspect")


def _warnings(raft: RaftView, voters: list[PeerView], living: list[str], needed: int, rows: tuple[MemberStatus, ...]) -> list[str]:
    said: list[str] = []
    if not voters:
        said.append(
            "this node is in no quorum: join it (POST /join on the leader, or clusterctl join), or start the first node with bootstrap"
        )
    elif len(living) < needed:
        said.append(
            f"no quorum: {len(living)} of {len(voters)} voters live ({', '.join(living) or 'none'}), {needed} are needed; nothing can be written"
        )
    if voters and not raft.leader_id:
        said.append("no leader is known")
    dead = [server.id for server in voters if server.id not in living]
    if dead and len(living) >= needed:
        spare = len(living) - needed
        said.append(f"voters not heard: {', '.join(dead)}; " + (f"{spare} more may fail" if spare else "one more failure stops all writes"))
    if raft.in_doubt:
        said.append(
            "the Raft log of this node was damaged and has lost entries: it does not vote until it has caught up with a leader; if no leader is found since a "
            "quorum is in this state, see clusterctl check and clusterctl recover"
        )
    if raft.waits_for:
        said.append(raft.waits_for)
    for row in rows:
        if row.state == "failed" and row.suffrage == "none":
            said.append(f"member {row.id} at {row.addr} failed")
        elif row.suffrage == "learner":
            said.append(f"{row.id} is a learner: it has no vote until it has caught up and joined")
    return said


def _foreign_leader(me: str, leader: str, member: Member | None) -> list[str]:
    if leader == me or member is None or not is_foreign(member.meta):
        return []
    text = (
        f"a Go node leads: {leader}; publishes wait for a leader of coterie (a node takes over while some wait, unless take_over_from_go is off), and whom the "
        "gossip gives up, a Go leader removes from the quorum; what a Go leader publishes is on no quorum's disks, its sequence numbers begin again with each "
        "leader, records may come twice, or be lost with it, and they reach handlers here only where its management speaks gRPC (MgmtProto)"
    )
    return [text]


def _dropped(**rooms: Mapping[str, int]) -> dict[str, int]:
    """Every counter of the rooms that is not zero and tells of something refused, lost or not understood, under its room's name."""
    counts = {
        f"{room}: {reason.removeprefix(room + ' ')}": count
        for room, counters in rooms.items()
        for reason, count in counters.items()
        if count
    }
    return {reason: count for reason, count in counts.items() if reason not in ORDINARY}
