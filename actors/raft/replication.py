"""The leader's side of AppendEntries: a sliding window for each follower, commitment, heartbeats and the lease.

Nothing is sent when a proposal arrives: `pump` runs once for each Ready, so whatever came together leaves together, and the commit
index rides on entries when there are any. Two followers at the same place get the same tuple of entries, which the shell encodes once.

Commitment counts copies on disks, and only for entries of the leader's own term (Raft paper, 5.4.2); its own copy counts from the report
that it is stored. `match` comes from the token of a request, never from what an answer says of the follower's log: hashicorp's `LastLog`
is the index before the request.

An AppendEntries never carries a commit index beyond its own last entry: hashicorp's follower clips it to its own last index, and
would otherwise commit a tail that has not been compared yet.
"""

from __future__ import annotations

from collections.abc import Callable

from coterie.actors.raft.node import Node, Role, Transfer
from coterie.actors.raft.progress import Progress, ProgressState
from coterie.actors.raft.ready import AppendToken, BecameLeader, Send, TransferFailed, TransferToken
from coterie.actors.raft.snapshots import need_snapshot, try_snapshot
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import (
    CONFIGURATION,
    NOOP,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Response,
    RpcError,
    Server,
    TimeoutNowRequest,
)

Shared = dict[tuple[int, int], tuple[tuple[Entry, ...], int]]


def become_leader(node: Node) -> None:
    """Won an election (Raft paper, 5.2): a no-op of the new term makes what earlier terms left commit (5.4.2)."""
    node.role = Role.LEADER
    node.votes.clear()
    node.transferring_to_me = False
    node.set_leader(node.me)
    node.events.append(BecameLeader(node.term))
    # Entries of an earlier leadership that are committed but not handed out yet keep their contexts; those up to now have none.
    if not node.contexts:
        node.contexts_from = node.log.last_index + 1
    node.contexts += [None] * (node.log.last_index + 1 - node.contexts_from - len(node.contexts))
    sync_progress(node)
    node.first_of_leadership = append(node, NOOP, None, None)


def append(node: Node, kind: int, data: bytes | None, context: object | None) -> int:
    """Append one entry of the present term; its index."""
    index = node.log.last_index + 1
    node.log.append((Entry(index, node.term, kind, data),))
    node.contexts.append(context)
    node.pump_wanted = True
    return index


def append_configuration(node: Node, configuration: Configuration, context: object | None) -> int:
    """In force at once (Raft thesis, 4.1)."""
    index = append(node, CONFIGURATION, encode_configuration(configuration), context)
    node.configurations.append(index, configuration)
    node.configuration_changed()
    sync_progress(node)
    return index


def sync_progress(node: Node) -> None:
    """Make the followers those of the configuration. A server that left is told so, until an election time-out after it was last heard."""
    present = {server.id: server.address for server in node.configuration.servers if server.id != node.me.id}
    for peer, address in present.items():
        progress = node.progress.get(peer)
        if progress is None or progress.removal_index:
            node.progress[peer] = Progress(peer, address, node.next_number(), peer in node.links, node.log.last_index + 1, node.now)
        else:
            progress.address = address
    for peer, progress in node.progress.items():
        if peer not in present and not progress.removal_index:
            progress.removal_index = node.configurations.index
            progress.removal_deadline = progress.contact + node.settings.election_timeout
    node.pump_wanted = True


def forget_departed(node: Node) -> None:
    for peer, progress in list(node.progress.items()):
        if progress.removal_index and (progress.match >= progress.removal_index or node.now >= progress.removal_deadline):
            del node.progress[peer]


# -- sending -----------------------------------------------------------------------------------------------------------------------------


def pump(node: Node) -> None:
    """Send every follower what its window takes."""
    node.pump_wanted = False
    shared: Shared = {}
    for progress in node.progress.values():
        if not progress.connected:
            continue
        if progress.state is ProgressState.REPLICATE:
            _fill_window(node, progress, shared)
        elif node.now >= progress.retry_at:
            if progress.waits_for_probe():
                _probe(node, progress, shared)
            elif progress.waits_for_snapshot():
                try_snapshot(node, progress)


def _fill_window(node: Node, progress: Progress, shared: Shared) -> None:
    """A follower that needs entries from the disk gets few and small requests, one for each that it answers: reading and packing what has long been written would
    otherwise keep the leader from what is new, for as long as a whole window takes."""
    settings, last = node.settings, node.log.last_index
    while progress.next <= last and progress.inflight < settings.max_inflight and progress.inflight_bytes < settings.max_inflight_bytes:
        if progress.next < node.log.first_index:
            need_snapshot(node, progress)
            return
        if progress.next < node.log.first_in_memory and progress.inflight >= settings.max_catch_up_inflight:
            break
        _send_entries(node, progress, *_batch(node, progress.next, shared))
    if _owes_commit(node, progress) and node.now >= speak_at(node, progress):
        _send_empty(node, progress)


def _probe(node: Node, progress: Progress, shared: Shared) -> None:
    """The first probe hopes that nothing is missing, and carries what is new; those after a mismatch only look for the place."""
    if progress.next < node.log.first_index:
        need_snapshot(node, progress)
    elif progress.optimistic and progress.next <= node.log.last_index:
        _send_entries(node, progress, *_batch(node, progress.next, shared))
    else:
        _send_entries(node, progress, (), 0)


def _batch(node: Node, first: int, shared: Shared) -> tuple[tuple[Entry, ...], int]:
    """(entries, their size) from `first` on, the same objects for everybody who is at that place."""
    settings = node.settings
    most = settings.max_append_entries if first >= node.log.first_in_memory else settings.max_catch_up_entries
    last = min(node.log.last_index, first + most - 1)
    found = shared.get((first, last))
    if found is None:
        entries = node.log.entries(first, last, settings.max_append_bytes)
        found = shared[first, last] = (tuple(entries), node.log.size(entries))
    return found


def _send_entries(node: Node, progress: Progress, entries: tuple[Entry, ...], size: int) -> None:
    prev = progress.next - 1
    _send(node, progress, prev, entries, size)
    progress.inflight += 1
    progress.inflight_bytes += size
    if progress.state is ProgressState.REPLICATE:
        progress.next += len(entries)


def _send_empty(node: Node, progress: Progress) -> None:
    """A heartbeat, which also tells the commit index. While the logs' meeting point is unknown it stays at what is known to match:
    before anything is (prev 0, commit 0) it is hashicorp's heartbeat to the byte."""
    if progress.unanswered_heartbeats >= node.settings.max_unanswered_heartbeats:
        return
    progress.unanswered_heartbeats += 1
    prev = progress.next - 1 if progress.state is ProgressState.REPLICATE else progress.match
    _send(node, progress, prev if prev >= node.log.first_index - 1 else 0, (), -1)


def _send(node: Node, progress: Progress, prev: int, entries: tuple[Entry, ...], size: int) -> None:
    """A size below 0 marks an empty request outside of the window."""
    commit = min(node.commit, prev + len(entries))
    request = AppendRequest(node.header, node.term, prev, node.log.term(prev), commit, entries)
    token = AppendToken(progress.session, progress.epoch, node.term, prev, len(entries), size, node.now, node.reads.round)
    node.before.append(Send(progress.peer, progress.address, request, token))
    progress.last_sent, progress.round_sent = node.now, node.reads.round
    progress.commit_sent = max(progress.commit_sent, commit)


def speak(node: Node) -> None:
    """Heartbeats to whoever has not heard from us for a while (Raft paper, 5.2)."""
    for progress in node.progress.values():
        if progress.connected and node.now >= speak_at(node, progress):
            _send_empty(node, progress)
            progress.last_sent = node.now


def speak_of_reads(node: Node) -> None:
    """A heartbeat to whoever has been sent nothing since the round of reads under way began."""
    for progress in node.progress.values():
        if progress.connected and progress.round_sent < node.reads.round:
            _send_empty(node, progress)


def speak_at(node: Node, progress: Progress) -> float:
    """When the follower must hear from us: a newer commit index waits `commit_pause` for entries to ride on, a busy window for `commit_timeout`. Who
    answers no heartbeats is not sent more of them before their time."""
    if not _owes_commit(node, progress) or progress.unanswered_heartbeats >= node.settings.max_unanswered_heartbeats:
        return progress.last_sent + node.settings.heartbeat_interval
    if progress.inflight:
        return progress.last_sent + node.settings.commit_timeout
    return node.committed_at + node.settings.commit_pause


def _owes_commit(node: Node, progress: Progress) -> bool:
    return progress.state is ProgressState.REPLICATE and progress.commit_sent < min(node.commit, progress.next - 1)


# -- answers -----------------------------------------------------------------------------------------------------------------------------


def on_append_response(node: Node, progress: Progress, token: AppendToken, message: Response | RpcError | None) -> None:
    """An AppendEntries of this session and term was answered (Raft paper, 5.3)."""
    current = token.epoch == progress.epoch
    if token.size < 0:
        progress.unanswered_heartbeats -= 1
    elif current:
        progress.inflight -= 1
        progress.inflight_bytes -= token.size
    if isinstance(message, AppendResponse):
        if message.term > node.term:
            node.become_follower(message.term, None, f"{progress.peer} is in a later term")
            return
        progress.contact = max(progress.contact, token.sent_at)
        progress.answered = max(progress.answered, token.sent_at)
        progress.round = max(progress.round, token.round)
        progress.heard = node.now
        if progress.state is ProgressState.SNAPSHOT:
            progress.reaches = message.last_index
        if message.success:
            _accepted(node, progress, token.prev + token.length)
        elif current:
            _back_track(node, progress, token, message)
    else:
        node.counters["append_requests_failed"] += 1
        if current and token.size >= 0:
            progress.probe(token.prev + 1)
            progress.back_off(node.now)
    node.pump_wanted = True


def _accepted(node: Node, progress: Progress, match: int) -> None:
    if progress.state is ProgressState.SNAPSHOT or not progress.advanced(match):
        return
    advance_commit(node)
    if node.transfer is not None:
        try_transfer(node, node.transfer)
    if progress.removal_index and progress.match >= progress.removal_index:
        forget_departed(node)


def _back_track(node: Node, progress: Progress, token: AppendToken, message: AppendResponse) -> None:
    """The follower lacks the entry at prev, or has another one there: find the next place to try, never below match."""
    prev, log = token.prev, node.log
    if prev <= progress.match:
        node.counters["mismatch_below_match"] += 1
        progress.back_off(node.now)
    if not message.no_retry_backoff:
        progress.back_off(node.now)
    if message.last_index < prev:
        following = message.last_index + 1
    elif message.conflict is not None:
        following = _after_conflict(node, prev, *message.conflict)
    else:
        # hashicorp tells no more: double the step, but not beyond the whole of our own term at prev (Raft paper, 5.3, end).
        following = max(log.first_of_term(prev), prev + 1 - progress.step) if prev else 1
        progress.step *= 2
    progress.probe(min(following, prev) if prev else 1)


def _after_conflict(node: Node, prev: int, term: int, first: int) -> int:
    """At prev the follower has an entry of `term`, which begins at `first` there. Up to its end in our log they agree, if we have it."""
    if not 0 < first <= prev:
        return prev
    ours = node.log.last_not_above(prev, term)
    if ours >= first and node.log.term(ours) == term:
        return ours + 1
    return min(ours + 1, first)


def advance_commit(node: Node) -> None:
    """The highest index that a quorum of the voters has on disk, if it is of this term (Raft paper, 5.3, 5.4.2)."""
    index = quorum_th(
        node, [node.log.stored_index if server.id == node.me.id else _match(node, server) for server in node.configuration.voters()]
    )
    if index > node.commit and node.log.term(index) == node.term:
        node.set_commit(index)
        node.pump_wanted = True
        if not node.is_voter and node.configurations.index <= index:
            pump(node)
            node.become_follower(node.term, None, "this server was removed from the voters")


def _match(node: Node, server: Server) -> int:
    progress = node.progress.get(server.id)
    return progress.match if progress else 0


def quorum_th(node: Node, values: list[int]) -> int:
    """What a quorum has reached, of the numbers of all voters."""
    values.sort(reverse=True)
    return values[node.quorum - 1] if len(values) >= node.quorum else 0


# -- lease -------------------------------------------------------------------------------------------------------------------------------


def quorum_contact(node: Node) -> float:
    """When a quorum was last known to follow: by the times at which answered requests had been *sent*."""
    return _of_quorum(node, lambda progress: progress.contact)


def _quorum_heard(node: Node) -> float:
    """When the latest answer came of a quorum. Behind a full window answers are late on a slow disk, and no sign of silence."""
    return _of_quorum(node, lambda progress: progress.heard)


def _of_quorum(node: Node, moment: Callable[[Progress], float]) -> float:
    """The latest moment that is not after the one of any of a quorum of the voters."""
    moments = []
    for server in node.configuration.voters():
        progress = node.progress.get(server.id)
        moments.append(node.now if server.id == node.me.id else moment(progress) if progress else float("-inf"))
    moments.sort(reverse=True)
    return moments[node.quorum - 1] if len(moments) >= node.quorum else node.now


def lease_end(node: Node) -> float:
    """When a leader that hears nothing more gives up. What it could not hear, while its shell waited for the disk, is no silence of the others: they have a lease's
    time from then on, once for each time it heard them. This is about giving up alone; `quorum_contact` says what is known of the others."""
    lease, heard = node.settings.lease_timeout, _quorum_heard(node)
    began, ended = node.stood_still
    return ended + lease if began - lease < heard < ended else heard + lease


def keeps_lease(node: Node) -> bool:
    """A leader that no quorum answers, or whose own disk does not, gives up (Raft thesis, 6.2). False when it just did."""
    if node.now >= lease_end(node):
        node.become_follower(node.term, None, "no answer of a quorum within the lease")
        return False
    if node.disk_is_stuck():
        node.become_follower(node.term, None, "the disk does not answer")
        return False
    return True


# -- transfer ----------------------------------------------------------------------------------------------------------------------------


def try_transfer(node: Node, transfer: Transfer) -> None:
    """Once the target has the whole log it may campaign (Raft thesis, 3.10)."""
    progress = node.progress.get(transfer.target)
    if progress is None or progress.removal_index:
        _fail_transfer(node, transfer, "it left the configuration")
    elif not transfer.sent and progress.connected and progress.match == node.log.last_index:
        transfer.sent = node.reads.lease_void = True
        token = TransferToken(progress.session, node.term)
        node.before.append(Send(transfer.target, progress.address, TimeoutNowRequest(node.header), token))


def on_transfer_response(node: Node, message: Response | RpcError | None) -> None:
    if node.transfer is not None and (message is None or isinstance(message, RpcError)):
        _fail_transfer(node, node.transfer, message.error if message else "it did not answer")


def check_transfer(node: Node, transfer: Transfer) -> None:
    if node.now >= transfer.deadline:
        _fail_transfer(node, transfer, "it did not take over within the election time-out")
    else:
        try_transfer(node, transfer)


def _fail_transfer(node: Node, transfer: Transfer, reason: str) -> None:
    node.transfer = None
    node.events.append(TransferFailed(transfer.target, reason))
