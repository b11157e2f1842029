"""What a Raft server shows an operator: the core's state as a `RaftReport`. Pure.

A leader shows each server of the configuration, and those that are on their way out, with what it knows of their progress. Any other server knows only of itself.
"""

from __future__ import annotations

from coterie.actors.raft.core import PeerView, RaftCore
from coterie.actors.raft.log import RaftLog
from coterie.actors.raft.views import SUFFRAGE
from coterie.actors.raft_report import RaftReport, ServerReport
from coterie.proto.raft_messages import Server

UNREACHABLE = "unreachable"


def raft_report(core: RaftCore, log: RaftLog, me: str, now: float) -> RaftReport:
    """me: this server's id. Raises StorageError."""
    leader, before = core.leader, log.first_index - 1
    progress, silent = {peer.id: peer for peer in core.progress()}, core.silent(now)
    servers = [_server(core, server, me, progress.get(server.id), silent, now) for server in core.servers()]
    return RaftReport(
        node=me,
        role=core.role.value,
        term=core.term,
        voted_for=core.voted_for,
        leader_id=leader.id if leader else "",
        leader_addr=leader.address if leader else "",
        first_index=log.first_index,
        last_index=core.last_index,
        last_term=core.last_term,
        stored_index=core.stored_index,
        commit_index=core.commit,
        applied_index=core.applied,
        snapshot_index=before,
        snapshot_term=log.term(before) if before else 0,
        configuration_index=core.configuration_index,
        servers=tuple(servers),
    )


def _server(core: RaftCore, server: Server, me: str, progress: PeerView | None, silent: frozenset[str], now: float) -> ServerReport:
    suffrage = SUFFRAGE.get(server.suffrage, "staging") if core.configuration.get(server.id) is not None else "removed"
    if server.id == me:
        lag = core.last_index - core.stored_index if core.leader is not None and core.leader.id == me else None
        return ServerReport(server.id, server.address, suffrage, core.role.value, core.stored_index, lag=lag, last_contact=0.0)
    if progress is None:
        return ServerReport(server.id, server.address, suffrage)
    state = UNREACHABLE if server.id in silent else progress.state.value
    return ServerReport(
        server.id,
        server.address,
        suffrage,
        state,
        progress.match,
        progress.next,
        progress.inflight,
        max(0, core.last_index - progress.match),
        max(0.0, now - progress.contact),
        progress.leaving,
    )
