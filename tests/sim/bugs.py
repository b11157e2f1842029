"""Deliberate bugs, each a classic of Raft implementations: a simulator that does not find them would not find the next one either.

`with planted("name"):` plants one by replacing a function of the real code for as long as the block runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import attrs

from coterie.actors.raft import election, following, reads, replication, snapshots
from coterie.actors.raft.cache import LogCache
from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.log import HardState
from coterie.actors.raft.membership import Configurations
from coterie.actors.raft.node import Node
from coterie.actors.raft.ready import AppendToken, Ready
from coterie.actors.raft.settings import Settings

Patch = tuple[Any, str, Any]


def vote_not_persisted() -> Patch:
    """The term is stored, the vote for another server is not."""
    original = RaftCore.ready

    def ready(self: RaftCore) -> Ready | None:
        result = original(self)
        if result is not None and result.hard_state is not None and result.hard_state.voted_for != self._node.me.id:
            result.hard_state = HardState(result.hard_state.term, "")
        return result

    return RaftCore, "ready", ready


def acknowledged_before_durable() -> Patch:
    """Answers leave before what they vouch for is stored."""
    original = RaftCore.ready

    def ready(self: RaftCore) -> Ready | None:
        if self._node.replies:
            replies, self._node.replies = self._node.replies, []
            return Ready(None, None, [], [], [], replies, (), [], [])
        return original(self)

    return RaftCore, "ready", ready


def own_copy_counts_unstored() -> Patch:
    """The leader counts its own copy towards the quorum before its disk has it."""
    original = LogCache.append

    def append(self: LogCache, entries: Any) -> None:
        original(self, entries)
        self.stored_index = self.last_index

    return LogCache, "append", append


def old_term_committed_by_counting() -> Patch:
    """Figure 8 of the Raft paper: entries of earlier terms are committed by counting copies."""

    def advance_commit(node: Node) -> None:
        voters = node.configuration.voters()
        held = [node.log.stored_index if voter.id == node.me.id else replication._match(node, voter) for voter in voters]
        index = replication.quorum_th(node, held)
        if index > node.commit:
            node.set_commit(index)
            node.pump_wanted = True

    return replication, "advance_commit", advance_commit


def truncated_without_conflict() -> Patch:
    """A follower cuts its log at every request, also at a delayed one that only repeats a part of it."""

    def cut(node: Node, entries: Any) -> Any:
        if entries[0].index <= node.log.last_index and entries[-1].index > node.commit:
            following.truncate(node, max(entries[0].index, node.commit + 1))
            return tuple(entry for entry in entries if entry.index > node.log.last_index)
        return following_cut(node, entries)

    following_cut = following._cut_conflict
    return following, "_cut_conflict", cut


def late_answer_accepted() -> Patch:
    """An answer to an earlier session (connection or membership) of the peer is taken for one of the present."""
    original = RaftCore.response

    def response(self: RaftCore, peer: str, token: Any, message: Any, now: float) -> None:
        progress = self._node.progress.get(peer)
        if isinstance(token, AppendToken) and progress is not None:
            token = token._replace(session=progress.session)
        original(self, peer, token, message, now)

    return RaftCore, "response", response


def deposed_leader_accepted() -> Patch:
    """A request of an earlier term is taken like one of the present."""
    original = following.on_append_request

    def on_append_request(node: Node, request: Any) -> Any:
        return original(node, attrs.evolve(request, term=max(request.term, node.term)))

    return following, "on_append_request", on_append_request


def log_not_compared_at_vote() -> Patch:
    """Votes go to candidates whose log is behind."""
    return election, "_log_suffices", lambda *_: True


def voted_twice() -> Patch:
    """A second candidate of the same term gets a vote as well."""
    original = election.on_vote_request

    def on_vote_request(node: Node, request: Any) -> Any:
        if node.voted_for != node.me.id:
            node.voted_for = ""
        return original(node, request)

    return election, "on_vote_request", on_vote_request


def configuration_survives_truncation() -> Patch:
    """A configuration stays in force although its entry was cut off the log."""
    return Configurations, "truncate", lambda self, index: False


def changes_overlap() -> Patch:
    """A second change, or one by a leader that has committed nothing yet, is taken at once."""

    def change(self: RaftCore, change: Any, context: object, now: float) -> int:
        from coterie.actors.raft.membership import changed

        node = self._node
        self._must_lead()
        return replication.append_configuration(node, changed(node.configuration, change), context)

    return RaftCore, "change", change


def snapshot_counts_for_the_whole_log() -> Patch:
    """A follower that installed a snapshot is taken to hold all that the leader has by now."""
    original = snapshots.on_snapshot_sent

    def on_snapshot_sent(node: Node, progress: Any, index: int, message: Any) -> None:
        original(node, progress, max(index, node.log.last_index), message)

    return snapshots, "on_snapshot_sent", on_snapshot_sent


def old_snapshot_installed() -> Patch:
    """A snapshot that is behind what is committed here is installed all the same."""

    def install(node: Node, mark: Any) -> bool:
        if mark.index > node.commit or not node.log.last_index:
            return original(node, mark)
        node.log.reset(mark.index, mark.term)
        node.configurations.reset(mark.configuration_index, mark.configuration)
        node.set_commit(mark.index)
        node.mark = mark
        return True

    original = snapshots.install
    return snapshots, "install", install


def tail_kept_behind_a_snapshot() -> Patch:
    """A log that is longer than the snapshot is kept, without a look whether it has the snapshot's last entry."""

    def install(node: Node, mark: Any) -> bool:
        if node.commit < mark.index <= node.log.last_index:
            node.set_commit(mark.index)
            return False
        return original(node, mark)

    original = snapshots.install
    return snapshots, "install", install


def configuration_not_installed() -> Patch:
    """The configuration in force stays what it was before the snapshot."""
    return Configurations, "reset", lambda self, index, configuration: None


def read_without_confirmation() -> Patch:
    """A read is answered by whoever takes itself for the leader."""
    return reads, "quorum_round", lambda node: node.reads.round


def read_confirmed_by_earlier_answers() -> Patch:
    """Every answer counts for the round under way, also that to a request which was sent before it began."""
    original = replication.on_append_response

    def on_append_response(node: Node, progress: Any, token: Any, message: Any) -> None:
        original(node, progress, token._replace(round=node.reads.round), message)

    return replication, "on_append_response", on_append_response


def read_before_the_first_commit() -> Patch:
    """A new leader takes its commit index for an answer before an entry of its own term is committed."""
    return reads, "_serves", lambda node: True


def learners_confirm_reads() -> Patch:
    """Every answer confirms, also that of a server without a vote."""

    def quorum_round(node: Node) -> int:
        return replication.quorum_th(node, [node.reads.round, *(progress.round for progress in node.progress.values())])

    return reads, "quorum_round", quorum_round


def read_index_of_the_end_of_a_round() -> Patch:
    """Who comes while a round is under way gets its answer when it ends, which was proven for an earlier moment."""
    original = reads.advance

    def advance(node: Node) -> None:
        if node.reads.asked:
            node.reads.asked += node.reads.waiting
            node.reads.waiting = []
        original(node)

    return reads, "advance", advance


def lease_longer_than_patience() -> Patch:
    """The lease of a leader outlives the patience of its voters."""
    return Settings, "read_lease", property(lambda self: 3 * self.heartbeat_timeout)


def lease_kept_while_handing_over() -> Patch:
    """The target has been told to campaign, against everybody's patience, and the leader goes on to trust its lease."""
    original = reads.lease_holds

    def lease_holds(node: Node) -> bool:
        node.reads.lease_void = False
        return original(node)

    return reads, "lease_holds", lease_holds


def lease_of_a_forgotten_leader() -> Patch:
    """Who does not believe in its leader any more votes at once, although it has just answered it."""
    return Node, "is_bound", lambda self: False


BUGS: dict[str, Callable[[], Patch]] = {
    bug.__name__: bug
    for bug in (
        vote_not_persisted,
        acknowledged_before_durable,
        own_copy_counts_unstored,
        old_term_committed_by_counting,
        truncated_without_conflict,
        late_answer_accepted,
        deposed_leader_accepted,
        log_not_compared_at_vote,
        voted_twice,
        configuration_survives_truncation,
        changes_overlap,
        snapshot_counts_for_the_whole_log,
        old_snapshot_installed,
        tail_kept_behind_a_snapshot,
        configuration_not_installed,
        read_without_confirmation,
        read_confirmed_by_earlier_answers,
        read_before_the_first_commit,
        learners_confirm_reads,
        read_index_of_the_end_of_a_round,
        lease_longer_than_patience,
        lease_kept_while_handing_over,
        lease_of_a_forgotten_leader,
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    target, attribute, replacement = BUGS[name]()
    with mock.patch.object(target, attribute, replacement):
        yield
