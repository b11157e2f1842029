"""What is scraped: every name with its type and labels.

`CONTRACT` is what dashboards and alert rules made for go-cluster read; it never changes. `OURS` is what we add, and docs/monitoring.md and `deploy/` speak of.
"""

from __future__ import annotations

import queue
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from coterie.actors.future import LightFuture
from coterie.actors.observability.metrics import Metrics
from coterie.actors.room_messages import PeerView, RaftView

TOPIC = ("topic",)
NODE = ("node", "topic")
CONTRACT: dict[str, tuple[str, tuple[str, ...]]] = {
    "go_cluster_members_total": ("gauge", ()),
    "go_cluster_is_leader": ("gauge", ()),
    "go_cluster_leader_changes_total": ("counter", ()),
    "go_cluster_join_requests_total": ("counter", ("result",)),
    "go_cluster_grpc_conn_dials_total": ("counter", ()),
    "go_cluster_grpc_conn_reuse_total": ("counter", ()),
    "go_cluster_grpc_conn_evictions_total": ("counter", ()),
    "go_cluster_grpc_conn_active": ("gauge", ()),
    "go_cluster_repl_published_total": ("counter", TOPIC),
    "go_cluster_repl_broadcast_total": ("counter", TOPIC),
    "go_cluster_repl_acks_total": ("counter", TOPIC),
    "go_cluster_repl_seq": ("gauge", TOPIC),
    "go_cluster_repl_ack_seq": ("gauge", TOPIC),
    "go_cluster_repl_lag": ("gauge", TOPIC),
    "go_cluster_repl_subs": ("gauge", ()),
    "go_cluster_repl_acks_per_node_total": ("counter", NODE),
    "go_cluster_repl_ack_seq_per_node": ("gauge", NODE),
    "go_cluster_repl_lag_per_node": ("gauge", NODE),
}

Shape = tuple[str, tuple[str, ...]]
OURS: dict[str, Shape] = {
    "coterie_build_info": ("gauge", ("python", "version")),
    "coterie_failed": ("gauge", ()),
    "coterie_leader_known": ("gauge", ()),
    "coterie_in_quorum": ("gauge", ()),
    "coterie_voters": ("gauge", ()),
    "coterie_voters_live": ("gauge", ()),
    "coterie_term": ("gauge", ()),
    "coterie_elections_total": ("counter", ()),
    "coterie_raft_role": ("gauge", ("role",)),
    "coterie_raft_commit_index": ("gauge", ()),
    "coterie_raft_last_index": ("gauge", ()),
    "coterie_applied_index": ("gauge", ()),
    "coterie_raft_peer_lag": ("gauge", ("node",)),
    "coterie_raft_peer_last_contact_seconds": ("gauge", ("node",)),
    "coterie_commit_seconds": ("histogram", ()),
    "coterie_fsync_seconds": ("histogram", ()),
    "coterie_buffer_commit_seconds": ("histogram", ()),
    "coterie_buffer_batches_total": ("counter", ()),
    "coterie_storage_map_bytes": ("gauge", ("store",)),
    "coterie_storage_used_bytes": ("gauge", ("store",)),
    "coterie_storage_disk_bytes": ("gauge", ("store",)),
    "coterie_storage_disk_free_bytes": ("gauge", ("store",)),
    "coterie_storage_stalled_seconds": ("gauge", ("store",)),
    "coterie_publish_waiting_records": ("gauge", ()),
    "coterie_applied_total": ("counter", TOPIC),
    "coterie_topics_unlabelled": ("gauge", ()),
    "coterie_metrics_unshown_total": ("counter", ()),
    "coterie_dropped_total": ("counter", ("reason",)),
    "coterie_delivered_total": ("counter", TOPIC),
    "coterie_delivery_lag": ("gauge", TOPIC),
    "coterie_delivery_seconds": ("histogram", ()),
    "coterie_redelivered_total": ("counter", TOPIC),
    "coterie_dead_letters_total": ("counter", TOPIC),
    "coterie_events_missed_total": ("counter", ()),
    "coterie_gossip_health_score": ("gauge", ()),
    "coterie_gossip_members": ("gauge", ("state",)),
    "coterie_gossip_probes_failed_total": ("counter", ()),
    "coterie_gossip_suspicions_total": ("counter", ()),
    "coterie_gossip_refutations_total": ("counter", ()),
    "coterie_gossip_packets_total": ("counter", ("direction",)),
    "coterie_gossip_packets_dropped_total": ("counter", ("reason",)),
    "coterie_inbox_depth": ("gauge", ("concern",)),
    "coterie_inbox_age_seconds": ("gauge", ("concern",)),
    "coterie_actor_restarts_total": ("counter", ("concern",)),
    "coterie_tls_certificate_expiry_timestamp_seconds": ("gauge", ("certificate",)),
    "coterie_log_records_dropped_total": ("counter", ()),
    "coterie_room_events_total": ("counter", ("room", "what")),
    "coterie_room_level": ("gauge", ("room", "what")),
}
# What the client library says of the process, under its own names.
PROCESS: dict[str, Shape] = {
    "process_virtual_memory_bytes": ("gauge", ()),
    "process_resident_memory_bytes": ("gauge", ()),
    "process_start_time_seconds": ("gauge", ()),
    "process_cpu_seconds_total": ("counter", ()),
    "process_open_fds": ("gauge", ()),
    "process_max_fds": ("gauge", ()),
}


def shapes(text: str) -> dict[str, set[Shape]]:
    """{name: (type, labels) of every series}, of what a scraper reads; by the official parser. A histogram's series count as one, without their own label."""
    found: dict[str, set[Shape]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = family.name if family.type == "histogram" else sample.name
            found.setdefault(name, set()).add((family.type, tuple(sorted(set(sample.labels) - {"le"}))))
    return found


def declared(text: str) -> dict[str, str]:
    """{name: type} by the TYPE lines, which a metric without a series has, too."""
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE ")]
    return {name: kind for _, _, name, kind in lines}


class FakeActor:
    """As much of an actor's reference as the sampling needs."""

    def __init__(self, urn: str = "urn:1") -> None:
        self.actor_urn = urn
        self.actor_inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.asked: list[LightFuture] = []

    def ask(self, message: Any, *, block: bool) -> LightFuture:
        assert not block
        self.asked.append(LightFuture())
        return self.asked[-1]


def leading() -> Metrics:
    metrics = Metrics("n1")
    metrics.leader(True)
    metrics.subscribers(3)
    metrics.published("a/b", 10)
    metrics.seq("a/b", 10)
    for node, seq in (("n1", 10), ("n2", 8), ("n3", 4)):
        metrics.acked(node, "a/b", seq, seq)
        metrics.lag(node, "a/b", 10 - seq)
    return metrics


def full() -> Metrics:
    """Metrics that have at least one series of everything."""
    metrics = leading()
    servers = PeerView("n1", "a:1", "voter", 9), PeerView("n2", "b:1", "voter", 4, 0.25)
    metrics.raft(RaftView(role="leader", servers=servers, last_index=9, counters={"elections": 1, "server: connections now": 2}))
    metrics.position("a/b", 7)
    metrics.delivered("a/b", 7)
    metrics.redelivered("a/b", 1)
    metrics.dead_letter("a/b")
    metrics.dropped("no handler", 1)
    metrics.actor_restarted("events")
    metrics.storage("raft", 2, 1)
    metrics.disk("raft", 2, 1)
    metrics.stalled("raft", 0.0)
    metrics.certificate("node", 1.0)
    metrics.inboxes.look([("events", FakeActor())])
    return metrics
