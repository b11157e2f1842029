"""What the rooms' views show: Raft, gossip, replication and the rooms' counters as they were last told, made into metrics when somebody looks.

A view is immutable and replaced as a whole, so collecting needs no lock and asks nobody; and what is not in the view any more (a peer that went, all peers when
leadership moved) is not in the metrics either. The rooms count since they started: a room that crashed and started afresh counts from 0 again, which a
scraper understands.

In the counters of a room a name that ends in ` now` is a level, not a count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coterie.actors.room_messages import MembershipView, RaftView

__all__ = ["Views", "packets_dropped"]

ROLES: Final = ("follower", "pre-candidate", "candidate", "leader")
STATES: Final = ("alive", "suspect", "failed", "left")
LEVEL: Final = " now"
HEALTH: Final = "health"  # a level of the gossip room with a metric of its own

Rows = Iterable[tuple[tuple[str, ...], float]]


class Views(Collector):
    """`me`: this node's id. Any thread replaces a view, any thread collects."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.raft = RaftView()
        self.membership = MembershipView()
        self.applied_index = self.waiting = 0
        self.rooms: dict[str, Mapping[str, int]] = {}
        self.events_missed = 0
        self.log_records_dropped = 0

    def collect(self) -> Iterable[Metric]:
        yield from self._raft()
        yield from self._gossip()
        yield from self._replication()
        yield from self._rooms()

    def _raft(self) -> Iterable[Metric]:
        raft = self.raft
        role = raft.role if raft.servers else "none"
        yield _gauge("coterie_raft_role", "1 for the role of this node's Raft server", ("role",), (((r,), r == role) for r in ROLES))
        yield _gauge("coterie_raft_commit_index", "Last log index that a quorum has", (), [((), raft.commit_index)])
        yield _gauge("coterie_raft_last_index", "Last log index on this node's disk", (), [((), raft.last_index)])
        peers = [server for server in raft.servers if server.id != self._me] if raft.role == "leader" else []
        yield _gauge(
            "coterie_raft_peer_lag",
            "Log entries that a Raft server is not known to have, on the leader",
            ("node",),
            (((p.id,), max(0, raft.last_index - p.match_index)) for p in peers if p.match_index is not None),
        )
        yield _gauge(
            "coterie_raft_peer_last_contact_seconds",
            "Since the latest answered request to a Raft server, on the leader",
            ("node",),
            (((p.id,), max(0.0, p.last_contact)) for p in peers if p.last_contact is not None),
        )

    def _gossip(self) -> Iterable[Metric]:
        members, counters = self.membership.members, self.membership.counters

        def counter(name: str, text: str, what: str) -> Metric:
            return _counter(f"coterie_gossip_{name}", text, (), [((), counters.get(what, 0))])

        yield _gauge("coterie_gossip_health_score", "Lifeguard's score of this node itself: 0 is well", (), [((), counters.get(HEALTH, 0))])
        states = (((state,), sum(member.state == state for member in members)) for state in STATES)
        yield _gauge("coterie_gossip_members", "Members as gossip knows them, this node among them", ("state",), states)
        yield counter("probes_failed", "Probes of a member that nothing confirmed", "probe_failed")
        yield counter("suspicions", "Members that came under suspicion", "suspected")
        yield counter("refutations", "Untrue words about this node that it refuted", "refuted")
        packets = [(("received",), counters.get("packets received", 0)), (("sent",), counters.get("packets sent", 0))]
        yield _counter("coterie_gossip_packets", "Packets of gossip", ("direction",), packets)
        dropped = packets_dropped(counters)
        yield _counter(
            "coterie_gossip_packets_dropped", "Packets of gossip that came to nothing", ("reason",), (((r,), n) for r, n in dropped.items())
        )

    def _replication(self) -> Iterable[Metric]:
        yield _gauge("coterie_applied_index", "Last log index in this node's state machine", (), [((), self.applied_index)])
        yield _gauge("coterie_publish_waiting_records", "Publishes that wait for a leader or for room", (), [((), self.waiting)])
        yield _counter("coterie_events_missed", "Events that slow listeners have lost", (), [((), self.events_missed)])
        yield _counter(
            "coterie_log_records_dropped", "Log records of this process that its sink did not take", (), [((), self.log_records_dropped)]
        )

    def _rooms(self) -> Iterable[Metric]:
        rows = [((room, what), count) for room, counters in tuple(self.rooms.items()) for what, count in counters.items() if what != HEALTH]
        counts = ((labels, count) for labels, count in rows if not labels[1].endswith(LEVEL))
        yield _counter("coterie_room_events", "Counters of the node's rooms, by room and name", ("room", "what"), counts)
        levels = (((room, what.removesuffix(LEVEL)), count) for (room, what), count in rows if what.endswith(LEVEL))
        yield _gauge("coterie_room_level", "What a room holds at present, by room and name", ("room", "what"), levels)


def packets_dropped(counters: Mapping[str, int]) -> dict[str, int]:
    """reason -> packets, out of the gossip room's counters. What the codec refuses is there from the start, so that an alert sees the first one."""
    dropped = {"undecodable": 0, "undecodable part": 0, "inbox full": counters.get("inbox_full", 0)}
    for name, count in counters.items():
        for prefix, reason in (("packets dropped", "undecodable"), ("packet parts dropped", "undecodable part"), ("packets not sent", "")):
            if name.startswith(prefix):
                detail = name.removeprefix(prefix).lstrip(": ")
                key = f"not sent: {detail}" if not reason else detail or reason
                dropped[key] = dropped.get(key, 0) + count
    return dropped


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
