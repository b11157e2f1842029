"""What a Raft server shows of itself: the core's state as a `RaftView`, for status, metrics and the supervisor. Pure.

A leader shows each server of the configuration with what it knows of its progress. Any other server knows only of itself, and shows the rest by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from coterie.actors.raft import core as core_module
from coterie.actors.raft.core import RaftCore
from coterie.actors.room_messages import PeerView, RaftView
from coterie.proto.raft_messages import NONVOTER, VOTER, Server

SUFFRAGE: Final = {VOTER: "voter", NONVOTER: "learner"}


def raft_view(
    core: RaftCore,
    me: str,
    now: float,
    counters: dict[str, int],
    where: Callable[[str], str] = lambda peer: "",
    waits_for: str = "",
) -> RaftView:
    """me: this server's id; counters: what it has counted, by reason; where: the address at which it reaches a peer; waits_for: as in `RaftView`."""
    leader = core.leader
    progress = {peer.id: peer for peer in core.progress()}
    return RaftView(
        role=core.role.value,
        term=core.term,
        leader_id=leader.id if leader else "",
        leader_addr=leader.address if leader else "",
        commit_index=core.commit,
        applied_index=core.applied,
        last_index=core.last_index,
        ready=core.serving,
        silent=core.silent(now),
        in_doubt=core.doubt is not None,
        waits_for=waits_for,
        servers=tuple(
            attrs.evolve(_peer_view(core, server, server.id == me, progress.get(server.id), now), reached_at=where(server.id))
            for server in core.configuration.servers
        ),
        configuration_is_news=core.configuration_is_news,
        counters=counters,
    )


def _peer_view(core: RaftCore, server: Server, own: bool, progress: core_module.PeerView | None, now: float) -> PeerView:
    suffrage = SUFFRAGE.get(server.suffrage, "staging")
    if own:
        return PeerView(server.id, server.address, suffrage, core.stored_index, 0.0, core.role.value)
    if progress is None:
        return PeerView(server.id, server.address, suffrage)
    return PeerView(server.id, server.address, suffrage, progress.match, now - progress.contact, progress.state.value)
