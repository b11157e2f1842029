"""What a leader knows of one follower.

Progress belongs to a *session*: a connection, in one leadership, of one membership of the peer. Each gets a number of its own, requests
carry it in their token, and an answer with another number is dropped. So neither a late reply of an earlier connection nor one from before
the peer was removed and added again can move `match` (etcd-io/raft issue 349).

States:
- PROBE: it is not known where the logs meet; one request at a time.
- REPLICATE: they met; requests follow each other without waiting, bounded in number and bytes, `next` runs ahead.
- SNAPSHOT: the follower needs entries that were compacted away; only heartbeats go to it.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

INITIAL_BACKOFF: Final = 0.01
MAX_BACKOFF: Final = 1.0
INITIAL_SNAPSHOT_BACKOFF: Final = 0.5
MAX_SNAPSHOT_BACKOFF: Final = 30.0


class ProgressState(enum.Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@attrs.define(frozen=True)
class PeerView:
    """A leader's view of a peer, for status and metrics. `contact`: when the latest answered request was sent (monotonic seconds)."""

    id: str
    state: ProgressState
    connected: bool
    match: int
    next: int
    inflight: int
    inflight_bytes: int
    contact: float
    leaving: bool

    @property
    def needs_snapshot(self) -> bool:
        return self.state is ProgressState.SNAPSHOT


class Progress:
    """`match`: highest index known to be on the follower's disk in this session. `next`: first index not sent yet. match < next."""

    __slots__ = (
        "address",
        "answered",
        "backoff",
        "commit_sent",
        "connected",
        "contact",
        "epoch",
        "heard",
        "inflight",
        "inflight_bytes",
        "last_sent",
        "match",
        "next",
        "optimistic",
        "peer",
        "reaches",
        "removal_deadline",
        "removal_index",
        "retry_at",
        "round",
        "round_sent",
        "session",
        "snapshot_backoff",
        "snapshot_under_way",
        "state",
        "step",
        "unanswered_heartbeats",
    )

    def __init__(self, peer: str, address: str, session: int, connected: bool, next_index: int, now: float) -> None:
        self.peer, self.address = peer, address
        self.contact = now  # when the latest request that was answered had been sent; at first, when this began
        self.answered = float("-inf")  # the same, but by answers alone: what a lease rests on
        self.heard = now  # when that answer came
        self.removal_index = 0  # above 0: no longer in the configuration since that entry
        self.removal_deadline = 0.0
        self.snapshot_backoff = INITIAL_SNAPSHOT_BACKOFF
        self.begin(session, connected, next_index, now)

    def begin(self, session: int, connected: bool, next_index: int, now: float) -> None:
        """A new session: nothing of an earlier one is believed."""
        self.session = session
        self.connected = connected
        self.state = ProgressState.PROBE
        self.match = 0
        self.next = next_index
        self.epoch = 0
        self.inflight = 0
        self.inflight_bytes = 0
        self.unanswered_heartbeats = 0
        self.commit_sent = 0
        self.last_sent = float("-inf")
        self.round = self.round_sent = 0  # of reads: the latest that it has answered for, and that it has been sent
        self.step = 1
        self.optimistic = True
        self.retry_at = now
        self.backoff = INITIAL_BACKOFF
        self.snapshot_under_way = False
        self.reaches = 0  # where its log ends, by its latest answer while it is in SNAPSHOT

    def probe(self, next_index: int) -> None:
        """Go back to asking one at a time; answers to what is in flight no longer steer."""
        self.state = ProgressState.PROBE
        self.next = max(next_index, self.match + 1)
        self.epoch += 1
        self.inflight = 0
        self.inflight_bytes = 0
        self.commit_sent = 0
        self.optimistic = False

    def advanced(self, match: int) -> bool:
        """The follower has everything up to `match` on its disk. True when that is news. A probe is over when what matches reaches it; a
        heartbeat's answer while the meeting point is unknown only says what was known."""
        news = match > self.match
        if news:
            self.match = match
            self.next = max(self.next, match + 1) if self.state is not ProgressState.PROBE else self.next
        if self.state is ProgressState.PROBE and self.match >= self.next - 1:
            self.state = ProgressState.REPLICATE
            self.next = self.match + 1
            self.step = 1
        self.backoff = INITIAL_BACKOFF
        return news

    def back_off(self, now: float) -> None:
        self.retry_at = now + self.backoff
        self.backoff = min(self.backoff * 2, MAX_BACKOFF)

    def snapshot_installed(self, index: int) -> None:
        """Its state machine is that of `index`; what it has of the log is to be found out."""
        self.snapshot_backoff = INITIAL_SNAPSHOT_BACKOFF
        self.match = max(self.match, index)
        self.probe(self.match + 1)

    def back_off_snapshot(self, now: float) -> None:
        self.retry_at = now + self.snapshot_backoff
        self.snapshot_backoff = min(self.snapshot_backoff * 2, MAX_SNAPSHOT_BACKOFF)

    def waits_for_snapshot(self) -> bool:
        """A snapshot is to be sent, now or after its back-off."""
        return self.connected and self.state is ProgressState.SNAPSHOT and not self.snapshot_under_way

    def waits_for_probe(self) -> bool:
        """A probe is to be sent, now or after its back-off."""
        return self.connected and self.state is ProgressState.PROBE and not self.inflight

    def view(self) -> PeerView:
        return PeerView(
            self.peer,
            self.state,
            self.connected,
            self.match,
            self.next,
            self.inflight,
            self.inflight_bytes,
            self.contact,
            bool(self.removal_index),
        )
