"""What is believed about whom: the rules for alive, suspect and dead, by incarnation (SWIM, section 4.2; memberlist's order of them).

A member alone raises its incarnation, and does so to answer what is untrue about it. At one incarnation, suspect beats alive and dead beats
suspect; a higher incarnation beats all. `dead` that a member says of itself is a leave.

Where we differ from memberlist, and why nobody is harmed by it:
- A left or dead name comes back only above its last incarnation, also from a new address: old rumours cannot revive it. Who restarted with incarnation 1
  hears what is said of it on its first push/pull, or on the answer to its first ping, and goes above that at once.
- A failed member that had in fact left becomes left: the leave may reach us after our own suspicion has run out.
- A claim from another address is kept, and holds as soon as the held address is dead; memberlist forgets it until the next push/pull.
- **Jumps.** One forged message with the highest incarnation would evict a member for ever, since nothing is above it. So an accusation
  counts only up to `incarnation_jump` (2^20) above what is known, and an alive message up to twice that, so that the answer to any accusation that counts
  does count. A member that is accused goes above the accusation, but never more than one jump at a time: the top of the 32 bits
  is thousands of accusations away, and a member that must climb far (its state was lost) gets there step by step. An alive message that jumps further is
  checked with the member itself, over a stream to its address: what it says of itself there is believed at any height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from coterie.actors.membership.awareness import Awareness
from coterie.actors.membership.effects import (
    AddressConflict,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberSuspected,
    MemberUpdated,
    MergeRefused,
    SelfRefuted,
)
from coterie.actors.membership.members import Members, Peer
from coterie.actors.membership.outbox import Outbox
from coterie.actors.membership.settings import Settings
from coterie.actors.membership.suspicion import Suspicion
from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT, SUSPECT, VSN, Alive, Dead, NodeState, Suspect

HIGHEST: Final = 0xFFFFFFFF


def speaks_our_protocol(vsn: bytes) -> bool:
    """Six versions, its current one known to us, and ours to it."""
    return len(vsn) == 6 and 1 <= vsn[0] <= VSN[2] <= vsn[1] and VSN[0] <= vsn[2] <= VSN[1]


class Rumours:
    def __init__(self, settings: Settings, members: Members, outbox: Outbox, awareness: Awareness) -> None:
        self._settings, self._members, self._out, self._awareness = settings, members, outbox, awareness
        self._counters = outbox.counters
        self._suspects: dict[str, Peer] = {}

    # ---- alive -------------------------------------------------------------------------------------------------------------------

    def alive(self, said: Alive, now: float, firsthand: bool = False) -> None:
        """`firsthand`: the member said it itself, over a stream to the address that it claims."""
        if not speaks_our_protocol(said.vsn):
            self._counters["alive_bad_vsn"] += 1
        elif not said.node or not said.ip or not said.port:
            self._counters["alive_bad_address"] += 1
        elif said.node == self._members.me.name:
            self._alive_me(said, now)
        elif not firsthand and said.incarnation > self._known(said.node) + 2 * self._settings.incarnation_jump:
            self._doubt(said)
        else:
            peer = self._members.get(said.node)
            if peer is None:
                self._alive_unknown(said, now)
            elif peer.address == (said.ip, said.port) or self._may_move(peer, now):
                self._alive_known(peer, said, now)
            else:
                self._conflict(peer, said)

    def _alive_me(self, said: Alive, now: float) -> None:
        me = self._members.me
        if me.state == LEFT or said.incarnation < me.incarnation:
            self._counters["alive_old"] += 1
            return
        if me.address != (said.ip, said.port):
            # Either we moved and this is our former self, or somebody has our name; answered in both cases, reported as the latter.
            self._report_conflict(me, said)
        elif said.incarnation == me.incarnation and said.meta == me.meta and said.vsn == me.vsn:
            return
        self._refute(said.incarnation, "alive")

    def _alive_unknown(self, said: Alive, now: float) -> None:
        if len(self._members) >= self._settings.max_members:
            self._counters["member_limit"] += 1
            return
        peer = Peer(said, now)
        self._members.add(peer)
        self._spread(said.node, said)
        self._out.event(MemberJoined(peer.view()))

    def _alive_known(self, peer: Peer, said: Alive, now: float) -> None:
        if said.incarnation <= peer.incarnation:
            self._counters["alive_old"] += 1
            return
        before, meta, address = peer.state, peer.meta, peer.address
        self._acquit(peer)
        peer.claim = peer.conflict = None
        peer.adopt(said)
        peer.move(ALIVE, now)
        self._spread(said.node, said)
        if before in (DEAD, LEFT):
            self._out.event(MemberJoined(peer.view()))
            return
        if before == SUSPECT:
            self._out.event(MemberRefuted(peer.view()))
        if meta != peer.meta or address != peer.address:
            self._out.event(MemberUpdated(peer.view(), meta))

    def _may_move(self, peer: Peer, now: float) -> bool:
        return peer.state == LEFT or (peer.state == DEAD and now - peer.since >= self._settings.reclaim_after)

    def _doubt(self, said: Alive) -> None:
        """Too far above what is known: ask the member itself, where we know it to be, else where the message says it is."""
        self._counters["incarnation_jump"] += 1
        peer = self._members.get(said.node)
        self._out.push_pull(peer.address if peer else (said.ip, said.port))

    # ---- suspect -----------------------------------------------------------------------------------------------------------------

    def suspect(self, said: Suspect, now: float) -> None:
        peer = self._accused(said.node, said.incarnation)
        if peer is None:
            return
        if peer is self._members.me:
            if peer.state != LEFT:
                self._refute(said.incarnation, "suspect")
        elif peer.suspicion is not None:
            if peer.suspicion.confirm(said.accuser):
                self._spread(said.node, said)
        elif peer.state == ALIVE:
            n = self._members.present()
            peer.suspicion = Suspicion(said.accuser, self._settings.confirmations_wanted(n), *self._settings.suspicion_bounds(n), now)
            self._suspects[peer.name] = peer
            peer.incarnation = said.incarnation
            peer.move(SUSPECT, now)
            self._out.counters["suspected"] += 1
            self._spread(said.node, said)
            self._out.event(MemberSuspected(peer.view(), said.accuser))

    def deadline(self) -> float:
        """When the next suspicion runs out; infinite without one."""
        return min((peer.suspicion.deadline for peer in self._suspects.values() if peer.suspicion), default=math.inf)

    def expire(self, now: float) -> None:
        """Suspects whose time has run out are dead, by our own word."""
        for peer in [peer for peer in self._suspects.values() if peer.suspicion and peer.suspicion.deadline <= now]:
            self.dead(Dead(peer.incarnation, peer.name, self._members.me.name), now)

    def postpone(self, seconds: float) -> None:
        for peer in self._suspects.values():
            if peer.suspicion is not None:
                peer.suspicion.postpone(seconds)

    def _acquit(self, peer: Peer) -> None:
        peer.suspicion = None
        self._suspects.pop(peer.name, None)

    # ---- dead --------------------------------------------------------------------------------------------------------------------

    def dead(self, said: Dead, now: float) -> None:
        peer = self._accused(said.node, said.incarnation)
        if peer is None:
            return
        if peer is self._members.me:
            if peer.state != LEFT:
                self._refute(said.incarnation, "dead")
            return
        left = said.accuser == said.node
        if peer.state == LEFT or (peer.state == DEAD and not left):
            return
        self._acquit(peer)
        peer.incarnation = said.incarnation
        peer.move(LEFT if left else DEAD, now)
        self._spread(said.node, said)
        self._out.event(MemberLeft(peer.view()) if left else MemberFailed(peer.view(), said.accuser))
        claim, peer.claim = peer.claim, None
        if claim is not None:
            self.alive(claim, now)

    # ---- push/pull ---------------------------------------------------------------------------------------------------------------

    def merge(self, states: Sequence[NodeState], partner: tuple[str, int] | None, now: float) -> None:
        """Everything, or nothing: a member that is alive and speaks another protocol refuses the whole exchange.

        Another node's `dead` is only a suspicion here (memberlist's rule): the member gets its chance to refute.
        """
        for state in states:
            if state.state == ALIVE and not speaks_our_protocol(state.vsn):
                self._counters["merge_refused"] += 1
                raise MergeRefused(state.name, state.vsn)
        me = self._members.me.name
        for state in states:
            if state.state == ALIVE:
                said = Alive(state.incarnation, state.name, state.ip, state.port, state.meta, state.vsn)
                self.alive(said, now, firsthand=partner == (state.ip, state.port))
            elif state.state == LEFT:
                self.dead(Dead(state.incarnation, state.name, state.name), now)
            elif state.state in (SUSPECT, DEAD):
                self.suspect(Suspect(state.incarnation, state.name, me), now)
            else:
                self._counters["merge_unknown_state"] += 1

    # ---- this node ---------------------------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """This node's own state, to be spread."""
        me = self._members.me
        if me.state == LEFT:
            self._spread(me.name, Dead(me.incarnation, me.name, me.name))
        else:
            self._spread(me.name, me.alive())

    def raise_incarnation(self, above: int) -> None:
        """Above `above`, but at most one jump, and never beyond what 32 bits hold."""
        me = self._members.me
        reached = min(max(above, me.incarnation), me.incarnation + self._settings.incarnation_jump)
        if reached >= HIGHEST:
            self._counters["incarnation_exhausted"] += 1
        me.incarnation = min(reached + 1, HIGHEST)

    def _refute(self, accused: int, reason: str) -> None:
        me = self._members.me
        if accused > me.incarnation + self._settings.incarnation_jump:
            self._counters["incarnation_jump"] += 1
        self.raise_incarnation(accused)
        self._counters["refuted"] += 1
        self._awareness.apply(1)
        self.announce()
        self._out.event(SelfRefuted(me.incarnation, accused, reason))

    # ---- common ------------------------------------------------------------------------------------------------------------------

    def _accused(self, name: str, incarnation: int) -> Peer | None:
        """Who is meant, if the accusation is about somebody known, not out of date, and believable."""
        peer = self._members.get(name)
        if peer is None:
            self._counters["accusation_unknown"] += 1
        elif incarnation < peer.incarnation:
            self._counters["accusation_old"] += 1
        elif peer is not self._members.me and incarnation > peer.incarnation + self._settings.incarnation_jump:
            self._counters["incarnation_jump"] += 1
        else:
            return peer
        return None

    def _known(self, name: str) -> int:
        peer = self._members.get(name)
        return 0 if peer is None else peer.incarnation

    def _conflict(self, peer: Peer, said: Alive) -> None:
        if said.incarnation > peer.incarnation and (peer.claim is None or said.incarnation >= peer.claim.incarnation):
            peer.claim = said
        self._report_conflict(peer, said)

    def _report_conflict(self, peer: Peer, said: Alive) -> None:
        self._counters["address_conflict"] += 1
        claimed = (said.ip, said.port)
        if peer.conflict != claimed:
            peer.conflict = claimed
            self._out.event(AddressConflict(peer.name, peer.address, claimed))

    def _spread(self, name: str, message: Alive | Suspect | Dead) -> None:
        self._out.rumours.add(name, message)
