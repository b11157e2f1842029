"""What a Raft server shows an operator who looks at it closely: `GET /raft`, `clusterctl raft`. Data alone.

The Raft room fills in what the core knows, the supervisor's desk what others know: how long the disk takes, how large the files are, where the leader is asked.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs


@attrs.define(frozen=True)
class GetRaftReport:
    """Ask the supervisor, or the Raft actor for its part. -> RaftReport of this node alone; only a leader knows how far the others are."""


@attrs.define(frozen=True)
class ServerReport:
    """One server of the configuration, as the node that reports knows it.

    state: of a leader's followers probe (where the logs meet is not known yet), replicate, snapshot (it needs entries that are compacted away) or unreachable (no
    connection, or no answer for a lease); of the node itself its role; "" where it is not known. lag: entries between its log and the leader's end, None where not
    known. last_contact: seconds since the latest request that it answered was sent.
    """

    id: str
    address: str
    suffrage: str
    state: str = ""
    match_index: int | None = None
    next_index: int | None = None
    inflight: int = 0
    lag: int | None = None
    last_contact: float | None = None
    leaving: bool = False


class DiskTimes(NamedTuple):
    """Of the synced transactions of the Raft log since the start: how many, the mean, and bounds that half of them and 99 % were below. In seconds."""

    count: int = 0  # type: ignore[assignment]  # the field; tuple.count() is never wanted here
    mean: float = 0.0
    median: float = 0.0
    p99: float = 0.0


@attrs.define(frozen=True)
class RaftReport:
    """first_index: of what is in the log; snapshot_index, snapshot_term: of the last entry that is in the state machine alone, 0 in a log that was never compacted.
    configuration_index: of the entry with the configuration in force. log_bytes: of the log's file, free pages included; None without a data directory.
    leader_http: where the leader answers over HTTP, "" when it is not known."""

    node: str
    role: str
    term: int
    voted_for: str
    leader_id: str
    leader_addr: str
    first_index: int
    last_index: int
    last_term: int
    stored_index: int
    commit_index: int
    applied_index: int
    snapshot_index: int
    snapshot_term: int
    configuration_index: int
    servers: tuple[ServerReport, ...]
    leader_http: str = ""
    log_bytes: int | None = None
    fsync: DiskTimes = attrs.field(factory=DiskTimes)
