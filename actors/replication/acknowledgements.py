"""What the members have acknowledged, as this leader hears it, and what follows from that: room in the window, answers to who waits, figures.

A leader is told everything anew at its beginning, and forgets it when another leads: what is announced from then on is meant for the leadership to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from coterie.actors.errors import NotLeader
from coterie.actors.replication.all_acks import AckReports, AllAcks
from coterie.actors.replication.messages import PeerAcks
from coterie.actors.replication.metrics import ReplicationMetrics
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.replication.window import Window
from coterie.actors.room_messages import Topology

MOST_SHOWN: Final = 1000  # topics whose lag is told to the metrics in one tick


class Acknowledgements:
    """known: next seq of every topic there is. window: of publishes; held: what is to be delivered by all."""

    def __init__(
        self, node: str, machine: StateMachine, known: Mapping[str, int], window: Window, held: AllAcks, metrics: ReplicationMetrics
    ) -> None:
        self._node, self._machine, self._known, self._window, self._held, self._metrics = node, machine, known, window, held, metrics
        self.reports = AckReports(window.acked)
        self._topology = Topology()
        self._lagging: set[str] = set()
        self._anew: set[str] = set()  # of them, those of which all that is known is to be shown

    @property
    def busy(self) -> bool:
        return bool(self._lagging or self._held.records or self.reports.count)

    def set_topology(self, topology: Topology, not_leader: NotLeader) -> None:
        before, self._topology = self._topology, topology
        if topology.leader_id != self._node and before.leader_id != topology.leader_id:
            self._window.new_leadership()
        if before.leads and not topology.leads:
            self.reports.refuse(not_leader)
        self._window.set_silent(topology.silent)
        for node in self._window.set_live(topology.live):
            self._metrics.peer_gone(node)
        if (topology.leads and not before.leads) or any(self._window.announced(node) for node in topology.live - before.live):
            self._show_anew()
        self._held.set_live((topology.live - topology.foreign) | {self._node})
        self._show_subscribers()

    def heard(self, message: PeerAcks) -> None:
        first, lives = not self._window.announced(message.node_id), message.node_id in self._topology.live
        fresh = self._window.acknowledge(message.node_id, message.acks, message.announce)
        for topic, count in fresh.items():
            if lives:
                self._metrics.acked(message.node_id, topic, count, message.acks.get(topic, 0))
            self._lagging.add(topic)
        if first and lives and message.announce:  # of what it has acknowledged nothing of, it says nothing
            self._show_anew()
        if self._held.records:
            self.settle(fresh)
        if self.reports.count:
            self.reports.heard(fresh)
        if message.announce:
            self._show_subscribers()

    def settle(self, topics: Iterable[str] | None = None) -> None:
        """What of these topics, or of all, has been delivered by all, as far as this leader has heard."""
        if self._topology.leads:
            self._held.look(self._window.acked, topics)

    def moved(self, topics: Iterable[str]) -> None:
        """Records of these topics were committed."""
        self._lagging.update(topics)
        if self._held.records:
            self.settle(topics)

    def look(self, now: float) -> None:
        """At each tick."""
        if self._held.records:
            self.settle()
            self._held.expire(now)
        self.reports.expire(now)
        self._show_lag()

    def _show_anew(self) -> None:
        """All that the members have said: what came before this node leads, or before gossip knew who said it, was not shown."""
        self._anew.update(self._known)
        self._lagging.update(self._known)

    def _show_lag(self) -> None:
        """How far each living member is behind, for topics that moved since the last tick."""
        if not self._topology.leads:
            self._lagging.clear()
            self._anew.clear()
            return
        for _ in range(min(len(self._lagging), MOST_SHOWN)):
            topic = self._lagging.pop()
            last, anew = self._machine.last_seq(topic), topic in self._anew
            self._anew.discard(topic)
            for node, seq in self._window.acked(topic).items():
                if node in self._topology.live:
                    if anew or not seq:
                        self._metrics.acked(node, topic, 0, seq)
                    self._metrics.lag(node, topic, max(0, last - seq))

    def _show_subscribers(self) -> None:
        """How many other members this leader hears."""
        hears = self._window.heard() - self._topology.foreign - {self._node} if self._topology.leads else ()
        self._metrics.subscribers(len(hears))
