"""Prometheus metrics of one node, in a registry of its own: several nodes of one process do not mix, nor with what the host application registers.

The `go_cluster_*` names, types and labels are a contract: dashboards and alert rules written for go-cluster read them. Two of them are delicate with the Python
client: `go_cluster_members_total` is a gauge in spite of its name, which only the plain text format can say; and the client adds a `…_created` series to each
counter, which the contract does not have, so `text` leaves them out (the client's own switch for that is global to the process, and not ours to set).

Values are pushed in by who knows them, per batch or per change; collecting asks nobody and takes no lock of an actor. What is labelled with a node is
removed when the node goes. A topic's labels stay: topics are few, and are never deleted.

`go_cluster_repl_ack_seq` of a topic is the least that a member has acknowledged, and `go_cluster_repl_lag` the most that one is behind, as in go-cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["ChannelMetrics", "Metrics"]

LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
JOIN_RESULTS: Final = ("accepted", "rejected")


class Metrics:
    """All metrics of the node `node_id`; any thread may call any method, and none blocks or raises. Implements the port `ReplicationMetrics`."""

    def __init__(self, node_id: str = "") -> None:
        self.node_id = node_id
        self.registry = CollectorRegistry()
        self.channels = ChannelMetrics(self.registry)
        self._cluster_metrics()
        self._topic_metrics()
        self._own_metrics()
        self._snapshots = _Snapshots()
        self.registry.register(self._snapshots)
        self._lock = threading.Lock()
        self._leads = False
        self._subscribers = self._foreign = 0
        self._series: dict[tuple[Any, str], Any] = {}
        self._acked: dict[str, dict[str, int]] = {}  # topic -> node -> seq
        self._lag: dict[str, dict[str, int]] = {}

    def text(self) -> bytes:
        """The body of GET /metrics, in the plain text format (0.0.4)."""
        return generate_latest(_WithoutCreated(self.registry))

    def _cluster_metrics(self) -> None:
        registry = self.registry
        self._members = Gauge("go_cluster_members_total", "Known members of the cluster that live", registry=registry)
        self._is_leader = Gauge("go_cluster_is_leader", "1 when this node leads, else 0", registry=registry)
        self._leader_changes = Counter("go_cluster_leader_changes_total", "Changes of the leader, as this node saw them", registry=registry)
        self._joins = Counter("go_cluster_join_requests_total", "Join requests that this node answered", ["result"], registry=registry)
        for result in JOIN_RESULTS:
            self._joins.labels(result)

    def _topic_metrics(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"go_cluster_repl_{name}", text, ["topic", *labels], registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"go_cluster_repl_{name}", text, ["topic", *labels], registry=self.registry)

        self._published = counter("published_total", "Records committed while this node led")
        self._broadcast = counter("broadcast_total", "Records on their way to members while this node led, one count for each member")
        self._acks = counter("acks_total", "Records acknowledged, by all members together")
        self._acks_per_node = counter("acks_per_node_total", "Records acknowledged by a member", "node")
        self._seq = gauge("seq", "Last sequence number")
        self._ack_seq = gauge("ack_seq", "Last sequence number that every member has acknowledged")
        self._topic_lag = gauge("lag", "Records that the slowest member is behind")
        self._ack_seq_per_node = gauge("ack_seq_per_node", "Last sequence number that a member has acknowledged", "node")
        self._lag_per_node = gauge("lag_per_node", "Records that a member is behind", "node")
        self._subs = Gauge(
            "go_cluster_repl_subs", "Members whose acknowledgements this leader hears, and other subscribers", registry=self.registry
        )

    def _own_metrics(self) -> None:
        registry = self.registry
        self._elections = Counter("coterie_elections_total", "Elections that this node started", registry=registry)
        self._term = Gauge("coterie_term", "Current term", registry=registry)
        self._dropped = Counter("coterie_dropped_total", "What was not done or not understood", ["reason"], registry=registry)
        self._applied = Counter("coterie_applied_total", "Records that this node's state machine has had", ["topic"], registry=registry)
        self._delivered = Counter("coterie_delivered_total", "Records that this node's handler has had", ["topic"], registry=registry)
        self._redelivered = Counter("coterie_redelivered_total", "Records given to the handler again", ["topic"], registry=registry)
        self._restarts = Counter("coterie_actor_restarts_total", "Actors that crashed and started afresh", ["concern"], registry=registry)
        self._commit_seconds = Histogram(
            "coterie_commit_seconds",
            "From packing a batch to its commit, one observation a batch",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._delivery_seconds = Histogram(
            "coterie_delivery_seconds", "One call of the handler actor with a batch", buckets=LATENCY_BUCKETS, registry=registry
        )
        self._buffer_seconds = Histogram(
            "coterie_buffer_commit_seconds", "One transaction of the replication buffer", buckets=LATENCY_BUCKETS, registry=registry
        )
        self._map_bytes = Gauge("coterie_storage_map_bytes", "Address space of an LMDB file", ["store"], registry=registry)
        self._used_bytes = Gauge("coterie_storage_used_bytes", "Pages of an LMDB file, free ones included", ["store"], registry=registry)
        self._buffer_batches = Counter("coterie_buffer_batches_total", "Batches written to the replication buffer", registry=registry)

    # -- the cluster ----------------------------------------------------------------------------------------------------------

    def members(self, n: int) -> None:
        """Members that live, this node among them."""
        self._members.set(n)

    def leader(self, is_me: bool) -> None:
        """Whether this node leads. Who led forgets what the members had acknowledged: shown on, it would stay and raise alarms for ever."""
        self._is_leader.set(1 if is_me else 0)
        if self._leads and not is_me:
            self._subscribers = self._foreign = 0
            self._subs.set(0)
            with self._lock:
                nodes = {node for table in (self._acked, self._lag) for row in table.values() for node in row}
            for node in nodes:
                self.peer_gone(node)
        self._leads = is_me

    def leader_changed(self) -> None:
        self._leader_changes.inc()

    def join_request(self, result: str) -> None:
        """result: "accepted" or "rejected"."""
        self._joins.labels(result).inc()

    def election_started(self) -> None:
        self._elections.inc()

    def term(self, term: int) -> None:
        self._term.set(term)

    def actor_restarted(self, concern: str) -> None:
        self._restarts.labels(concern).inc()

    def inbox_depth(self, concern: str, messages: int) -> None:
        """How many messages wait for an actor, as somebody who passed by saw it."""
        self._snapshots.inboxes[concern] = messages

    def storage(self, store: str, map_bytes: int, used_bytes: int) -> None:
        """store: raft or buffer. map_bytes: address space reserved; used_bytes: of the file, pages that are free to be used again included."""
        self._map_bytes.labels(store).set(map_bytes)
        self._used_bytes.labels(store).set(used_bytes)

    def room_counters(self, room: str, counters: Mapping[str, int]) -> None:
        """The counters of a room's view, as they stand: shown as `coterie_room_events_total{room, what}`."""
        self._snapshots.rooms[room] = dict(counters)

    def _of(self, metric: Any, topic: str) -> Any:
        """The series of a topic. `labels` takes a lock and makes strings, on a path that a publisher waits for; topics never go, so they are kept."""
        series = self._series.get((metric, topic))
        if series is None:
            series = self._series[metric, topic] = metric.labels(topic)
        return series

    # -- replication: the port ReplicationMetrics ---------------------------------------------------------------------------------

    def published(self, topic: str, n: int) -> None:
        self._of(self._applied, topic).inc(n)
        if self._leads:
            self._of(self._published, topic).inc(n)
            self._of(self._broadcast, topic).inc(n * (self._subscribers + self._foreign))

    def seq(self, topic: str, seq: int) -> None:
        self._of(self._seq, topic).set(seq)

    def acked(self, node: str, topic: str, n: int, seq: int) -> None:
        self._of(self._acks, topic).inc(n)
        with self._lock:
            self._acks_per_node.labels(topic, node).inc(n)
            self._ack_seq_per_node.labels(topic, node).set(seq)
            nodes = self._acked.setdefault(topic, {})
            nodes[node] = seq
            self._of(self._ack_seq, topic).set(min(nodes.values()))

    def lag(self, node: str, topic: str, n: int) -> None:
        with self._lock:
            self._lag_per_node.labels(topic, node).set(n)
            nodes = self._lag.setdefault(topic, {})
            nodes[node] = n
            self._of(self._topic_lag, topic).set(max(nodes.values()))

    def delivered(self, topic: str, n: int) -> None:
        self._of(self._delivered, topic).inc(n)

    def redelivered(self, topic: str, n: int) -> None:
        self._of(self._redelivered, topic).inc(n)

    def subscribers(self, n: int) -> None:
        self._subscribers = n
        self._subs.set(n + self._foreign)

    def foreign_subscribers(self, n: int) -> None:
        self._foreign = n
        self._subs.set(n + self._subscribers)

    def peer_gone(self, node: str) -> None:
        """Remove every series of `node`; what the slowest member is, is found again among the others."""
        with self._lock:
            for topic, nodes in self._acked.items():
                if nodes.pop(node, None) is not None:
                    self._acks_per_node.remove(topic, node)
                    self._ack_seq_per_node.remove(topic, node)
                    if nodes:
                        self._of(self._ack_seq, topic).set(min(nodes.values()))
            for topic, nodes in self._lag.items():
                if nodes.pop(node, None) is not None:
                    self._lag_per_node.remove(topic, node)
                    self._of(self._topic_lag, topic).set(max(nodes.values(), default=0))

    def dropped(self, reason: str, n: int) -> None:
        self._dropped.labels(reason).inc(n)

    def commit_seconds(self, seconds: float, n: int) -> None:
        self._commit_seconds.observe(seconds)

    def delivery_seconds(self, seconds: float, n: int) -> None:
        self._delivery_seconds.observe(seconds)

    def buffer_write_seconds(self, seconds: float, n: int) -> None:
        self._buffer_seconds.observe(seconds)
        self._buffer_batches.inc(n)


class ChannelMetrics:
    """What the pool of gRPC channels tells (its port `ChannelObserver`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
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

    def active(self, channels: int) -> None:
        self._active.set(channels)


class _Snapshots(Collector):
    """Counters that somebody else keeps, as last told: a whole dict is replaced at a time, so that collecting needs no lock."""

    def __init__(self) -> None:
        self.rooms: dict[str, dict[str, int]] = {}
        self.inboxes: dict[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        events = CounterMetricFamily("coterie_room_events", "Counters of the node's rooms, by room and name", labels=["room", "what"])
        for room, counters in tuple(self.rooms.items()):
            for what, count in counters.items():
                events.add_metric([room, what], count)
        depth = GaugeMetricFamily("coterie_inbox_depth", "Messages waiting for an actor", labels=["concern"])
        for concern, messages in tuple(self.inboxes.items()):
            depth.add_metric([concern], messages)
        return [events, depth]


class _WithoutCreated:
    """A registry's metrics without the `…_created` series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
