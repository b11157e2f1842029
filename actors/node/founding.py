"""`bootstrap_expect`: so many empty nodes form one cluster together, without one that was told to begin. Pure.

One node decides, and the others let it. Among those that gossip shows, the one with the smallest id **proposes itself** (its id, and a token drawn for this
proposal); the others **let it form the cluster**, each exactly one, and each puts that on its disk before it tells it in its metadata. When as many as
expected let it, itself among them, it writes the first configuration with all of them, as entry 1 of term 1, into its own log. The others stay empty, give it
their votes, and get the log from it.

Why there are never two clusters: a founder needs N nodes that let it, and a node lets another one only after the first has **given up**, which a founder says
in its own metadata, before it has formed anything or never. Who has formed gives up no more, so its N nodes are its own for ever, and a second founder would
need N others. So N must be more than half of the nodes that are started with it, which is refused where it is seen. What is left are nodes that were emptied
after they had let somebody; therefore nobody proposes or lets while

- a member, also one that is not heard any more, has a log, or does not say that it has none;
- a seed does not answer: what lies behind it may be the cluster;
- another node expects another number, or two tell one Raft address.

A node that comes late finds members with a log and waits to be joined. Lost: all N write the same first configuration for themselves, as Consul does. Gossip
shows two nodes different sets for a while, and then entry 1 of term 1 is not the same entry everywhere, which no later rule of Raft notices.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from coterie.actors.node.topology import LIVE, META_CLUSTER, META_EXPECT, META_FOUNDER, META_MGMT, META_RAFT, NO_CLUSTER
from coterie.actors.room_messages import Member


@attrs.define(frozen=True)
class Decision:
    """founder: whom this node lets form the cluster from now on, to be kept durably, then told. servers: the cluster to form now, (id, Raft address) of each.
    note: what it waits for."""

    founder: str
    servers: tuple[tuple[str, str], ...] = ()
    note: str = ""


class Founding:
    """me, address: this node's id and Raft address. founder: whom it let form the cluster in an earlier life, "" for nobody."""

    def __init__(self, me: str, address: str, expect: int, founder: str) -> None:
        self._me, self._address, self._expect = me, address, expect
        self.founder = founder

    def look(self, members: Iterable[Member], seeds: str, token: str) -> Decision:
        """Of a node without a log. members: as gossip has them; seeds: why not all of them count as reached, "" when they do; token: one that is new."""
        others = [m for m in members if m.id != self._me and m.state != "left" and (META_RAFT in m.meta or META_MGMT in m.meta)]
        alive = {m.id: m for m in others if m.state in LIVE and m.meta.get(META_EXPECT) == str(self._expect) and META_RAFT in m.meta}
        obstacle = self._obstacle(others, alive) or seeds
        if obstacle:
            return Decision(self.founder, note=f"bootstrap_expect={self._expect}: {obstacle}")
        self._choose(alive, token)
        return self._found(alive)

    def _obstacle(self, others: list[Member], alive: dict[str, Member]) -> str:
        for member in others:
            if member.meta.get(META_CLUSTER) != NO_CLUSTER:
                return (
                    f"{member.id} has a log, or does not say that it has none; this node forms no cluster beside it and waits to be joined"
                )
            expected = member.meta.get(META_EXPECT, str(self._expect))
            if expected != str(self._expect):
                return f"{member.id} expects {expected}; give all nodes the same number"
        told = {self._address: self._me}
        for member in alive.values():
            twin = told.setdefault(member.meta[META_RAFT], member.id)
            if twin != member.id:
                return f"{twin} and {member.id} tell the same Raft address {member.meta[META_RAFT]}; give each its own raft_addr"
        if len(alive) + 1 >= 2 * self._expect:
            return f"{len(alive) + 1} nodes expect {self._expect}, which two halves of them could be; give more than half of their number"
        if len(alive) + 1 < self._expect:
            return f"{len(alive) + 1} nodes are here ({', '.join(sorted([*alive, self._me]))})"
        return ""

    def _choose(self, alive: dict[str, Member], token: str) -> None:
        """Propose this node, or let another one; what was said before holds until that founder has given up."""
        if self.founder and not self._proposes() and not self._gave_up(alive):
            return
        first = min([*alive, self._me])
        if first == self._me:
            if not self._proposes():
                self.founder = f"{self._me}#{token}"
            return
        proposal = alive[first].meta.get(META_FOUNDER, "")
        if proposal.rpartition("#")[0] == first:
            self.founder = proposal
        elif not self._proposes():
            self.founder = ""

    def _proposes(self) -> bool:
        return self.founder.rpartition("#")[0] == self._me

    def _gave_up(self, alive: dict[str, Member]) -> bool:
        founder = alive.get(self.founder.rpartition("#")[0])
        return founder is not None and founder.meta.get(META_FOUNDER, "") != self.founder

    def _found(self, alive: dict[str, Member]) -> Decision:
        if not self._proposes():
            whom = self.founder.rpartition("#")[0] or min([*alive, self._me])
            return Decision(self.founder, note=f"bootstrap_expect={self._expect}: {whom} forms the cluster")
        agreed = sorted(name for name, member in alive.items() if member.meta.get(META_FOUNDER) == self.founder)
        if len(agreed) + 1 < self._expect:
            return Decision(
                self.founder, note=f"bootstrap_expect={self._expect}: this node forms the cluster once {self._expect - 1} others let it"
            )
        chosen = [(name, alive[name].meta[META_RAFT]) for name in agreed[: self._expect - 1]]
        return Decision(self.founder, tuple(sorted([(self._me, self._address), *chosen])))
