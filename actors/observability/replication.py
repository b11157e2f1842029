"""What publishing shows, per topic and per member: the `go_cluster_repl_*` contract, and ours beside it. The port `ReplicationMetrics` of the replication room.

Called per batch, never per record. `labels` of the client takes a lock and makes strings, on a path that a publisher waits for; topics never go, so their
series are kept.

What only a leader knows (how far each member is) is there while this node leads. When leadership moves, or the member goes, its series are removed: shown on,
they would stay as they were and raise alarms for ever. Counters stay, since counters only grow. The actors that report and the one that says who leads are
different threads; a report that comes after the leadership is over is therefore ignored, under the lock that removes.

`go_cluster_repl_ack_seq` of a topic is the least that a member has acknowledged, and `go_cluster_repl_lag` the most that one is behind, as in go-cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["LATENCY_BUCKETS", "ReplicationSeries"]

LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ReplicationSeries:
    """Any thread may call any method, and none blocks or raises."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._leads = False
        self._subscribers = self._foreign = 0
        self._series: dict[tuple[Any, str], Any] = {}
        self._acked: dict[str, dict[str, int]] = {}  # topic -> node -> seq
        self._lag: dict[str, dict[str, int]] = {}
        self._positions = _Positions()
        self._contract(registry)
        self._ours(registry)

    def _contract(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"go_cluster_repl_{name}", text, ["topic", *labels], registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"go_cluster_repl_{name}", text, ["topic", *labels], registry=registry)

        self._published = counter("published_total", "Records committed while this node led")
        self._broadcast = counter("broadcast_total", "Records on their way to other members while this node led, one count for each member")
        self._acks = counter("acks_total", "Records acknowledged, by all members together")
        self._acks_per_node = counter("acks_per_node_total", "Records acknowledged by a member", "node")
        self._seq = gauge("seq", "Last sequence number")
        self._ack_seq = gauge("ack_seq", "Last sequence number that every member has acknowledged")
        self._topic_lag = gauge("lag", "Records that the slowest member is behind")
        self._ack_seq_per_node = gauge("ack_seq_per_node", "Last sequence number that a member has acknowledged", "node")
        self._lag_per_node = gauge("lag_per_node", "Records that a member is behind", "node")
        self._subs = Gauge(
            "go_cluster_repl_subs", "Other members whose acknowledgements this leader hears, and subscribers over gRPC", registry=registry
        )

    def _ours(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"coterie_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"coterie_{name}", text, buckets=LATENCY_BUCKETS, registry=registry)

        self._dropped = counter("dropped_total", "What publishing did not do or did not understand", "reason")
        self._applied = counter("applied_total", "Records that this node's state machine has had", "topic")
        self._delivered = counter("delivered_total", "Records that this node's handler has had", "topic")
        self._redelivered = counter("redelivered_total", "Records given to the handler again", "topic")
        self._dead_letters = counter("dead_letters_total", "Records that this node's handler failed on too often", "topic")
        self._commit_seconds = histogram("commit_seconds", "From packing a batch to its commit, one observation a batch")
        self._delivery_seconds = histogram("delivery_seconds", "One call of the handler actor with a batch")
        self._buffer_seconds = histogram("buffer_commit_seconds", "One transaction of the replication buffer")
        self._buffer_batches = counter("buffer_batches_total", "Batches written to the replication buffer")
        registry.register(self._positions)

    def _of(self, metric: Any, topic: str) -> Any:
        series = self._series.get((metric, topic))
        if series is None:
            series = self._series[metric, topic] = metric.labels(topic)
        return series

    # -- per batch ------------------------------------------------------------------------------------------------------------

    def published(self, topic: str, n: int) -> None:
        self._of(self._applied, topic).inc(n)
        if self._leads:
            self._of(self._published, topic).inc(n)
            self._of(self._broadcast, topic).inc(n * (self._subscribers + self._foreign))

    def seq(self, topic: str, seq: int) -> None:
        self._of(self._seq, topic).set(seq)
        self._positions.seqs[topic] = seq

    def acked(self, node: str, topic: str, n: int, seq: int) -> None:
        with self._lock:
            if not self._leads:
                return
            self._of(self._acks, topic).inc(n)
            self._acks_per_node.labels(topic, node).inc(n)
            self._ack_seq_per_node.labels(topic, node).set(seq)
            nodes = self._acked.setdefault(topic, {})
            nodes[node] = seq
            self._of(self._ack_seq, topic).set(min(nodes.values()))

    def lag(self, node: str, topic: str, n: int) -> None:
        with self._lock:
            if not self._leads:
                return
            self._lag_per_node.labels(topic, node).set(n)
            nodes = self._lag.setdefault(topic, {})
            nodes[node] = n
            self._of(self._topic_lag, topic).set(max(nodes.values()))

    def delivered(self, topic: str, n: int) -> None:
        self._of(self._delivered, topic).inc(n)

    def position(self, topic: str, seq: int | None) -> None:
        if seq is None:
            self._positions.delivered.pop(topic, None)
        else:
            self._positions.delivered[topic] = seq

    def redelivered(self, topic: str, n: int) -> None:
        self._of(self._redelivered, topic).inc(n)

    def dead_letter(self, topic: str) -> None:
        self._of(self._dead_letters, topic).inc()

    def dropped(self, reason: str, n: int) -> None:
        self._dropped.labels(reason).inc(n)

    def commit_seconds(self, seconds: float, n: int) -> None:
        self._commit_seconds.observe(seconds)

    def delivery_seconds(self, seconds: float, n: int) -> None:
        self._delivery_seconds.observe(seconds)

    def buffer_write_seconds(self, seconds: float, n: int) -> None:
        self._buffer_seconds.observe(seconds)
        self._buffer_batches.inc(n)

    # -- who is there ---------------------------------------------------------------------------------------------------------

    def subscribers(self, n: int) -> None:
        self._subscribers = n
        self._subs.set(n + self._foreign)

    def foreign_subscribers(self, n: int) -> None:
        self._foreign = n
        self._subs.set(n + self._subscribers)

    def leading(self, is_me: bool) -> None:
        """Whether this node leads. Who led forgets what the members had acknowledged."""
        with self._lock:
            ended, self._leads = self._leads and not is_me, is_me
            if not ended:
                return
            for node in {node for table in (self._acked, self._lag) for row in table.values() for node in row}:
                self._remove(node)
            for metric, topics in ((self._ack_seq, self._acked), (self._topic_lag, self._lag)):
                for topic in topics:
                    self._series.pop((metric, topic), None)
                    metric.remove(topic)
                topics.clear()
        self._subscribers = self._foreign = 0
        self._subs.set(0)

    def peer_gone(self, node: str) -> None:
        """Remove every series of `node`; what the slowest member is, is found again among the others."""
        with self._lock:
            self._remove(node)

    def _remove(self, node: str) -> None:
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


class _Positions(Collector):
    """How far behind this node's own handler is. Two plain dicts, written by publisher and delivery per batch; the difference is made when somebody looks."""

    def __init__(self) -> None:
        self.seqs: dict[str, int] = {}
        self.delivered: dict[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        lag = GaugeMetricFamily("coterie_delivery_lag", "Records that this node has and its handler has not", labels=["topic"])
        for topic, delivered in tuple(self.delivered.items()):
            lag.add_metric([topic], max(0, self.seqs.get(topic, delivered) - delivered))
        return [lag]
