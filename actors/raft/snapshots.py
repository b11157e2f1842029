"""InstallSnapshot: a follower that needs entries which are compacted away gets the state that they made (Raft paper, 7).

The state machine is not Raft's, so neither is the content of a snapshot: on the leader the core says who needs one (`Ready.snapshots`), on the follower whether
it is wanted (`on_snapshot_request`). While it is on its way, over a connection of its own, heartbeats go on. The follower's shell first
puts the content in the place of its state machine, durably, and then tells the core (`install`), which puts the end of the snapshot in the place
of its log. So a crash in between leaves a state machine that is ahead of the log, with the mark of the snapshot beside it, and the restart
finishes what was begun; the other order could lose both.

A snapshot holds only what is committed. It may therefore be installed whoever leads by now, and a log that has its last entry keeps all that follows.

One of a Go leader tells the roster and no topics; `foreign_snapshots` says what becomes of it. To the core it is a snapshot like another.
"""

from __future__ import annotations

from coterie.actors.raft.doubt import matched
from coterie.actors.raft.following import follow, is_strange
from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.node import Node, Role
from coterie.actors.raft.progress import Progress, ProgressState
from coterie.actors.raft.ready import SendSnapshot, SnapshotToken
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import GO_SNAPSHOT, OTHER_FORM, OWN_SNAPSHOT, Response, RpcError, SnapshotRequest, SnapshotResponse

# -- a follower --------------------------------------------------------------------------------------------------------------------------


def on_snapshot_request(node: Node, request: SnapshotRequest) -> SnapshotResponse | RpcError | None:
    """None: the content is wanted, and the answer comes when it is installed. Otherwise the answer; the content is not looked at."""
    if is_strange(node, request.header):
        node.counters["snapshots_of_strangers"] += 1
        return RpcError(f"{request.header.id!r} is no server of the configuration here, which has a leader of its own in term {node.term}")
    if request.term < node.term:
        return SnapshotResponse(node.header, node.term, success=False)
    if request.term == node.term and node.role is Role.LEADER:
        node.counters["second_leader_of_term"] += 1
        return RpcError(f"term {node.term} is led by {node.me.id}, which is this server")
    refusal = _unusable(request)
    if refusal is not None:
        node.counters["snapshots_refused"] += 1
        return RpcError(refusal, SnapshotResponse(node.header, node.term, success=False))
    follow(node, request.header, request.term)
    if request.last_index <= node.commit:
        return SnapshotResponse(node.header, node.term, success=True)
    return None


def _unusable(request: SnapshotRequest) -> str | None:
    if request.snapshot_version not in (OWN_SNAPSHOT, GO_SNAPSHOT):
        return f"{OTHER_FORM} {request.snapshot_version}"
    if not request.size:
        return "an empty snapshot"
    if not request.last_index or not request.last_term or request.configuration_index > request.last_index:
        return f"a snapshot up to entry {request.last_index} of term {request.last_term}, configuration {request.configuration_index}: not possible"
    try:
        configuration = decode_configuration(request.configuration)
    except WireError as problem:
        return f"the configuration of the snapshot does not decode: {problem}"
    return None if configuration.voters() else "the configuration of the snapshot has no voter"


def mark_of(request: SnapshotRequest) -> SnapshotMark:
    """Raises WireError; not for a request that was wanted."""
    return SnapshotMark(request.last_index, request.last_term, request.configuration_index, decode_configuration(request.configuration))


def install(node: Node, mark: SnapshotMark) -> bool:
    """The state machine holds everything up to `mark`, durably. True when that also replaces the log, and with it what the state machine was given."""
    if mark.index <= node.commit or node.role is Role.LEADER:  # a leader has all that is committed, and finds out by itself
        return False
    replaced = _install(node, mark)
    if node.doubt is not None:
        matched(node, mark.index)
    return replaced


def _install(node: Node, mark: SnapshotMark) -> bool:
    if node.log.matches(mark.index, mark.term):
        node.set_commit(mark.index)
        return False
    node.abandoned += [context for context in node.contexts if context is not None]
    node.contexts.clear()
    before = node.configuration
    node.log.reset(mark.index, mark.term)
    node.configurations.reset(mark.configuration_index, mark.configuration)
    if node.configuration != before:
        node.configuration_changed()
    node.set_commit(mark.index)
    node.mark = mark
    node.counters["snapshots_installed"] += 1
    return True


# -- a leader ----------------------------------------------------------------------------------------------------------------------------


def need_snapshot(node: Node, progress: Progress) -> None:
    """Entries that this follower needs are gone."""
    progress.state = ProgressState.SNAPSHOT
    progress.reaches = 0
    progress.snapshot_under_way = True
    node.snapshots.append(SendSnapshot(progress.peer, progress.address, SnapshotToken(progress.session, node.term)))
    node.counters["followers_behind_the_log"] += 1


def try_snapshot(node: Node, progress: Progress) -> None:
    """After the pause: send one again, unless the follower has said meanwhile that it reaches into our log. Then the one whose answer was lost, or waited for in
    vain, was installed after all: another one would only be newer, and as late (hashicorp/raft 697)."""
    if progress.reaches >= node.log.first_index - 1:
        progress.probe(node.log.first_index)
        node.pump_wanted = True
    else:
        need_snapshot(node, progress)


def on_snapshot_sent(node: Node, progress: Progress, index: int, message: Response | RpcError | None) -> None:
    """The sending of a snapshot up to `index` ended, in this session and term. What failed is tried again after a pause that grows: an install that never
    succeeds must not keep a leader busy (hashicorp/raft 697)."""
    progress.snapshot_under_way = False
    if isinstance(message, SnapshotResponse) and message.term > node.term:
        node.become_follower(message.term, None, f"{progress.peer} is in a later term")
    elif isinstance(message, SnapshotResponse) and message.success:
        node.counters["snapshots_sent"] += 1
        progress.snapshot_installed(index)
        node.pump_wanted = True
    else:
        node.counters["snapshots_failed"] += 1
        if progress.state is ProgressState.SNAPSHOT:
            progress.back_off_snapshot(node.now)
