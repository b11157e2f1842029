"""Who is here: the membership protocol as one pure value machine (SWIM and Lifeguard, on memberlist's wire).

The shell feeds packets, results of streams and the time; `take` gives what is to be sent and what happened. `deadline` says when `tick` is wanted next; a tick
that comes early does nothing. Time is any monotonic clock in seconds, the dice a `random.Random`: the same inputs give the same run.

    packet ──┐                    ┌── Prober    who answers (probe.py)
    merge ───┼── MembershipCore ──┼── Rumours   who is believed to be what, by incarnation (rumours.py, suspicion.py)
    tick ────┘        │           └── Outbox    what leaves, filled up with rumours (outbox.py, broadcasts.py)
                    take

Beyond memberlist: dead members are remembered for a day, and one of them is dialled every `reconnect_interval`, so the halves of a long partition find each
other again (in Consul that is Serf's part); after a push/pull that made this node refute, its answer goes back over a second one
at once; and a tick that comes late by more than `stall` moves every deadline by as much: who stood still must not accuse the others of silence.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from coterie.actors.membership.awareness import Awareness
from coterie.actors.membership.effects import Effects, Member, MetaTooLarge
from coterie.actors.membership.members import Members, Peer
from coterie.actors.membership.outbox import Outbox
from coterie.actors.membership.probe import Prober
from coterie.actors.membership.rumours import Rumours
from coterie.actors.membership.settings import Settings
from coterie.proto.gossip_codec import encode_message
from coterie.proto.gossip_messages import (
    ALIVE,
    DEAD,
    LEFT,
    META_MAX,
    Ack,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Nack,
    NodeState,
    Ping,
    Suspect,
)


class MembershipCore:
    """`ip` and `port` are the advertised address; `incarnation` the last one known of this node, or 1. Raises MetaTooLarge."""

    def __init__(
        self,
        name: str,
        ip: str,
        port: int,
        meta: bytes,
        incarnation: int,
        settings: Settings,
        now: float,
        dice: random.Random,
        encode: Callable[[Message], bytes] = encode_message,
    ) -> None:
        _check_meta(meta)
        self._settings = settings
        self._me = Peer(Alive(max(incarnation, 1), name, ip, port, meta), now)
        self._members = Members(self._me, dice)
        self._out = Outbox(settings, self._members, encode)
        self._awareness = Awareness(settings.awareness_max)
        self._rumours = Rumours(settings, self._members, self._out, self._awareness)
        self._prober = Prober(settings, self._members, self._out, self._awareness, self._rumours, now)
        self._dice = dice
        self._next_gossip = self._next_meeting = now
        self._next_push_pull = now + settings.push_pull_interval * dice.random()
        self._next_reconnect = now + settings.reconnect_interval
        self._rumours.announce()

    # ---- what is known -----------------------------------------------------------------------------------------------------------

    @property
    def incarnation(self) -> int:
        return self._me.incarnation

    @property
    def health(self) -> int:
        """Lifeguard's score: 0 is well, `awareness_max` - 1 the worst."""
        return self._awareness.score

    @property
    def counters(self) -> Mapping[str, int]:
        return self._out.counters

    @property
    def queued(self) -> int:
        """Rumours that wait to be spread."""
        return len(self._out.rumours)

    @property
    def revision(self) -> int:
        """Grows with each change of what is believed about anybody; the same number means the same `members`."""
        return self._out.rumours.serial + self._out.counters["forgotten"]

    def members(self) -> list[Member]:
        """Everybody remembered, this node included, by name."""
        return sorted(peer.view() for peer in self._members)

    def push_pull_state(self) -> tuple[NodeState, ...]:
        """What a push/pull tells, this node first."""
        return (self._me.wire(), *(peer.wire() for peer in self._members if peer is not self._me))

    # ---- inputs ------------------------------------------------------------------------------------------------------------------

    def packet(self, messages: Sequence[Message], source: tuple[str, int], now: float) -> None:
        for message in messages:
            self._message(message, source, now)
        self._somebody_is_there(now)

    def _message(self, message: Message, source: tuple[str, int], now: float) -> None:
        match message:
            case Ping():
                self._prober.ping(message, source)
                self._meet(message, source, now)
            case Ack():
                self._prober.ack(message)
            case Alive():
                self._rumours.alive(message, now)
            case Suspect():
                self._rumours.suspect(message, now)
            case Dead():
                self._rumours.dead(message, now)
            case IndirectPing():
                self._prober.indirect_ping(message, source, now)
            case Nack():
                self._prober.nack(message)
            case _:
                self._out.counters["user_message"] += 1

    def _meet(self, said: Ping, source: tuple[str, int], now: float) -> None:
        """Who pings us by our name knows us. If we do not know them, we came back without a memory (killed before it was written): ask for the picture.
        One at a time, and only the host that the packet came from: a ping must not send us wherever it likes."""
        unknown = bool(said.source_node) and self._members.get(said.source_node) is None
        if unknown and said.node == self._me.name and said.source_ip == source[0] and now >= self._next_meeting and self._me.state == ALIVE:
            self._next_meeting = now + self._settings.probe_interval
            self._out.counters["met_unknown"] += 1
            self._out.push_pull((said.source_ip, said.source_port))

    def merge(self, states: Sequence[NodeState], join: bool, now: float, partner: tuple[str, int] | None = None) -> None:
        """What a push/pull brought. `partner` is the address that this node dialled, None when it was the one dialled.

        Raises MergeRefused, and then nothing of it was taken.
        """
        before = self._me.incarnation
        self._rumours.merge(states, partner, now)
        self._out.counters["join_merged" if join else "merged"] += 1
        if partner is not None and self._me.incarnation != before and self._me.state == ALIVE:
            self._out.push_pull(partner)
        self._somebody_is_there(now)

    def stream_pinged(self, seq_no: int, answered: bool) -> None:
        """The result of a `StreamPing`; late ones are harmless."""
        self._prober.stream_pinged(seq_no, answered)

    def send_failed(self, address: tuple[str, int], now: float) -> None:
        """A local socket error while sending a packet there: counts as a failed ping."""
        self._prober.send_failed(address, now)

    def leave(self, now: float) -> None:
        """Tells everybody; nothing is accused or refuted from now on. `has_left` says when the word is out."""
        if self._me.state == LEFT:
            return
        self._me.move(LEFT, now)
        self._prober.abandon()
        self._rumours.announce()

    def has_left(self) -> bool:
        """The leave was sent as often as any rumour, or there is nobody to hear it."""
        if self._me.state != LEFT:
            return False
        return self._me.name not in self._out.rumours or not any(peer.present for peer in self._members)

    def update_meta(self, meta: bytes) -> None:
        """New metadata under a new incarnation; nothing when it is unchanged, or after a leave. Raises MetaTooLarge."""
        _check_meta(meta)
        if meta != self._me.meta and self._me.state == ALIVE:
            self._me.meta = meta
            self._rumours.raise_incarnation(self._me.incarnation)
            self._rumours.announce()

    # ---- time --------------------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When `tick` is wanted next."""
        due = self._clock_due()
        return min(due, self._next_gossip) if self._out.rumours else due

    def _clock_due(self) -> float:
        """The deadlines that come by the clock alone; gossip waits for something to tell."""
        return min(self._prober.deadline(), self._rumours.deadline(), self._next_push_pull, self._next_reconnect)

    def tick(self, now: float) -> None:
        late = now - self._clock_due()
        if late > self._settings.stall:
            self._stood_still(late)
        self._rumours.expire(now)
        self._prober.tick(now)
        if self._out.rumours and self._next_gossip <= now:
            self._gossip(now)
        if self._next_push_pull <= now:
            self._push_pull(now)
        if self._next_reconnect <= now:
            self._reconnect(now)

    def take(self) -> Effects:
        """Everything to be done since the last call."""
        return self._out.take()

    def _stood_still(self, seconds: float) -> None:
        self._out.counters["stalls"] += 1
        self._awareness.apply(1)
        self._prober.postpone(seconds)
        self._rumours.postpone(seconds)

    def _gossip(self, now: float) -> None:
        def hears(peer: Peer) -> bool:
            return peer.present or (peer.state == DEAD and now - peer.since <= self._settings.gossip_to_the_dead)

        targets = self._members.choose(self._settings.gossip_nodes, hears)
        for peer in targets:
            self._out.send(peer.address, peer.name)
        # With nobody to hear it the rumours wait, and need not be looked at so often.
        self._next_gossip = now + (self._settings.gossip_interval if targets else self._settings.probe_interval)

    def _somebody_is_there(self, now: float) -> None:
        """Ends the longer pause of a node that had nobody to gossip with."""
        self._next_gossip = min(self._next_gossip, now + self._settings.gossip_interval)

    def _push_pull(self, now: float) -> None:
        self._next_push_pull = now + self._settings.push_pull_every(self._members.present())
        if self._me.state == ALIVE:
            for peer in self._members.choose(1, lambda other: other.state == ALIVE):
                self._out.push_pull(peer.address)

    def _reconnect(self, now: float) -> None:
        self._next_reconnect = now + self._settings.reconnect_interval
        self._out.counters["forgotten"] += self._members.forget(now - self._settings.retention)
        if self._me.state == ALIVE:
            for peer in self._members.choose(1, lambda other: other.state == DEAD):
                self._out.push_pull(peer.address)


def _check_meta(meta: bytes) -> None:
    if len(meta) > META_MAX:
        raise MetaTooLarge(len(meta))
