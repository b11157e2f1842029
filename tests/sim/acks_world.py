"""acks="all" on top of the publish world: the real window and both ends of the wait, at every node, under the same faults.

Some of what is committed waits at the node that proposed it, or at another, as a forwarded publish does, until all who live have delivered it. Acknowledgements,
questions and answers travel beside Raft's connections, so they are overtaken, come late or never; leaders change, and know nothing at first. What must hold:

- who waited for all hears "delivered" only when every node that it waited for has delivered the record, in whichever of its lives;
- who hears that it was not delivered by all is told of a record that is there, and of nodes that it did wait for.

Gossip is a table of who is up, and everybody agrees on it at once: what a late view means is a matter of whom to wait for, not of what is promised then.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from coterie.actors.errors import NotDelivered, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.raft.node import Role
from coterie.actors.replication.all_acks import AckReports, AllAcks
from coterie.actors.replication.answers import Place
from coterie.actors.replication.messages import ForwardedBatch
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.window import Window
from tests.sim.node import SimNode
from tests.sim.publish_world import Publishing

PATIENCE = (0.2, 4.0)  # seconds that a publish waits


class Waits:
    """What one life of a node knows of acknowledgements."""

    def __init__(self, application: AllAcked, node: SimNode) -> None:
        self.application, self.node, self.life = application, node, node.life
        self.window = Window(1 << 30, node.state.machine.last_seq)
        self.held = AllAcks(node.id, lambda *_: None, 1 << 30)
        self.reports = AckReports(self.window.acked)
        self.leader = ""
        self.questions = 0
        self.waited_for: dict[LightFuture, set[str]] = {}

    @property
    def leads(self) -> bool:
        return bool(self.node.core.role is Role.LEADER)

    def hold(self, place: Place) -> None:
        kernel = self.application.world.kernel
        chunk = Chunk(place.topic, 0, kernel.now + kernel.between(*PATIENCE), False)
        chunk.whole, chunk.reply = True, LightFuture()
        self.waited_for[chunk.reply] = set(self._gossip())
        chunk.reply.on_done(partial(self._done, place, chunk.reply))
        self.held.hold(chunk, place)

    def _done(self, place: Place, future: LightFuture) -> None:
        """What is wrong is kept for the next tick: a future lets no exception of a callback out."""
        waited, error = self.waited_for.pop(future), future.error
        seen, delivered = self.application.world.kernel.seen, self.application.delivered
        if error is None:
            seen["delivered by all"] += 1
            lack = {member for member in waited if delivered.get((member, place.topic), 0) < place.last_seq}
            right = not lack
        else:
            seen["not delivered by all in time"] += 1
            lack = set(error.missing) if isinstance(error, NotDelivered) else set()
            right = bool(lack) and lack <= waited and (place.topic, place.last_seq) in self.application.places
        if not right:
            self.application.wrong.append(f"{self.node.id}: {place} ended with {error} after waiting for {sorted(waited)}; {sorted(lack)}")

    def _gossip(self) -> frozenset[str]:
        """Who lives."""
        live = frozenset(node.id for node in self.application.world.present() if node.up)
        for waited in self.waited_for.values():
            waited &= live
        self.window.set_live(live)
        self.held.set_live(live)
        return live

    def tick(self) -> None:
        kernel, nodes = self.application.world.kernel, self.application.world.nodes
        leader = self.node.core.leader.id if self.node.core.leader else ""
        changed, self.leader = leader != self.leader, leader
        if changed:
            if leader != self.node.id:
                self.window.new_leadership()
            self.held.link_lost()
        if not self.leads:
            self.reports.refuse(NotLeader())
        self._gossip()
        if leader:
            acks, announce = self.application.acknowledgements(self.node), changed or kernel.chance(0.3)
            there = nodes[leader]
            if there is self.node:
                self.heard(self.node.id, acks, announce)
            else:
                tell = lambda: self.application.waits[there.id].heard(self.node.id, acks, announce)  # noqa: E731
                self.application.world.network.post(self.node, there, tell)
                if kernel.chance(0.1):
                    self.held.link_lost()
                self.held.ask(partial(self._ask, there), kernel.now)
        self.reports.expire(kernel.now)
        self.held.expire(kernel.now)

    def heard(self, member: str, acks: dict[str, int], announce: bool) -> None:
        if self.leads:
            fresh = self.window.acknowledge(member, acks, announce)
            self.held.look(self.window.acked, fresh)
            self.reports.heard(fresh)

    def _ask(self, there: SimNode, question: bytes, now: float) -> int:
        self.questions += 1
        number, post = self.questions, self.application.world.network.post

        def reply(_: int, payload: bytes | None, error: Exception | None) -> None:
            post(there, self.node, lambda: self.held.answered(number, payload, error, there.id, self.application.world.kernel.now))

        post(self.node, there, lambda: self.application.waits[there.id].asked(ForwardedBatch(self.node.id, number, question, reply)))
        return number

    def asked(self, message: ForwardedBatch) -> None:
        kernel = self.application.world.kernel
        kernel.seen["questions about acknowledgements"] += 1
        self.reports.asked(message, None if self.leads else NotLeader(), kernel.now)


class AllAcked(Publishing):
    """delivered: up to where each node has ever delivered each topic."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.waits: dict[str, Waits] = {}
        self.delivered: dict[tuple[str, str], int] = {}
        self.wrong: list[str] = []

    def start(self, node: SimNode) -> int:
        index = super().start(node)
        self.waits[node.id] = Waits(self, node)
        return index

    def acknowledgements(self, node: SimNode) -> dict[str, int]:
        acks = {topic: cursor - 1 for topic, cursor in node.state.cursors.items() if cursor > 1}
        for topic, seq in acks.items():
            self.delivered[node.id, topic] = max(seq, self.delivered.get((node.id, topic), 0))
        return acks

    def _placed(self, node: SimNode, batch: Any, placed: Any, index: int, own: bool) -> None:
        super()._placed(node, batch, placed, index, own)
        if own and self.world.kernel.chance(0.5):
            place = Place(batch.topic, index, placed.first_seq, len(batch.records), placed.duplicates or None)
            asker = self.world.kernel.random.choice([node, *self.world.present()])
            if asker is node:
                self.waits[node.id].hold(place)
            else:
                self.world.network.post(node, asker, lambda: self.waits[asker.id].hold(place))

    def client(self) -> None:
        super().client()
        for node in self.world.present():
            if node.reachable():
                self.waits[node.id].tick()
        if self.wrong:
            self.world.kernel.fail(self.wrong[0])
