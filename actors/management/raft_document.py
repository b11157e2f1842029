"""`GET /raft` as JSON: the names of the fields are in the manner of the status."""

from __future__ import annotations

import math
from typing import Any

from coterie.actors.raft_report import RaftReport, ServerReport

__all__ = ["raft_document"]


def raft_document(report: RaftReport) -> dict[str, Any]:
    fsync = report.fsync
    return {
        "Node": report.node,
        "Role": report.role,
        "Term": report.term,
        "VotedFor": report.voted_for,
        "LeaderID": report.leader_id,
        "LeaderAddr": report.leader_addr,
        "LeaderHTTP": report.leader_http,
        "FirstIndex": report.first_index,
        "LastIndex": report.last_index,
        "LastTerm": report.last_term,
        "StoredIndex": report.stored_index,
        "CommitIndex": report.commit_index,
        "AppliedIndex": report.applied_index,
        "SnapshotIndex": report.snapshot_index,
        "SnapshotTerm": report.snapshot_term,
        "ConfigurationIndex": report.configuration_index,
        "LogBytes": report.log_bytes,
        "Fsync": {"Count": fsync.count, "Mean": _seconds(fsync.mean), "MedianBelow": _bound(fsync.median), "P99Below": _bound(fsync.p99)},
        "Servers": [_server(server) for server in report.servers],
    }


def _server(server: ServerReport) -> dict[str, Any]:
    return {
        "ID": server.id,
        "Address": server.address,
        "Suffrage": server.suffrage,
        "State": server.state,
        "MatchIndex": server.match_index,
        "NextIndex": server.next_index,
        "Inflight": server.inflight,
        "Lag": server.lag,
        "LastContact": _seconds(server.last_contact),
        "Leaving": server.leaving,
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _bound(value: float) -> float | None:
    """JSON has no infinity: None where no bound is known."""
    return value if math.isfinite(value) else None
