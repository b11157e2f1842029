"""Replication: what is sent, what is believed, what is refused."""

from typing import Any

import attrs
import pytest

from coterie.actors.raft import refusals
from coterie.actors.raft.node import Role
from coterie.actors.raft.progress import PeerView, ProgressState
from coterie.actors.raft.ready import AppendToken, Send
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import (
    ADD_PEER_DEPRECATED,
    COMMAND,
    CONFIGURATION,
    GO_SNAPSHOT,
    NOOP,
    OWN_SNAPSHOT,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Header,
    RpcError,
    Server,
    SnapshotRequest,
    SnapshotResponse,
    VoteResponse,
)
from tests.sim.disk import SimDisk
from tests.unit.raft_cluster import Member, RaftCluster, header


def commands(first: int, *terms: int) -> tuple[Entry, ...]:
    return tuple(Entry(first + n, term, COMMAND, b"%d/%d" % (first + n, term)) for n, term in enumerate(terms))


def follower(*terms: int, term: int = 0) -> Member:
    """A server whose log has entries of these terms."""
    disk = SimDisk()
    disk.write(list(commands(1, *terms)), None, None)
    disk.hard = attrs.evolve(disk.hard, term=term or max(terms, default=0))
    return Member("n1", Settings(), 100.0, disk)


def append(term: int, prev: int, prev_term: int, entries: tuple[Entry, ...] = (), commit: int = 0) -> AppendRequest:
    return AppendRequest(header("n2"), term, prev, prev_term, commit, entries)


class Leader(Member):
    """A leader whose only follower, n2, is played by the test."""

    def __init__(self, *terms: int, settings: Settings | None = None) -> None:
        cluster = RaftCluster("n1", "n2", settings=settings)
        super().__init__("n1", cluster.settings, 100.0)
        self.core.bootstrap(cluster.configuration, 100.0)
        self.drain()
        if terms:
            self.disk.write(list(commands(2, *terms)), attrs.evolve(self.disk.hard, term=max(terms)), None)
            super().__init__("n1", cluster.settings, 100.0, self.disk)
        self.core.connected("n2", 100.0)
        self.core.tick(103.0)
        self.drain()
        (ask,) = self.outgoing
        self.core.response("n2", ask.token, RpcError("unexpected command"), 103.0)
        self.drain()
        vote = self.outgoing[-1]
        self.core.response("n2", vote.token, VoteResponse(header("n2"), self.core.term, True), 103.0)
        assert self.core.role is Role.LEADER
        self.outgoing.clear()

    def sends(self) -> list[Send]:
        self.drain()
        sends, self.outgoing = self.outgoing, []
        return sends

    def accept(self, send: Send, now: float = 103.0) -> None:
        assert isinstance(send.request, AppendRequest)
        self.core.response("n2", send.token, AppendResponse(header("n2"), self.core.term, 0, success=True), now)

    def refuse(self, send: Send, last: int, conflict: tuple[int, int] | None = None) -> None:
        answer = AppendResponse(header("n2"), self.core.term, last, success=False, no_retry_backoff=True, conflict=conflict)
        self.core.response("n2", send.token, answer, 103.0)

    def view(self) -> PeerView:
        (view,) = self.core.progress()
        return view


# -- the follower ------------------------------------------------------------------------------------------------------------------------


def test_a_follower_appends_and_commits_no_further_than_the_request_vouches() -> None:
    one = follower(1, 1, 1)
    answer = one.answer(append(2, 2, 1, commit=9), 100.0)
    assert answer.success
    assert one.core.commit == 2, "entry 3 was not compared yet"
    assert one.answer(append(2, 3, 1, commands(4, 2, 2), commit=4), 100.0).success
    assert (one.core.commit, one.disk.last_index) == (4, 5)


def test_a_mismatch_tells_the_whole_term_that_stands_there() -> None:
    one = follower(1, 2, 2, 2, 4)
    answer = one.answer(append(5, 4, 3), 100.0)
    assert (answer.success, answer.no_retry_backoff, answer.last_index, answer.conflict) == (False, True, 5, (2, 2))
    answer = one.answer(append(5, 9, 4), 100.0)
    assert (answer.success, answer.last_index, answer.conflict) == (False, 5, None)


def test_only_a_true_conflict_cuts_the_log() -> None:
    one = follower(1, 1, 2, 2)
    assert one.answer(append(3, 0, 0, commands(1, 1, 1)), 100.0).success
    assert one.disk.last_index == 4, "a delayed request that repeats a part of the log cuts nothing"
    assert one.answer(append(3, 1, 1, commands(2, 1, 3)), 100.0).success
    assert [entry.term for entry in one.disk.log] == [1, 1, 3]


def test_a_committed_entry_is_never_cut() -> None:
    one = follower(1, 1, 2)
    one.answer(append(3, 3, 2, commit=3), 100.0)
    assert isinstance(one.answer(append(3, 1, 1, commands(2, 3)), 100.0), RpcError)
    assert [entry.term for entry in one.disk.log] == [1, 1, 2]
    assert one.core.counters()["committed_entry_contradicted"] == 1


def test_an_earlier_term_is_refused() -> None:
    one = follower(1, 4)
    answer = one.answer(append(3, 2, 4, commands(3, 3)), 100.0)
    assert (answer.success, answer.term, answer.no_retry_backoff) == (False, 4, False)


@pytest.mark.parametrize("entries", [None, ()])
def test_a_heartbeat_of_hashicorp_is_answered_with_success(entries: tuple[Entry, ...] | None) -> None:
    one = follower(1, 1)
    answer = one.answer(AppendRequest(header("n2"), 7, 0, 0, 0, entries), 100.0)
    assert answer.success
    assert one.core.leader is not None
    assert one.core.leader.id == "n2"


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ((Entry(5, 1, COMMAND, b""),), "do not follow"),
        ((Entry(3, 1, COMMAND, b""), Entry(5, 1, COMMAND, b"")), "do not follow"),
        ((Entry(3, 1, ADD_PEER_DEPRECATED, b""),), "entry types [2]"),
        ((Entry(3, 1, 77, b""),), "entry types [77]"),
        ((Entry(3, 1, CONFIGURATION, b"\xc1"),), "does not decode"),
        ((Entry(3, 1, CONFIGURATION, None),), "does not decode"),
        ((Entry(3, 9, COMMAND, b""),), "terms outside"),
        ((Entry(3, 2, COMMAND, b""), Entry(4, 1, COMMAND, b"")), "terms fall"),
    ],
)
def test_what_no_correct_leader_sends_is_refused_as_a_whole(entries: tuple[Entry, ...], complaint: str) -> None:
    one = follower(1, 1)
    answer = one.answer(append(2, 2, 1, entries), 100.0)
    assert isinstance(answer, RpcError)
    assert complaint in answer.error
    assert one.core.last_index == one.disk.last_index == 2


@pytest.mark.parametrize("version", [0, 1, 4])
def test_other_protocol_versions_are_refused(version: int) -> None:
    one = follower(1)
    request = attrs.evolve(append(2, 1, 1), header=Header("n2", "n2:9520", version))
    assert one.answer(request, 100.0) == RpcError("operation not supported with current protocol version")


def snapshot(last: int, configuration: bytes, at: int, size: int = 9, version: int = OWN_SNAPSHOT) -> SnapshotRequest:
    return SnapshotRequest(header("n2"), 2, last, 1, configuration, at, size, snapshot_version=version)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (snapshot(10, b"", 1, size=0), "an empty snapshot"),
        (snapshot(10, b"", 1), "does not decode"),
        (snapshot(10, b"", 11), "not possible"),
        (snapshot(0, b"", 0), "not possible"),
        (snapshot(10, encode_configuration(Configuration()), 1), "no voter"),
        (snapshot(10, b"", 1, version=101), "version 101"),
        (snapshot(10, b"", 1, version=0), "version 0"),
        (snapshot(10, b"", 1, version=GO_SNAPSHOT), "does not decode"),
    ],
)
def test_a_snapshot_that_cannot_be_one_is_refused_with_a_body(request_: SnapshotRequest, why: str) -> None:
    one = follower(1)
    answer = one.answer(request_, 100.0)
    assert isinstance(answer, RpcError)
    assert why in answer.error
    assert answer.body == SnapshotResponse(header("n1"), 1, success=False)
    assert one.core.term == 1


@pytest.mark.parametrize("version", [GO_SNAPSHOT, OWN_SNAPSHOT])
def test_the_content_of_a_snapshot_is_wanted_in_either_form(version: int) -> None:
    """What a Go leader's does not tell is the desk's affair, once it has come."""
    one = follower(1)
    configuration = encode_configuration(Configuration((Server("n2", "n2:9520"),)))
    assert one.core.request("handle", snapshot(10, configuration, 1, version=version), 100.0) is True


# -- the leader --------------------------------------------------------------------------------------------------------------------------


def test_what_was_proposed_together_leaves_together_and_commit_rides_along() -> None:
    one = Leader()
    (noop,) = one.sends()
    one.accept(noop)
    one.sends()
    one.core.propose([b"a", b"b"], [1, 2], 103.0)
    one.core.propose([b"c"], [3], 103.0)
    (send,) = one.sends()
    assert [entry.data for entry in send.request.entries] == [b"a", b"b", b"c"]
    assert send.request.commit == 2
    one.accept(send)
    one.core.propose([b"d"], [4], 103.0)
    (send,) = one.sends()
    assert send.request.commit == 5, "the commit index rides on entries, no message of its own"
    assert one.contexts[-3:] == [1, 2, 3]


def test_an_idle_follower_hears_of_a_commit_after_the_pause_in_which_entries_could_have_told_it() -> None:
    one = Leader()
    (noop,) = one.sends()
    one.accept(noop)
    assert one.sends() == []
    pause = Settings().commit_pause
    assert one.core.deadline() == pytest.approx(103.0 + pause)
    one.core.tick(103.0 + pause)
    (told,) = one.sends()
    assert (told.request.entries, told.request.commit) == ((), 2)
    one.core.tick(103.0 + 2 * pause)
    assert one.sends() == []


def test_followers_at_the_same_place_share_one_tuple() -> None:
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    one.core.propose([b"a"] * 10, [None] * 10, cluster.now)
    one.drain()
    first, second = one.outgoing
    assert first.request.entries is second.request.entries


def test_the_window_is_bounded_in_number_and_bytes() -> None:
    one = Leader(settings=Settings(max_inflight=2, max_append_entries=1))
    (noop,) = one.sends()
    one.accept(noop)
    one.sends()
    one.core.propose([b"a", b"b", b"c", b"d"], [None] * 4, 103.0)
    sends = one.sends()
    assert [send.request.prev_index for send in sends] == [2, 3]
    one.accept(sends[0])
    assert [send.request.prev_index for send in one.sends()] == [4]
    one = Leader(settings=Settings(max_append_bytes=100, max_inflight_bytes=150))
    (noop,) = one.sends()
    one.accept(noop)
    one.sends()
    one.core.propose([b"x" * 90] * 5, [None] * 5, 103.0)
    assert len(one.sends()) == 1, "154 bytes are in flight: over the limit only once"


def test_match_comes_from_the_token_never_from_last_log() -> None:
    one = Leader()
    (noop,) = one.sends()
    answer = AppendResponse(header("n2"), one.core.term, 99, success=True)
    one.core.response("n2", noop.token, answer, 103.0)
    assert one.view().match == 2


def test_a_conflict_is_jumped_over_a_term_at_a_time() -> None:
    one = Leader(2, 2, 2, 5, 5, 5)
    (first,) = one.sends()
    assert first.request.prev_index == 7
    one.refuse(first, last=7, conflict=(3, 4))
    (second,) = one.sends()
    assert (second.request.prev_index, second.request.entries) == (3, ()), "terms 3 and 5 are both skipped in one step"
    one.accept(second)
    assert [entry.index for send in one.sends() for entry in send.request.entries] == [4, 5, 6, 7, 8]
    assert one.view().state is ProgressState.REPLICATE


def test_a_shorter_log_is_met_at_its_end() -> None:
    one = Leader(2, 2, 2, 2)
    (first,) = one.sends()
    one.refuse(first, last=2)
    (second,) = one.sends()
    assert second.request.prev_index == 2


def test_without_hints_the_step_doubles() -> None:
    one = Leader(*[2] * 40)
    tried = []
    (send,) = one.sends()
    while send.request.prev_index > 1:
        tried.append(send.request.prev_index)
        one.refuse(send, last=99)
        (send,) = one.sends()
    assert tried[:6] == [41, 40, 38, 34, 26, 10]
    assert len(tried) <= 8


def test_next_never_falls_below_match_within_a_session() -> None:
    one = Leader(2, 2, 2)
    (send,) = one.sends()
    one.accept(send)
    one.sends()
    one.core.propose([b"a"], [None], 103.0)
    (send,) = one.sends()
    one.refuse(send, last=0)
    assert (one.view().match, one.view().next) == (5, 6)


def test_an_answer_of_an_earlier_session_moves_nothing() -> None:
    one = Leader(2, 2)
    (old,) = one.sends()
    one.core.disconnected("n2", 103.0)
    one.core.connected("n2", 103.0)
    one.accept(old)
    assert one.view().match == 0
    assert one.core.counters()["late_answers"] == 1


def test_failures_back_off() -> None:
    one = Leader()
    (send,) = one.sends()
    times, now = [], 103.0
    for _ in range(4):
        one.core.response("n2", send.token, RpcError("no"), now)
        assert one.sends() == []
        while True:
            now += 0.001
            one.core.tick(now)
            entries = [send for send in one.sends() if send.token.size >= 0]
            if entries:
                break
        times.append(round(now - 103.0, 3))
        (send,) = entries
    steps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert steps == sorted(steps)
    assert steps[-1] >= 0.07


def test_heartbeats_go_on_and_stop_at_a_few_unanswered() -> None:
    one = Leader(settings=Settings(lease_timeout=1.0))
    one.sends()
    now, beats = 103.0, 0
    for _ in range(90):
        now += 0.01
        one.core.tick(now)
        beats += len(one.sends())
    assert beats == 4


def test_only_entries_of_the_own_term_are_committed_by_counting() -> None:
    one = Leader(2, 2, settings=Settings(max_append_entries=1))
    assert one.core.term == 3
    (first,) = one.sends()
    one.refuse(first, last=2)
    (probe,) = one.sends()
    one.accept(probe)
    old, noop = one.sends()
    one.accept(old)
    assert one.core.commit == 0, "entry 3 of term 2 is on both disks and is not committed by that (Raft paper, figure 8)"
    one.accept(noop)
    assert one.core.commit == 4


def test_a_follower_that_needs_what_is_gone_is_shown_and_kept_alive() -> None:
    one = Leader(2, 2, 2)
    one.disk.compact(3)
    (first,) = one.sends()
    one.refuse(first, last=0)
    one.core.tick(103.2)
    sends = one.sends()
    assert one.view().needs_snapshot
    assert [(send.request.prev_index, send.request.commit) for send in sends] == [(0, 0)]


def test_committed_entries_come_in_bounded_chunks_and_only_while_there_is_room() -> None:
    disk = SimDisk()
    disk.write(list(commands(1, *[1] * 10)), None, None)
    one = Member("n1", Settings(apply_chunk_entries=3, apply_window_entries=5), 100.0, disk)
    one.core.request(None, append(2, 10, 1, commit=10), 100.0)
    handed = []
    while (ready := one.core.ready()) is not None:
        handed.append([entry.index for entry, _ in ready.committed])
        if ready.must_store:
            one.core.stored(10, 1)
    assert [chunk for chunk in handed if chunk] == [[1, 2, 3], [4, 5]]
    one.core.applied_to(3)
    ready = one.core.ready()
    assert ready is not None
    assert [entry.index for entry, _ in ready.committed] == [6, 7, 8]


def test_a_shell_that_lost_step_is_told() -> None:
    one = follower(1)
    one.core.request(None, append(2, 1, 1, commands(2, 2)), 100.0)
    one.core.ready()
    with pytest.raises(ValueError, match="ends at index 2 of term 2"):
        one.core.stored(1, 1)


def test_a_state_ahead_of_its_log_is_refused() -> None:
    with pytest.raises(refusals.LogBehindState, match="ends at 1"):
        Member("n1", Settings(), 100.0, follower(1).disk, applied=5)


def test_an_acknowledgement_in_flight_of_an_earlier_term_moves_nothing() -> None:
    one = Leader()
    (send,) = one.sends()
    assert isinstance(send.token, AppendToken)
    one.core.response("n2", send.token._replace(term=1), AppendResponse(header("n2"), one.core.term, 0, success=True), 103.0)
    assert one.view().match == 0


def test_the_no_op_of_a_new_term_is_its_first_entry() -> None:
    one = Leader()
    (send,) = one.sends()
    assert [entry.kind for entry in send.request.entries] == [NOOP]


def test_a_follower_that_answers_no_heartbeat_does_not_make_its_leader_spin() -> None:
    """It owes nobody an entry, only the commit index, and may not send more heartbeats: it looks again at their pace."""
    cluster = RaftCluster("n1", "n2", "n3")
    leader = cluster.bootstrap("n1")
    progress = leader.core._node.progress["n2"]
    progress.unanswered_heartbeats = cluster.settings.max_unanswered_heartbeats
    progress.commit_sent = leader.core.commit - 1
    cluster.now += 0.1
    leader.core.tick(cluster.now)
    assert leader.core.deadline() > cluster.now + cluster.settings.heartbeat_interval / 2


def test_a_follower_whose_answer_was_lost_is_not_sent_the_next_snapshot() -> None:
    """It was installed, later than the leader waits. Another one, newer by now, would be as late, and the next one too."""
    cluster = RaftCluster("n1", "n2", "n3")
    one = cluster.bootstrap("n1")
    cluster.stop("n3")
    cluster.propose(b"a", b"b")
    cluster.pass_time(0.1)
    one.disk.compact(one.core.applied)
    sent = []

    def lost(peer: str, token: Any, index: int, message: Any, now: float) -> None:
        sent.append(message)
        heard(peer, token, index, None, now)

    heard, one.core.snapshot_sent = one.core.snapshot_sent, lost  # type: ignore[method-assign]
    cluster.restart("n3")
    cluster.pass_time(3)
    cluster.propose(b"c")
    cluster.pass_time(0.1)
    assert cluster["n3"].commands() == [b"a", b"b", b"c"]
    assert len(sent) == 1 and sent[0].success


def test_what_must_be_read_from_the_disk_goes_out_in_slices_beside_what_is_new() -> None:
    """A follower that is far behind must not have the leader read and pack a whole window for it before the others get what is new."""
    settings = Settings(max_catch_up_entries=10, max_catch_up_inflight=2, cache_bytes=1000)
    cluster = RaftCluster("n1", "n2", "n3", settings=settings)
    one = cluster.bootstrap("n1")
    cluster.stop("n3")
    for n in range(200):
        cluster.propose(b"%d" % n)
    assert one.core._node.log.first_in_memory > 150
    cluster.gone.discard("n3")
    cluster.sent.clear()
    most = 0

    def note(name: str, peer: str) -> bool:
        nonlocal most
        most = max(most, one.core._node.progress["n3"].inflight)
        return True

    cluster._passes = note  # type: ignore[method-assign]
    cluster.pass_time(2.0)
    sizes = [len(send.request.entries) for _, send in cluster.sent if send.peer == "n3" and isinstance(send.request, AppendRequest)]
    from_disk = [size for size in sizes if size][:14]
    assert set(from_disk) == {10}
    assert most <= 2
    assert cluster["n3"].commands() == one.commands()
