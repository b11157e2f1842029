"""What a leader does about its quorum by itself: one change at a time, decided from what Raft and gossip show. Pure.

In this order, the first that applies:

1. **Move.** A server answers at another address than the configuration has: the configuration gets that one.
2. **Promote** (`auto_join`). A learner that asked for a place, answers, and has kept within `SMALL_LAG` entries of the leader for `STEADY` seconds becomes a voter,
   while there is a place for it: the voters that live are kept odd in number (an even one tolerates no more loss than the odd one below), and at most `max_voters`.
3. **Remove** (`remove_dead_after`). A server that neither Raft nor gossip has heard for so long goes, if more than half of the voters that are left answer now, and
   `min_voters` are left. A successor is promoted before, if there is one: of three voters and a spare learner, four voters for a moment, then three again.
4. **Learn** (`auto_join`). A live member that asks for a place and has no log, or this cluster's, becomes a learner.

A leadership begins without a memory: what counts in seconds counts from its beginning. What was refused is tried again after a pause that grows. Whoever was
taken out by hand is not taken again until it has started anew: a node asks with a token that it draws at its start.

Lost: letting each node join itself. Then a node that starts decides about the quorum, and two that start at once about each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import attrs

from coterie.actors.node.topology import LIVE, META_CLUSTER, META_RAFT, META_WANTS, NO_CLUSTER
from coterie.actors.room_messages import Member, PeerView, RaftView

SMALL_LAG: Final = 64  # entries
STEADY: Final = 2.0  # seconds
ANSWERS: Final = 1.0  # seconds since the latest answered request was sent
PAUSES: Final = (1.0, 60.0)  # seconds before what was refused is tried again: at first, at most


@attrs.define(frozen=True)
class Rules:
    """As in `Config`; remove_dead_after: seconds, 0 for never."""

    auto_join: bool = False
    max_voters: int = 5
    min_voters: int = 3
    remove_dead_after: float = 0.0


@attrs.define(frozen=True)
class Step:
    """A change to make: of the server `id`, at `address` ("" where that stays). why: for the log."""

    kind: Literal["move", "promote", "leave", "learn"]
    id: str
    address: str
    why: str


class Caretaker:
    """me: this node's id. One leadership after another: `begin`, then `look` from time to time, and `done` after each step."""

    def __init__(self, me: str, rules: Rules) -> None:
        self._me, self._rules = me, rules
        self._barred: dict[str, str] = {}  # who was taken out by hand, and the token it asked with then
        self.begin()

    def begin(self) -> None:
        """A leadership begins."""
        self._steady: dict[str, float] = {}  # of learners: since when the lag is small
        self._absent: dict[str, float] = {}  # of servers: since when gossip does not hear them
        self._refused: dict[tuple[str, str, str], tuple[float, float]] = {}  # (kind, id, address) -> (not before, pause)

    def left(self, server: str, members: Iterable[Member]) -> None:
        """Somebody wants that server out of the quorum."""
        self._barred[server] = next((m.meta.get(META_WANTS, "") for m in members if m.id == server), "")

    def done(self, step: Step, refused: bool, now: float) -> None:
        key = (step.kind, step.id, step.address)
        pause = self._refused.get(key, (0.0, 0.0))[1]
        if refused:
            pause = min(max(2 * pause, PAUSES[0]), PAUSES[1])
            self._refused[key] = (now + pause, pause)
        else:
            self._refused.pop(key, None)

    def look(
        self, raft: RaftView, members: Iterable[Member], elsewhere: Mapping[str, str], my_address: str, cluster: str, now: float
    ) -> Step | None:
        """The step to take now. raft: the view of this leader. elsewhere: servers that gossip knows at another Raft address than the configuration. my_address: this
        node's own. cluster: the id of this cluster, "" if unknown."""
        told = {member.id: member for member in members}
        self._note(raft, told, now)
        dead = [server for server in raft.servers if self._dead(server, now)]
        steps = (
            *self._moves(raft, elsewhere, my_address),
            *self._promotions(raft, told, dead, now),
            *self._removals(raft, dead),
            *self._newcomers(raft, told, cluster),
        )
        return next((step for step in steps if now >= self._refused.get((step.kind, step.id, step.address), (now, 0.0))[0]), None)

    def _note(self, raft: RaftView, told: Mapping[str, Member], now: float) -> None:
        servers = {server.id for server in raft.servers}
        absent = {server for server in servers if server not in told or told[server].state not in LIVE}
        self._absent = {server: self._absent.get(server, now) for server in absent}
        steady = {
            server.id
            for server in raft.servers
            if server.suffrage == "learner"
            and _answers(server)
            and server.match_index
            and raft.last_index - server.match_index <= SMALL_LAG
        }
        self._steady = {server: self._steady.get(server, now) for server in steady}
        self._barred = {server: token for server, token in self._barred.items() if told.get(server) and _token(told[server]) == token}

    def _dead(self, server: PeerView, now: float) -> bool:
        """Heard by neither for `remove_dead_after`."""
        limit = self._rules.remove_dead_after
        if not limit or server.id == self._me or server.last_contact is None or server.last_contact < limit:
            return False
        return server.id in self._absent and now - self._absent[server.id] >= limit

    def _moves(self, raft: RaftView, elsewhere: Mapping[str, str], my_address: str) -> list[Step]:
        found = []
        for server in raft.servers:
            address = my_address if server.id == self._me else elsewhere.get(server.id, "")
            there = server.id == self._me or (server.reached_at == address and _answers(server))
            if address and address != server.address and there:
                found.append(Step("move", server.id, address, f"it answers at {address}, the configuration has it at {server.address}"))
        return found

    def _promotions(self, raft: RaftView, told: Mapping[str, Member], dead: list[PeerView], now: float) -> list[Step]:
        if not self._rules.auto_join:
            return []
        ready = [server for server, since in self._steady.items() if now - since >= STEADY and server in told and _token(told[server])]
        living = sum(server.suffrage == "voter" for server in raft.servers if server not in dead)
        most = min(self._rules.max_voters, living + len(ready))
        if living >= most - (1 - most % 2):
            return []
        ready.sort(key=lambda server: (self._steady[server], server))
        return [Step("promote", server, "", f"{living} voters live, and it has caught up") for server in ready]

    def _removals(self, raft: RaftView, dead: list[PeerView]) -> list[Step]:
        voters = [server for server in raft.servers if server.suffrage == "voter"]
        answering = sum(server.id == self._me or _answers(server) for server in voters)
        left = len(voters) - 1
        may_go = left >= self._rules.min_voters and answering > left // 2
        why = f"neither Raft nor gossip has heard it for {self._rules.remove_dead_after:g} s"
        return [Step("leave", server.id, "", why) for server in dead if may_go or server.suffrage != "voter"]

    def _newcomers(self, raft: RaftView, told: Mapping[str, Member], cluster: str) -> list[Step]:
        if not self._rules.auto_join:
            return []
        servers = {server.id for server in raft.servers}
        return [
            Step("learn", member.id, member.meta[META_RAFT], "it asks for a place in the quorum")
            for member in sorted(told.values(), key=lambda member: member.id)
            if member.id not in servers and member.state == "alive" and self._may_come(member, cluster)
        ]

    def _may_come(self, member: Member, cluster: str) -> bool:
        ours = member.meta.get(META_CLUSTER, "") in (NO_CLUSTER, cluster or NO_CLUSTER)
        return bool(member.meta.get(META_RAFT)) and bool(_token(member)) and ours and member.id not in self._barred


def _token(member: Member) -> str:
    return member.meta.get(META_WANTS, "")


def _answers(server: PeerView) -> bool:
    return server.last_contact is not None and server.last_contact < ANSWERS
