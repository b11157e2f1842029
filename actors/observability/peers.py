"""How far each member is, as the leader hears it: the part of the `go_cluster_repl_*` contract with the label `node`, and what follows from it for a topic.

There while this node leads. When leadership moves, or the member goes, its series are removed: shown on, they would stay as they were and raise alarms for ever.
The actors that report and the one that says who leads are different threads; a report that comes after the leadership is over is therefore ignored, under the lock
that removes.

`go_cluster_repl_ack_seq` of a topic is the least that a member has acknowledged, and `go_cluster_repl_lag` the most that one is behind, as in go-cluster. Of the
topics that have no label of their own (`labels`) only who is behind is kept, and what is shown of them together is made when somebody looks (`settle`): the lag is
that of the topic that is furthest behind, or a threshold would be reached by many topics that are each a record behind; acknowledged sequence numbers are summed.

Pairs of topic and member are bounded too: anybody may subscribe and acknowledge under any name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from coterie.actors.observability.labels import OTHERS, TopicLabels

__all__ = ["MOST_PAIRS", "PeerSeries"]

MOST_PAIRS: Final = 32_768  # entries in the tables below: two for each labelled topic and member


class PeerSeries:
    """Any thread may call any method, and none blocks or raises."""

    def __init__(self, registry: CollectorRegistry, labels: TopicLabels) -> None:
        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"go_cluster_repl_{name}", text, ["topic", *more], registry=registry)

        def gauge(name: str, text: str, *more: str) -> Gauge:
            return Gauge(f"go_cluster_repl_{name}", text, ["topic", *more], registry=registry)

        self._lock = threading.Lock()
        self._labels = labels
        self._leads = False
        self._acked: dict[str, dict[str, int]] = {}  # topic -> node -> seq
        self._lag: dict[str, dict[str, int]] = {}
        self._behind: dict[str, dict[str, int]] = {}  # node -> topic without a label -> its lag, when it has one
        self._acks = counter("acks_total", "Records acknowledged, by all members together")
        self._acks_per_node = counter("acks_per_node_total", "Records acknowledged by a member", "node")
        self._ack_seq = gauge("ack_seq", "Last sequence number that every member has acknowledged")
        self._topic_lag = gauge("lag", "Records that the slowest member is behind")
        self._ack_seq_per_node = gauge("ack_seq_per_node", "Last sequence number that a member has acknowledged", "node")
        self._lag_per_node = gauge("lag_per_node", "Records that a member is behind", "node")
        self._unshown = Counter("coterie_metrics_unshown_total", "Words of members that found no room in the metrics", registry=registry)
        self._entries = 0
        self._series: dict[tuple[Any, str], Any] = {}  # of topics: `labels` of the client takes a lock and makes strings

    def acked(self, node: str, topic: str, n: int, seq: int) -> None:
        """`node` acknowledged `n` more records, up to `seq`."""
        label = self._labels.of(topic)
        with self._lock:
            if not self._leads:
                return
            self._of(self._acks, label).inc(n)
            if label == OTHERS:
                if self._row(node) is not None:
                    self._acks_per_node.labels(OTHERS, node).inc(n)
            elif (nodes := self._put(self._acked, topic, node, seq)) is not None:
                self._acks_per_node.labels(topic, node).inc(n)
                self._ack_seq_per_node.labels(topic, node).set(seq)
                self._of(self._ack_seq, topic).set(min(nodes.values()))

    def lag(self, node: str, topic: str, n: int) -> None:
        """`node` is `n` records behind on `topic`."""
        label = self._labels.of(topic)
        with self._lock:
            if not self._leads:
                return
            if label != OTHERS:
                if (nodes := self._put(self._lag, topic, node, n)) is not None:
                    self._lag_per_node.labels(topic, node).set(n)
                    self._of(self._topic_lag, topic).set(max(nodes.values()))
            elif (row := self._row(node)) is not None:
                if not n:
                    self._entries -= row.pop(topic, None) is not None
                elif topic in row or self._room():
                    row[topic] = n

    def leading(self, is_me: bool) -> bool:
        """Whether this node leads. -> whether its leadership ended with that: then it forgets what the members had acknowledged."""
        with self._lock:
            ended, self._leads = self._leads and not is_me, is_me
            if ended:
                for node in {*self._behind, *(node for table in (self._acked, self._lag) for row in table.values() for node in row)}:
                    self._remove(node)
            return ended

    def gone(self, node: str) -> None:
        """Remove every series of `node`; what the slowest member is, is found again among the others."""
        with self._lock:
            self._remove(node)

    def settle(self, last: int) -> None:
        """Show what is so of the topics without a label. last: the sum of their last sequence numbers."""
        with self._lock:
            if not self._behind:
                return
            furthest: dict[str, int] = {}
            for node, row in self._behind.items():
                self._lag_per_node.labels(OTHERS, node).set(max(row.values(), default=0))
                self._ack_seq_per_node.labels(OTHERS, node).set(max(0, last - sum(row.values())))
                for topic, n in row.items():
                    furthest[topic] = max(n, furthest.get(topic, 0))
            self._of(self._topic_lag, OTHERS).set(max(furthest.values(), default=0))
            self._of(self._ack_seq, OTHERS).set(max(0, last - sum(furthest.values())))

    # -- with the lock held ---------------------------------------------------------------------------------------------------

    def _put(self, table: dict[str, dict[str, int]], topic: str, node: str, n: int) -> dict[str, int] | None:
        """-> what is known of the topic now; None when there is no room for this member."""
        nodes = table.get(topic)
        if (nodes is None or node not in nodes) and not self._room():
            return None
        if nodes is None:
            nodes = table[topic] = {}
        nodes[node] = n
        return nodes

    def _row(self, node: str) -> dict[str, int] | None:
        row = self._behind.get(node)
        if row is None and self._room():
            row = self._behind[node] = {}
            for series in (self._acks_per_node, self._ack_seq_per_node, self._lag_per_node):
                series.labels(OTHERS, node)
            for gauge in (self._ack_seq, self._topic_lag):
                self._of(gauge, OTHERS)
        return row

    def _room(self) -> bool:
        if self._entries >= MOST_PAIRS:
            self._unshown.inc()
            return False
        self._entries += 1
        return True

    def _of(self, metric: Any, topic: str) -> Any:
        series = self._series.get((metric, topic))
        if series is None:
            series = self._series[metric, topic] = metric.labels(topic)
        return series

    def _forget(self, metric: Any, topic: str) -> None:
        self._series.pop((metric, topic), None)
        metric.remove(topic)

    def _remove(self, node: str) -> None:
        self._remove_from(self._acked, node, self._ack_seq, min, (self._acks_per_node, self._ack_seq_per_node))
        self._remove_from(self._lag, node, self._topic_lag, max, (self._lag_per_node,))
        row = self._behind.pop(node, None)
        if row is not None:
            self._entries -= 1 + len(row)
            for series in (self._acks_per_node, self._ack_seq_per_node, self._lag_per_node):
                series.remove(OTHERS, node)
            if not self._behind:
                self._forget(self._ack_seq, OTHERS)
                self._forget(self._topic_lag, OTHERS)

    def _remove_from(
        self, table: dict[str, dict[str, int]], node: str, gauge: Gauge, of_all: Callable[[Iterable[int]], int], per_node: Iterable[Any]
    ) -> None:
        for topic, nodes in list(table.items()):
            if nodes.pop(node, None) is None:
                continue
            self._entries -= 1
            for series in per_node:
                series.remove(topic, node)
            if nodes:
                self._of(gauge, topic).set(of_all(nodes.values()))
            else:
                del table[topic]
                self._forget(gauge, topic)
