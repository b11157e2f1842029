"""The members this node knows, itself among them, and who of them is chosen for what.

Probing goes round robin over a list that is shuffled at each wrap, and a newcomer enters at a random place (SWIM, section 4.3): each member is
probed within two rounds, whatever the dice say. Helpers and gossip targets are drawn without replacement from everybody eligible, so a choice is short
only when the cluster is: drawing at random and giving up after some tries skips the only helper of a three-node cluster now and then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from coterie.actors.membership.effects import Member
from coterie.actors.membership.suspicion import Suspicion
from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT, SUSPECT, Alive, NodeState


class Peer:
    """What is believed about one member. `claim`: an alive message for this name from another address, kept for when the held one dies;
    `conflict`: the address last reported as conflicting."""

    __slots__ = ("claim", "conflict", "incarnation", "ip", "meta", "name", "port", "since", "state", "suspicion", "vsn")

    def __init__(self, alive: Alive, now: float) -> None:
        self.name, self.ip, self.port, self.meta, self.vsn = alive.node, alive.ip, alive.port, alive.meta, alive.vsn
        self.incarnation = alive.incarnation
        self.state = ALIVE
        self.since = now
        self.suspicion: Suspicion | None = None
        self.claim: Alive | None = None
        self.conflict: tuple[str, int] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return self.ip, self.port

    @property
    def present(self) -> bool:
        return self.state in (ALIVE, SUSPECT)

    @property
    def protocol_max(self) -> int:
        return self.vsn[1]

    def move(self, state: int, now: float) -> None:
        if state != self.state:
            self.state, self.since = state, now

    def adopt(self, alive: Alive) -> None:
        self.incarnation, self.meta, self.vsn = alive.incarnation, alive.meta, alive.vsn
        self.ip, self.port = alive.ip, alive.port

    def view(self) -> Member:
        return Member(self.name, self.ip, self.port, self.meta, self.state, self.incarnation, self.since, self.vsn)

    def wire(self) -> NodeState:
        return NodeState(self.name, self.ip, self.port, self.meta, self.incarnation, self.state, self.vsn)

    def alive(self) -> Alive:
        return Alive(self.incarnation, self.name, self.ip, self.port, self.meta, self.vsn)


class Members:
    def __init__(self, me: Peer, dice: random.Random) -> None:
        self.me = me
        self._dice = dice
        self._by_name = {me.name: me}
        self._round = [me]
        self._next = 0

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Peer | None:
        return self._by_name.get(name)

    def present(self) -> int:
        """How many are alive or suspect, this node included: the n of the formulas."""
        return sum(1 for peer in self if peer.present)

    def add(self, peer: Peer) -> None:
        self._by_name[peer.name] = peer
        self._round.append(peer)
        place = self._dice.randrange(len(self._round))
        self._round[place], self._round[-1] = self._round[-1], self._round[place]

    def next_to_probe(self) -> Peer | None:
        """The next member of the round that is alive or suspect; None when there is none but this node."""
        for _ in range(2 * len(self._round)):
            if self._next >= len(self._round):
                self._dice.shuffle(self._round)
                self._next = 0
            peer = self._round[self._next]
            self._next += 1
            if peer is not self.me and peer.present:
                return peer
        return None

    def choose(self, count: int, eligible: Callable[[Peer], bool]) -> list[Peer]:
        """`count` others, or as many as are eligible, each at most once."""
        pool = [peer for peer in self if peer is not self.me and eligible(peer)]
        return self._dice.sample(pool, min(count, len(pool)))

    def forget(self, before: float) -> int:
        """Drops the dead and the left whose state began before that time; the number dropped."""
        gone = [peer.name for peer in self if peer.state in (DEAD, LEFT) and peer.since < before]
        for name in gone:
            del self._by_name[name]
        if gone:
            self._round = [peer for peer in self._round if peer.name in self._by_name]
        return len(gone)
