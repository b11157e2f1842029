"""Prometheus metrics of one node, in a registry of its own: several nodes of one process do not mix, nor with what the host application registers.

The `go_cluster_*` names, types and labels are a contract: dashboards and alert rules written for go-cluster read them. Ours begin with `coterie_`; what the
operating system knows of the process has the names that every client library gives it (`process_*`).

Values are pushed in by who knows them, per batch or per change (`replication.py`), or stand in a view that a room has told (`views.py`), or are read in passing
(`inboxes.py`). Collecting asks nobody and takes no lock of an actor. What is labelled with a node is removed when the node goes. A topic's labels stay:
topics are never deleted; how many have labels is bounded (`labels.py`).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from coterie.actors.observability.exposition import exposition
from coterie.actors.observability.inboxes import Inboxes
from coterie.actors.observability.labels import MOST_TOPICS
from coterie.actors.observability.replication import LATENCY_BUCKETS, ReplicationSeries
from coterie.actors.observability.views import Views
from coterie.actors.raft_report import DiskTimes
from coterie.actors.room_messages import MembershipView, RaftView, ReplicationView

__all__ = ["SAMPLE_EVERY", "ChannelMetrics", "Metrics"]

JOIN_RESULTS: Final = ("accepted", "rejected")
SAMPLE_EVERY: Final = 1.0  # seconds between samples of the inboxes


class Metrics(ReplicationSeries):
    """All metrics of the node `node_id`; any thread may call any method, and none blocks or raises. version: of this package. topics: how many have series
    of their own."""

    def __init__(self, node_id: str = "", version: str = "", topics: int = MOST_TOPICS) -> None:
        self.node_id = node_id
        self.registry = CollectorRegistry()
        super().__init__(self.registry, topics)
        self.channels = ChannelMetrics(self.registry)
        self.inboxes = Inboxes("supervisor", SAMPLE_EVERY)
        self._cluster_metrics()
        self._own_metrics(version)
        self._views = Views(node_id)
        self.registry.register(self._views)
        self.registry.register(self.inboxes)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """The body of GET /metrics, in the plain text format (0.0.4)."""
        self.settle()
        return exposition(self.registry)

    def _cluster_metrics(self) -> None:
        registry = self.registry
        self._members = Gauge("go_cluster_members_total", "Known members of the cluster that live", registry=registry)
        self._is_leader = Gauge("go_cluster_is_leader", "1 when this node leads, else 0", registry=registry)
        self._leader_changes = Counter("go_cluster_leader_changes_total", "Changes of the leader, as this node saw them", registry=registry)
        self._joins = Counter("go_cluster_join_requests_total", "Join requests that this node answered", ["result"], registry=registry)
        for result in JOIN_RESULTS:
            self._joins.labels(result)

    def _own_metrics(self, version: str) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"coterie_{name}", text, labels, registry=self.registry)

        build = gauge("build_info", "1; the versions that run", "version", "python")
        build.labels(version, platform.python_version()).set(1)
        self._failed = gauge("failed", "1 when this node has failed and serves no more")
        self._leader_known = gauge("leader_known", "1 when this node knows who leads")
        self._in_quorum = gauge("in_quorum", "1 when this node is a Raft server of the cluster")
        self._voters = gauge("voters", "Voters in the quorum's configuration, as this node knows it; 0 outside of the quorum")
        self._voters_live = gauge("voters_live", "Voters that live, as this node sees them")
        self._term = gauge("term", "Current term")
        self._elections = Counter("coterie_elections_total", "Elections that this node started", registry=self.registry)
        self._restarts = Counter(
            "coterie_actor_restarts_total", "Actors that crashed and started afresh", ["concern"], registry=self.registry
        )
        self._fsync_seconds = Histogram(
            "coterie_fsync_seconds", "One synced transaction of the Raft log", buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._map_bytes = gauge("storage_map_bytes", "Address space of an LMDB file", "store")
        self._used_bytes = gauge("storage_used_bytes", "Pages of an LMDB file, free ones included", "store")
        self._disk_bytes = gauge("storage_disk_bytes", "Size of the file system that a store is on", "store")
        self._disk_free_bytes = gauge("storage_disk_free_bytes", "What is left on the file system that a store is on", "store")
        self._stalled = gauge(
            "storage_stalled_seconds", "How long a write has waited for a disk that does not answer; 0 while it answers", "store"
        )
        self._certificates = gauge(
            "tls_certificate_expiry_timestamp_seconds", "When a certificate in use ends, seconds since the epoch", "certificate"
        )

    # -- the cluster ----------------------------------------------------------------------------------------------------------

    def members(self, n: int) -> None:
        """Members that live, this node among them."""
        self._members.set(n)

    def leader(self, is_me: bool, known: bool | None = None) -> None:
        """Whether this node leads, and whether it knows who does (None: as the first says)."""
        self._is_leader.set(1 if is_me else 0)
        self._leader_known.set(1 if is_me or known else 0)
        self.leading(is_me)

    def leader_changed(self) -> None:
        self._leader_changes.inc()

    def quorum(self, member: bool, voters: int, live: int) -> None:
        """member: this node is in it. voters: in the configuration that this node knows; live: of them, as it sees them."""
        self._in_quorum.set(1 if member else 0)
        self._voters.set(voters)
        self._voters_live.set(live)

    def join_request(self, result: str) -> None:
        """result: "accepted" or "rejected"."""
        self._joins.labels(result).inc()

    def election_started(self) -> None:
        self._elections.inc()

    def term(self, term: int) -> None:
        self._term.set(term)

    def failed(self) -> None:
        """This node serves no more."""
        self._failed.set(1)

    def actor_restarted(self, concern: str) -> None:
        self._restarts.labels(concern).inc()

    # -- what the rooms show --------------------------------------------------------------------------------------------------

    def raft(self, view: RaftView) -> None:
        self._views.raft = view
        self.room_counters("raft", view.counters)

    def membership(self, view: MembershipView) -> None:
        self._views.membership = view
        self.room_counters("gossip", view.counters)

    def replication(self, view: ReplicationView) -> None:
        self._views.applied_index, self._views.waiting = view.applied_index, view.waiting
        self.room_counters("replication", view.counters)

    def room_counters(self, room: str, counters: Mapping[str, int]) -> None:
        """The counters of a room, as they stand: shown as `coterie_room_events_total{room, what}`, under the names that the status has."""
        self._views.rooms[room] = {what.removeprefix(room + " "): count for what, count in counters.items()}

    def events_missed(self, n: int) -> None:
        """Events that slow listeners have lost since the start."""
        self._views.events_missed = n

    def log_records_dropped(self, n: int) -> None:
        """Log records lost since the start of the process."""
        self._views.log_records_dropped = n

    # -- the machine ----------------------------------------------------------------------------------------------------------

    def disk_times(self) -> DiskTimes:
        """Of the transactions of the Raft log: bounds are those of the histogram's buckets."""
        samples = [sample for family in self._fsync_seconds.collect() for sample in family.samples]
        count = next(sample.value for sample in samples if sample.name.endswith("_count"))
        total = next(sample.value for sample in samples if sample.name.endswith("_sum"))
        bounds = [(float(sample.labels["le"]), sample.value) for sample in samples if sample.name.endswith("_bucket")]
        if not count:
            return DiskTimes()
        median, p99 = (next(bound for bound, below in bounds if below >= share * count) for share in (0.5, 0.99))
        return DiskTimes(int(count), total / count, median, p99)

    def fsync_seconds(self, seconds: float) -> None:
        """One transaction of the Raft log took this long."""
        self._fsync_seconds.observe(seconds)

    def storage(self, store: str, map_bytes: int, used_bytes: int) -> None:
        """store: raft or buffer. map_bytes: address space reserved; used_bytes: of the file, pages that are free to be used again included."""
        self._map_bytes.labels(store).set(map_bytes)
        self._used_bytes.labels(store).set(used_bytes)

    def disk(self, store: str, total_bytes: int, free_bytes: int) -> None:
        """The file system that a store is on; free: to a process without privileges."""
        self._disk_bytes.labels(store).set(total_bytes)
        self._disk_free_bytes.labels(store).set(free_bytes)

    def stalled(self, store: str, seconds: float) -> None:
        """The disk of a store has not answered for so long; 0.0: it answers."""
        self._stalled.labels(store).set(seconds)

    def certificate(self, name: str, ends: float) -> None:
        """name: what the certificate is for, as an operator knows it (`node`, `ca`); ends: its last moment, seconds since the epoch."""
        self._certificates.labels(name).set(ends)


class ChannelMetrics:
    """What the pool of gRPC channels tells (its port `ChannelObserver`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open: dict[object, int] = {}  # channels by pool
        self._dials = Counter("go_cluster_grpc_conn_dials_total", "gRPC channels made", registry=registry)
        self._reuse = Counter("go_cluster_grpc_conn_reuse_total", "Calls that found their channel made", registry=registry)
        self._evictions = Counter(
            "go_cluster_grpc_conn_evictions_total", "gRPC channels closed because nobody used them", registry=registry
        )
        self._active = Gauge("go_cluster_grpc_conn_active", "gRPC channels that are open", registry=registry)

    def dialled(self) -> None:
        self._dials.inc()

    def reused(self) -> None:
        self._reuse.inc()

    def evicted(self) -> None:
        self._evictions.inc()

    def active(self, channels: int, pool: object = None) -> None:
        self._open[pool] = channels
        self._active.set(sum(self._open.values()))

    def beside(self) -> _Beside:
        """An observer for a second pool, counted together with the first."""
        return _Beside(self)


class _Beside:
    def __init__(self, first: ChannelMetrics) -> None:
        self.dialled, self.reused, self.evicted, self._active = first.dialled, first.reused, first.evicted, first.active

    def active(self, channels: int) -> None:
        self._active(channels, self)
