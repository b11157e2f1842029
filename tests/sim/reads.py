"""Reads at one simulated node: on a leader by its core's word, elsewhere by asking the leader for an index; answered when the state machine is there.

This is the shell around `RaftCore.read_index`, as bad as it may be: questions and answers travel outside of Raft's connections, so they are overtaken, come late
or never, and a leader that has been deposed meanwhile may be asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import Ready
from coterie.actors.raft.refusals import NotLeading

if TYPE_CHECKING:
    from tests.sim.node import SimNode


class Question(NamedTuple):
    """number: of the operation in the history; role: of the node that the client asked; committed: the highest index that was, anywhere, when it was asked."""

    asker: SimNode
    key: str
    number: int
    role: str
    committed: int


class ReadDesk:
    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._waiting: list[tuple[int, str, Question]] = []  # (index, how it was confirmed, question)

    def ask(self, key: str, number: int, lease: bool) -> None:
        """A client reads here."""
        node = self._node
        core, committed = node.core, node.world.oracle.highest
        if core.role is Role.LEADER:
            self.index(Question(node, key, number, "leader", committed), lease)
            return
        leader = core.leader and node.world.nodes.get(core.leader.id)
        if leader:
            voter = core.configuration.is_voter(node.id)
            question = Question(node, key, number, "follower" if voter else "learner", committed)
            node.world.network.post(node, leader, lambda: leader.reads.asked_for(question, lease))

    def asked_for(self, question: Question, lease: bool) -> None:
        """Another node asks this one, which it takes for the leader."""
        self.index(question, lease)
        self._node.step()

    def index(self, question: Question, lease: bool) -> None:
        node = self._node
        try:
            node.core.read_index(question, node.now(), lease)
        except NotLeading:
            node.world.kernel.seen["reads refused"] += 1

    def drained(self, ready: Ready) -> None:
        """What the core has to say about reads."""
        node = self._node
        for question, index, by_lease in ready.confirmed:
            how = "lease" if by_lease else "index"
            node.world.oracle.confirmed(node, index, question.committed)
            asker: SimNode = question.asker
            if asker is node:
                self.confirmed(question, index, how)
            else:
                node.world.network.post(node, asker, lambda q=question, i=index, h=how, a=asker: a.reads.confirmed(q, i, h))
        node.world.kernel.seen["reads refused"] += len(ready.unconfirmed)

    def confirmed(self, question: Question, index: int, how: str) -> None:
        self._waiting.append((index, how, question))
        self.applied()

    def applied(self) -> None:
        """The state machine has moved: answer those who waited for it."""
        node = self._node
        still = []
        for index, how, question in self._waiting:
            if node.applied < index:
                still.append((index, how, question))
                continue
            node.world.kernel.seen[f"reads by {how}, {question.role}"] += 1
            node.world.application.history.ok(question.number, node.world.application.read(node, question.key))
        self._waiting = still

    def waits(self) -> bool:
        return bool(self._waiting)
