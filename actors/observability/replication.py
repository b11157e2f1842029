"""What publishing shows, per topic and per member: the `go_cluster_repl_*` contract, and ours beside it. The port `ReplicationMetrics` of the replication room.

Called per batch, never per record. `labels` of the client takes a lock and makes strings, on a path that a publisher waits for; topics never go, so their
series are kept.

How far each member is, which only a leader knows, is `peers`. Of topics beyond a number (`labels`) counters and sequence numbers are summed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coterie.actors.observability.labels import MOST_TOPICS, OTHERS, TopicLabels
from coterie.actors.observability.peers import PeerSeries

__all__ = ["LATENCY_BUCKETS", "ReplicationSeries"]

LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ReplicationSeries:
    """Any thread may call any method, and none blocks or raises."""

    def __init__(self, registry: CollectorRegistry, topics: int = MOST_TOPICS) -> None:
        self._lock = threading.Lock()
        self._leads = False
        self._subscribers = self._foreign = 0
        self._others = 0  # the sum of the last sequence numbers of the topics without a label
        self._series: dict[tuple[Any, str], Any] = {}
        self._labels = TopicLabels(topics)
        self._peers = PeerSeries(registry, self._labels)
        self.acked, self.lag, self.peer_gone = self._peers.acked, self._peers.lag, self._peers.gone
        self._positions = _Positions(self._labels)
        self._contract(registry)
        self._ours(registry)

    def _contract(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"go_cluster_repl_{name}", text, ["topic", *labels], registry=registry)

        self._published = counter("published_total", "Records committed while this node led")
        self._broadcast = counter("broadcast_total", "Records on their way to other members while this node led, one count for each member")
        self._seq = Gauge("go_cluster_repl_seq", "Last sequence number", ["topic"], registry=registry)
        self._subs = Gauge(
            "go_cluster_repl_subs", "Other members whose acknowledgements this leader hears, and subscribers over gRPC", registry=registry
        )

    def _ours(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"coterie_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"coterie_{name}", text, buckets=LATENCY_BUCKETS, registry=registry)

        self._unlabelled = Gauge("coterie_topics_unlabelled", "Topics that are counted together in the metrics", registry=registry)
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
            label = self._labels.of(topic)
            if label != topic:
                return self._of(metric, label)
            series = self._series[metric, topic] = metric.labels(topic)
        return series

    # -- per batch ------------------------------------------------------------------------------------------------------------

    def published(self, topic: str, n: int) -> None:
        self._of(self._applied, topic).inc(n)
        if self._leads:
            self._of(self._published, topic).inc(n)
            self._of(self._broadcast, topic).inc(n * (self._subscribers + self._foreign))

    def seq(self, topic: str, seq: int) -> None:
        if self._labels.of(topic) != OTHERS:
            self._of(self._seq, topic).set(seq)
        else:
            with self._lock:
                self._others += seq - self._positions.seqs.get(topic, 0)
                self._unlabelled.inc(topic not in self._positions.seqs)
                self._of(self._seq, OTHERS).set(self._others)
        self._positions.seqs[topic] = seq

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
        self._leads = is_me
        if self._peers.leading(is_me):
            self._subscribers = self._foreign = 0
            self._subs.set(0)

    def settle(self) -> None:
        """Before somebody looks."""
        self._peers.settle(self._others)


class _Positions(Collector):
    """How far behind this node's own handler is. Two plain dicts, written by publisher and delivery per batch; the difference is made when somebody looks. Of the
    topics without a label, that of the topic that is furthest behind."""

    def __init__(self, labels: TopicLabels) -> None:
        self.seqs: dict[str, int] = {}
        self.delivered: dict[str, int] = {}
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        lags: dict[str, int] = {}
        for topic, delivered in tuple(self.delivered.items()):
            label = self._labels.of(topic)
            lags[label] = max(lags.get(label, 0), self.seqs.get(topic, delivered) - delivered)
        lag = GaugeMetricFamily("coterie_delivery_lag", "Records that this node has and its handler has not", labels=["topic"])
        for label, behind in lags.items():
            lag.add_metric([label], behind)
        return [lag]
