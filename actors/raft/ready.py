"""What the core wants done. The order in which it must be done is in the shape of the value (etcd-io/raft's idea).

A shell works through each `Ready`, in the order in which it got them:

1. send `before`; begin to send each of `snapshots`, beside everything else; answer `confirmed` and fail `unconfirmed`;
2. when there is a `mark`, replace the log by it; then store `truncate_from`, `entries` and `hard_state` in one transaction; then call
   `RaftCore.stored`, once for each Ready with `must_store`;
3. send `after`, answer `replies`;
4. give `committed` to the state machine, but for what a snapshot has brought it meanwhile, fail `abandoned`, publish `events`.

Steps 3 and 4 of a Ready wait until *every earlier* Ready is stored too, also when it stores nothing itself: an acknowledgement may
vouch for entries that an earlier Ready brought. Step 1 waits for nothing: a leader's own disk is one of the quorum's, not a gate before it
(Raft thesis, 10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import attrs

from coterie.actors.raft.log import HardState, SnapshotMark
from coterie.proto.raft_messages import (
    AppendRequest,
    Configuration,
    Entry,
    PreVoteRequest,
    Response,
    RpcError,
    Server,
    TimeoutNowRequest,
    VoteRequest,
)


class AppendToken(NamedTuple):
    """What the answer to an AppendEntries request needs: it carries no id, so whoever sent it keeps this beside it.

    `session` is that of the progress which sent it; `epoch` tells requests sent before a mismatch from those after it; `round` is the latest round of reads
    that had begun by then.
    """

    session: int
    epoch: int
    term: int
    prev: int
    length: int
    size: int
    sent_at: float
    round: int = 0


class VoteToken(NamedTuple):
    """`link` numbers the connection; `term` is the term campaigned for."""

    link: int
    term: int
    pre_vote: bool


class TransferToken(NamedTuple):
    session: int
    term: int


class SnapshotToken(NamedTuple):
    session: int
    term: int


Token = AppendToken | VoteToken | TransferToken


class Send(NamedTuple):
    """A request for a peer; its answer comes back through `RaftCore.response` with `token`."""

    peer: str
    address: str
    request: AppendRequest | VoteRequest | PreVoteRequest | TimeoutNowRequest
    token: Token


class SendSnapshot(NamedTuple):
    """A peer needs entries that are compacted away: send it a snapshot, whichever the state machine can give now. How that ended comes back through
    `RaftCore.snapshot_sent` with `token`, once."""

    peer: str
    address: str
    token: SnapshotToken


class ReadConfirmed(NamedTuple):
    """Whoever asked with `context` may answer from a state machine that has applied everything up to `index`. by_lease: no round was made for it."""

    context: object
    index: int  # type: ignore[assignment]  # of the log; tuple.index() is never wanted here
    by_lease: bool


@attrs.define(frozen=True)
class LeaderChanged:
    term: int
    leader: Server | None


@attrs.define(frozen=True)
class ElectionStarted:
    term: int
    pre_vote: bool


@attrs.define(frozen=True)
class ElectionEnded:
    term: int
    leader: Server | None


@attrs.define(frozen=True)
class BecameLeader:
    term: int


@attrs.define(frozen=True)
class LostLeadership:
    term: int
    reason: str


@attrs.define(frozen=True)
class ConfigurationChanged:
    """In force from its append on, committed or not; a truncation brings an older one back."""

    index: int
    configuration: Configuration


@attrs.define(frozen=True)
class TransferFailed:
    target: str
    reason: str


@attrs.define(frozen=True)
class DoubtSettled:
    """What this server had lost of its log is here again: it votes from now on."""

    term: int
    index: int


Event = (
    DoubtSettled | LeaderChanged | ElectionStarted | ElectionEnded | BecameLeader | LostLeadership | ConfigurationChanged | TransferFailed
)


@attrs.define
class Ready:
    """`committed` pairs each entry with the context of its proposal, None when this server did not propose it in this leadership.
    `abandoned` are contexts of proposals whose outcome this server will not learn: it lost its leadership before they committed. `mark`: the state machine has
    been replaced by a snapshot that ends there, and the log is to be, before anything else of this Ready is stored. `confirmed` are reads that may be answered,
    `unconfirmed` the contexts of those that this server, which does not lead any more, cannot answer for."""

    hard_state: HardState | None
    truncate_from: int | None
    entries: list[Entry]
    before: list[Send]
    after: list[Send]
    replies: list[tuple[object, Response | RpcError]]
    committed: Sequence[tuple[Entry, object | None]]
    abandoned: list[object]
    events: list[Event]
    mark: SnapshotMark | None = None
    snapshots: Sequence[SendSnapshot] = ()
    confirmed: Sequence[ReadConfirmed] = ()
    unconfirmed: Sequence[object] = ()

    @property
    def must_store(self) -> bool:
        return bool(self.entries) or self.hard_state is not None or self.truncate_from is not None or self.mark is not None
