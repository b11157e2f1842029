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
from coterie.actors.raft.node import Node, Role
from coterie.actors.raft.ready import AppendToken, ReadConfirmed, Ready
from coterie.actors.raft.settings import Settings
from coterie.actors.replication.sessions import Row, Sessions, Verdict
from tests.sim.reads import Question, ReadDesk

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


def committed_index_not_compared_at_vote() -> Patch:
    """Votes go to candidates that have less than a leader has told to be committed, by servers that have even less."""

    def suffices(node: Node, request: Any) -> bool:
        return bool((request.last_term, request.last_index) >= (node.log.last_term, node.log.last_index))

    return election, "_log_suffices", suffices


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


def learners_count_for_commits() -> Patch:
    """A copy on a learner's disk counts towards the quorum."""

    def advance_commit(node: Node) -> None:
        servers = node.configuration.servers
        held = [node.log.stored_index if server.id == node.me.id else replication._match(node, server) for server in servers]
        index = replication.quorum_th(node, held)
        if index > node.commit and node.log.term(index) == node.term:
            node.set_commit(index)
            node.pump_wanted = True

    return replication, "advance_commit", advance_commit


def read_without_confirmation() -> Patch:
    """A leader answers from its commit index without a look whether it still leads."""

    def ask(node: Node, context: object, lease: bool) -> None:
        node.reads.confirmed.append(ReadConfirmed(context, node.commit, by_lease=False))

    return reads, "ask", ask


def read_before_the_first_commit() -> Patch:
    """A new leader answers reads while it does not know yet what its predecessor had committed."""
    return reads, "_serves", lambda node: node.role is Role.LEADER


def read_confirmed_by_earlier_answers() -> Patch:
    """An answer to a request that had left before the round of reads began counts for the round."""
    original = replication.on_append_response

    def on_append_response(node: Node, progress: Any, token: Any, message: Any) -> None:
        original(node, progress, token._replace(round=node.reads.round), message)

    return replication, "on_append_response", on_append_response


def learners_confirm_reads() -> Patch:
    """What learners answer counts for a round of reads."""

    def quorum_round(node: Node) -> int:
        rounds = [node.reads.round, *(progress.round for progress in node.progress.values())]
        return replication.quorum_th(node, rounds)

    return reads, "quorum_round", quorum_round


def read_index_of_the_end_of_a_round() -> Patch:
    """Who asks during a round gets the index with which that began."""

    def ask(node: Node, context: object, lease: bool) -> None:
        (node.reads.asked if node.reads.asked else node.reads.waiting).append(context)

    return reads, "ask", ask


def read_before_it_is_applied() -> Patch:
    """A node answers as soon as the leader has confirmed, from a state machine that is behind."""

    def confirmed(self: ReadDesk, question: Question, index: int, how: str) -> None:
        original(self, question, 0, how)

    original = ReadDesk.confirmed
    return ReadDesk, "confirmed", confirmed


def lease_longer_than_patience() -> Patch:
    """The lease ends after others may have elected a leader."""
    return Settings, "read_lease", property(lambda self: 3 * self.heartbeat_timeout)


def lease_kept_while_handing_over() -> Patch:
    """A lease is trusted although leadership was offered to another."""
    original = reads.lease_holds

    def lease_holds(node: Node) -> bool:
        node.reads.lease_void = False
        return original(node)

    return reads, "lease_holds", lease_holds


def lease_of_a_forgotten_leader() -> Patch:
    """A voter whose connection to the leader broke votes for another while the leader's lease rests on it."""
    return Node, "is_bound", lambda self: False


def command_of_a_session_applied_twice() -> Patch:
    """A command that is sent again takes effect again."""
    original = Sessions.decide

    def decide(self: Sessions, index: int, session: str, number: int) -> Verdict:
        verdict = original(self, index, session, number)
        return Verdict(Row(index, session, number), False) if verdict.again else verdict

    return Sessions, "decide", decide


def sessions_lost_with_a_snapshot() -> Patch:
    """What a snapshot remembers of sessions is its latest command alone."""
    original = Sessions.rows
    return Sessions, "rows", lambda self: iter(list(original(self))[-1:])


def sessions_ahead_after_a_crash() -> Patch:
    """A node that starts behind what it had applied keeps the memory of commands that it will apply again."""
    return Sessions, "at", lambda self, index: self


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
        committed_index_not_compared_at_vote,
        voted_twice,
        configuration_survives_truncation,
        changes_overlap,
        snapshot_counts_for_the_whole_log,
        old_snapshot_installed,
        tail_kept_behind_a_snapshot,
        configuration_not_installed,
        learners_count_for_commits,
        read_without_confirmation,
        read_before_the_first_commit,
        read_confirmed_by_earlier_answers,
        learners_confirm_reads,
        read_index_of_the_end_of_a_round,
        read_before_it_is_applied,
        lease_longer_than_patience,
        lease_kept_while_handing_over,
        lease_of_a_forgotten_leader,
        command_of_a_session_applied_twice,
        sessions_lost_with_a_snapshot,
        sessions_ahead_after_a_crash,
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    target, attribute, replacement = BUGS[name]()
    with mock.patch.object(target, attribute, replacement):
        yield
