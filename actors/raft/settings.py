"""The knobs of one Raft server. Times are seconds, sizes are bytes; the defaults of the timings are hashicorp/raft's own."""

from __future__ import annotations

from typing import Any, Final

import attrs

MIB: Final = 1 << 20
CLOCK_MARGIN: Final = 0.1  # of a lease: by so much the clocks of two servers may differ in pace


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name}={value!r}: must be above 0")


def _seconds(default: float) -> float:
    return attrs.field(default=default, validator=_positive)


def _count(default: int) -> int:
    return attrs.field(default=default, validator=_positive)


@attrs.define(frozen=True, kw_only=True)
class Settings:
    """heartbeat_timeout: a follower that heard nothing for a random time in [t, 2t) asks for pre-votes. A leader speaks every tenth of it.
    election_timeout: how long a candidate waits, again in [t, 2t); also the deadline of a leadership transfer.
    lease_timeout: a leader without an answer of a quorum for this long steps down. Not above heartbeat_timeout.
    commit_timeout: the longest a follower waits for a newer commit index while its window is busy.
    commit_pause: how long a newer commit index waits for entries to ride on, so that a stream of single proposals needs one request each and not two.
    disconnect_grace: after the connection to the leader broke, silence of [t, 2t) is enough to ask for pre-votes.
    store_timeout: a leader whose disk has not answered for this long steps down.
    """

    heartbeat_timeout: float = _seconds(1.0)
    election_timeout: float = _seconds(1.0)
    lease_timeout: float = _seconds(0.5)
    commit_timeout: float = _seconds(0.05)
    commit_pause: float = _seconds(0.001)
    disconnect_grace: float = _seconds(0.15)
    store_timeout: float = _seconds(1.5)

    max_append_entries: int = _count(4096)  # of one AppendEntries request; a receiver takes any number
    max_append_bytes: int = _count(1 * MIB)
    max_inflight: int = _count(64)  # unanswered requests with entries, per follower
    max_inflight_bytes: int = _count(8 * MIB)
    max_catch_up_entries: int = _count(1024)  # of one request, for a follower that needs what is not in memory any more
    max_catch_up_inflight: int = _count(2)  # unanswered requests of such a follower
    max_unanswered_heartbeats: int = _count(4)
    cache_bytes: int = _count(8 * MIB)  # recent entries kept in memory; the collector of garbage walks all of them now and then

    trailing_entries: int = _count(10_240)  # kept of what the state machine has, for followers that were away for a while
    trailing_bytes: int = _count(64 * MIB)
    trailing_age: float = 0.0  # seconds; 0.0: however old

    apply_chunk_entries: int = _count(2048)  # committed entries handed out in one Ready
    apply_chunk_bytes: int = _count(4 * MIB)
    apply_window_entries: int = _count(16384)  # handed out, but not yet applied
    apply_window_bytes: int = _count(32 * MIB)

    @property
    def heartbeat_interval(self) -> float:
        return self.heartbeat_timeout / 10

    @property
    def voters_hold(self) -> float:
        """For so long after a leader has spoken to it, a server gives no vote to another, whatever it hears: the shortest patience that any server may have. The
        same on all servers of a quorum, or a lease is worth nothing."""
        return min(self.disconnect_grace, self.heartbeat_timeout)

    @property
    def read_lease(self) -> float:
        """For so long after a request was sent that a quorum has answered, no other leader can have been elected, by the clock of the leader that sent it."""
        return min(self.lease_timeout, self.voters_hold) * (1.0 - CLOCK_MARGIN)

    def __attrs_post_init__(self) -> None:
        if self.lease_timeout > self.heartbeat_timeout:
            raise ValueError(
                f"lease_timeout={self.lease_timeout!r}: must not be above heartbeat_timeout={self.heartbeat_timeout!r}, "
                "or two servers may believe that they lead"
            )
