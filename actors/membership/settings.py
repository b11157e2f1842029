"""The numbers of the protocol and the formulas that scale them with the size of the cluster.

Defaults are memberlist's for a LAN, so that our nodes and Go nodes suspect, spread and forget at the same pace. All times are seconds.
Four numbers are ours: how long a dead or left name is remembered, how often a dead member is dialled again, how soon a dead member's
name may come back at another address, and how far an incarnation may jump (see `rumours`).
"""

from __future__ import annotations

import math

import attrs


@attrs.define(frozen=True)
class Settings:
    probe_interval: float = 1.0
    probe_timeout: float = 0.5
    indirect_checks: int = 3
    suspicion_mult: int = 4
    suspicion_max_mult: int = 6
    awareness_max: int = 8
    gossip_interval: float = 0.2
    gossip_nodes: int = 3
    gossip_to_the_dead: float = 30.0
    retransmit_mult: int = 4
    push_pull_interval: float = 30.0
    stream_timeout: float = 10.0
    # Bytes of a packet before encryption and label, which the shell subtracts: a datagram stays within 1400.
    packet_bytes: int = 1400
    # A dead or left name is kept this long: it refuses old rumours, is shown to operators, and a dead one is dialled again.
    retention: float = 24 * 3600.0
    reconnect_interval: float = 10.0
    # A dead member's name may be taken by another address this long after its death (a left one's at once).
    reclaim_after: float = 0.0
    incarnation_jump: int = 1 << 20
    # A tick that comes this late means that this process stood still: nobody is accused for what could not be heard meanwhile.
    stall: float = 1.0
    max_members: int = 65_536
    max_relays: int = 1024

    def retransmit_limit(self, members: int) -> int:
        """How many packets carry one rumour."""
        return self.retransmit_mult * math.ceil(math.log10(members + 1))

    def suspicion_bounds(self, members: int) -> tuple[float, float]:
        """(least, most) seconds between a suspicion and death; the scale is cut to a thousandth, as in Go."""
        scale = math.floor(max(1.0, math.log10(max(1, members))) * 1000) / 1000
        least = self.suspicion_mult * scale * self.probe_interval
        return least, self.suspicion_max_mult * least

    def confirmations_wanted(self, members: int) -> int:
        """Accusers beyond the first that bring a suspicion down to its least time; 0 where there are not enough nodes to give them."""
        wanted = self.suspicion_mult - 2
        return 0 if members - 2 < wanted else wanted

    def push_pull_every(self, members: int) -> float:
        """Seconds between two full exchanges: longer above 32 members, since each costs the whole table."""
        if members <= 32:
            return self.push_pull_interval
        return self.push_pull_interval * (1 + math.ceil(math.log2(members) - 5))
