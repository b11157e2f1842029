"""Failure detection: one probe at a time (SWIM, section 3.1; Lifeguard, section IV.A; memberlist adds the ping over TCP).

    start ──ping──► wait `probe_timeout` ──► indirect pings through 3 helpers, and a ping over TCP ──► end of the probe interval: suspect

An acknowledgement at any moment ends the probe well; a ping that our own socket refused does not wait, but goes on to the helpers at once.
The answer over TCP counts at the end only. The interval grows with this node's own ill health. Helpers that neither
acknowledge nor say `nack` speak against us, not against the probed member. A suspect's ping carries the suspicion, so that it can refute it
(buddy system); and whoever pings us while we believe it to be suspect, dead or gone is told so with the answer.

A probe is known by its sequence number: a late answer finds no probe and is counted.
"""

from __future__ import annotations

import math

from coterie.actors.membership.awareness import Awareness
from coterie.actors.membership.effects import StreamPing
from coterie.actors.membership.members import Members, Peer
from coterie.actors.membership.outbox import Outbox
from coterie.actors.membership.rumours import Rumours
from coterie.actors.membership.settings import Settings
from coterie.proto.gossip_messages import ALIVE, Ack, IndirectPing, Nack, Ping, Suspect

# Since which protocol version a member answers a ping over TCP, and says nack.
STREAM_PING_SINCE = 3
NACK_SINCE = 4


class Probe:
    """One probe under way. `indirect`: the helpers were asked; `stream`: what the ping over TCP brought, None while it is awaited."""

    __slots__ = ("ends", "expected_nacks", "incarnation", "indirect", "indirect_at", "nacks", "peer", "seq_no", "started", "stream")

    def __init__(self, seq_no: int, peer: Peer, now: float, timeout: float, interval: float) -> None:
        self.seq_no, self.peer, self.incarnation = seq_no, peer, peer.incarnation
        self.started, self.indirect_at, self.ends = now, now + timeout, now + interval
        self.indirect = False
        self.stream: bool | None = None
        self.nacks = self.expected_nacks = 0


class Relay:
    """A ping on another's behalf; its `nack` is due at `deadline`."""

    __slots__ = ("address", "deadline", "nack", "node", "seq_no")

    def __init__(self, seq_no: int, address: tuple[str, int], node: str, nack: bool, deadline: float) -> None:
        self.seq_no, self.address, self.node, self.nack, self.deadline = seq_no, address, node, nack, deadline


class Prober:
    def __init__(self, settings: Settings, members: Members, outbox: Outbox, awareness: Awareness, rumours: Rumours, now: float) -> None:
        self._settings, self._members, self._out, self._awareness, self._rumours = settings, members, outbox, awareness, rumours
        self._counters = outbox.counters
        self._seq_no = 0
        self._probe: Probe | None = None
        self._relays: dict[int, Relay] = {}
        self._next = now + settings.probe_interval

    # ---- time --------------------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        relays = min((relay.deadline for relay in self._relays.values()), default=math.inf)
        probe = self._probe
        if probe is None:
            return min(relays, self._next)
        return min(relays, probe.ends if probe.indirect else probe.indirect_at)

    def tick(self, now: float) -> None:
        for seq_no in [seq_no for seq_no, relay in self._relays.items() if relay.deadline <= now]:
            relay = self._relays.pop(seq_no)
            if relay.nack:
                self._out.send(relay.address, relay.node, Nack(relay.seq_no))
        probe = self._probe
        if probe is not None and not probe.indirect and probe.indirect_at <= now:
            self._ask_helpers(probe, now)
        if probe is not None and probe.ends <= now:
            self._fail(probe, now)
        if self._probe is None and self._next <= now:
            self._start(now)

    def postpone(self, seconds: float) -> None:
        self._next += seconds
        for relay in self._relays.values():
            relay.deadline += seconds
        if self._probe is not None:
            self._probe.indirect_at += seconds
            self._probe.ends += seconds

    # ---- our own probes ----------------------------------------------------------------------------------------------------------

    def _start(self, now: float) -> None:
        self._next = now + self._settings.probe_interval
        peer = self._members.next_to_probe()
        if peer is None:
            return
        probe = Probe(self._next_seq_no(), peer, now, self._settings.probe_timeout, self._awareness.scale(self._settings.probe_interval))
        self._probe = probe
        me = self._members.me
        ping = self._ping(probe.seq_no, peer.name)
        if peer.state == ALIVE:
            self._out.send(peer.address, peer.name, ping)
        else:
            self._out.send(peer.address, peer.name, ping, Suspect(peer.incarnation, peer.name, me.name))

    def _ask_helpers(self, probe: Probe, now: float) -> None:
        probe.indirect = True
        # A tick that comes late shortens nobody's time to answer.
        probe.ends = max(probe.ends, now + self._settings.probe_timeout)
        me, peer = self._members.me, probe.peer
        for helper in self._members.choose(self._settings.indirect_checks, lambda other: other is not peer and other.state == ALIVE):
            nack = helper.protocol_max >= NACK_SINCE
            probe.expected_nacks += nack
            request = IndirectPing(probe.seq_no, peer.ip, peer.port, peer.name, nack, me.ip, me.port, me.name)
            self._out.send(helper.address, helper.name, request)
        if peer.protocol_max >= STREAM_PING_SINCE:
            ping = self._ping(probe.seq_no, peer.name)
            self._out.stream_ping(StreamPing(peer.ip, peer.port, ping, max(probe.ends - now, 0.0)))

    def _fail(self, probe: Probe, now: float) -> None:
        self._probe = None
        if probe.stream:
            self._counters["probe_only_over_stream"] += 1
            self._awareness.apply(-1)
            return
        self._counters["probe_failed"] += 1
        if probe.expected_nacks == 0:
            self._awareness.apply(1)
        else:
            self._awareness.apply(max(probe.expected_nacks - probe.nacks, 0))
        self._rumours.suspect(Suspect(probe.incarnation, probe.peer.name, self._members.me.name), now)

    def stream_pinged(self, seq_no: int, answered: bool) -> None:
        if self._probe is not None and self._probe.seq_no == seq_no:
            self._probe.stream = answered

    def send_failed(self, address: tuple[str, int], now: float) -> None:
        """Our own socket refused a packet to that address: if its ping is under way, it has failed already."""
        self._counters["send_failed"] += 1
        probe = self._probe
        if probe is not None and not probe.indirect and probe.peer.address == address:
            self._ask_helpers(probe, now)

    def abandon(self) -> None:
        """No more accusations: this node leaves."""
        self._probe = None
        self._next = math.inf

    # ---- what others send --------------------------------------------------------------------------------------------------------

    def ping(self, said: Ping, source: tuple[str, int]) -> None:
        me = self._members.me
        if said.node and said.node != me.name:
            self._counters["ping_for_another"] += 1
            return
        address = (said.source_ip, said.source_port) if said.source_ip and said.source_port else source
        self._out.send(address, said.source_node, Ack(said.seq_no), *self._believed_of(said.source_node))

    def _believed_of(self, name: str) -> tuple[Suspect, ...]:
        peer = self._members.get(name) if name else None
        if peer is None or peer.state == ALIVE or peer is self._members.me:
            return ()
        return (Suspect(peer.incarnation, peer.name, self._members.me.name),)

    def indirect_ping(self, said: IndirectPing, source: tuple[str, int], now: float) -> None:
        if len(self._relays) >= self._settings.max_relays:
            self._counters["relay_limit"] += 1
            return
        if not said.target_ip or not said.port:
            self._counters["relay_bad_address"] += 1
            return
        origin = (said.source_ip, said.source_port) if said.source_ip and said.source_port else source
        seq_no = self._next_seq_no()
        self._relays[seq_no] = Relay(said.seq_no, origin, said.source_node, said.nack, now + self._settings.probe_timeout)
        self._out.send((said.target_ip, said.port), said.node, self._ping(seq_no, said.node))

    def ack(self, said: Ack) -> None:
        relay = self._relays.pop(said.seq_no, None)
        if relay is not None:
            self._out.send(relay.address, relay.node, Ack(relay.seq_no))
        elif self._probe is not None and self._probe.seq_no == said.seq_no:
            self._probe = None
            self._awareness.apply(-1)
        else:
            self._counters["ack_late"] += 1

    def nack(self, said: Nack) -> None:
        if self._probe is not None and self._probe.seq_no == said.seq_no:
            self._probe.nacks += 1
        else:
            self._counters["nack_late"] += 1

    # ---- common ------------------------------------------------------------------------------------------------------------------

    def _ping(self, seq_no: int, node: str) -> Ping:
        me = self._members.me
        return Ping(seq_no, node, me.ip, me.port, me.name)

    def _next_seq_no(self) -> int:
        self._seq_no = self._seq_no % 0xFFFFFFFF + 1
        return self._seq_no
