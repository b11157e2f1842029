"""A Go leader's snapshot tells only the roster: who is asked for the rest, what follows from what they say, and what may stand in for it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.errors import Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.node import state_of_others
from coterie.actors.node.numbering import may_number, verdict
from coterie.actors.node.state_of_others import StateForOthers, StateOfOthers
from coterie.actors.raft.foreign_snapshots import MOST_DOCUMENT, ForeignSnapshots
from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.log_format import unpack_mark
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.room_messages import Topology
from coterie.actors.snapshot_messages import (
    InstallRoster,
    InstallSnapshot,
    MakeDurable,
    NobodyNumbers,
    NoState,
    RosterSnapshot,
    Snapshot,
    StateEnd,
    StateFound,
    StateReach,
    TakeSnapshot,
)
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import CONFIGURATION, OTHER_FORM, Configuration, Entry, Server
from coterie.proto.roster import RosterRow, encode_document
from coterie.transport.limits import Complaints, Counters
from coterie.transport.logs import Log

WAIT = 20.0
OURS, GO = {"mgmt": "a:1", "grpc": "a:2"}, {"mgmt": "a:1"}
SERVERS = Configuration((Server("g1", "g1:1"), Server("n1", "n1:1"), Server("n2", "n2:1")))
MARK = SnapshotMark(40, 3, 7, SERVERS)
DOCUMENT = encode_document((RosterRow("g1", "g1:1", GO),))

# -- whom to ask, and what it means ------------------------------------------------------------------------------------------------


def test_whoever_is_not_certainly_of_go_cluster_may_have_numbers_those_of_the_quorum_first() -> None:
    rows = [RosterRow("g2", "", GO), RosterRow("n5", "", OURS), RosterRow("x", "", None)]
    makes = {"n1": True, "g1": False, "n9": True, "n3": True}
    assert may_number("n1", ["n1", "g1", "g2", "n3", "nobody-knows", "x"], rows, makes) == ["n3", "nobody-knows", "x", "n5", "n9"]


def test_what_gossip_knows_counts_more_than_an_old_row() -> None:
    assert may_number("n1", ["a", "b"], [RosterRow("a", "", OURS), RosterRow("b", "", GO)], {"a": False, "b": True}) == ["b"]


@given(st.sets(st.sampled_from("abcdef")), st.dictionaries(st.sampled_from("abcdefgh"), st.booleans()))
def test_nobody_is_left_out_but_who_is_known_to_be_of_go_cluster(servers: set[str], makes: dict[str, bool]) -> None:
    found = may_number("a", servers, [], makes)
    assert len(found) == len(set(found))
    assert set(found) == {name for name in servers | makes.keys() if name != "a" and makes.get(name, True)}


def test_only_where_nobody_else_has_ever_numbered_anything_may_it_be_restored_alone() -> None:
    empty, behind = StateReach(0, True), StateReach(12, False)
    assert verdict(40, {}) == verdict(40, {"n2": empty, "n3": empty}) == NobodyNumbers()
    assert verdict(40, {"n2": empty, "n3": behind}) == NoState("n3 has entries up to 12 itself, and 40 is wanted")
    assert verdict(40, {"n2": "is not there", "n3": behind}) == NoState("n2 is not there; n3 has entries up to 12 itself, and 40 is wanted")
    assert isinstance(verdict(40, {"n2": StateReach(0, False)}), NoState), "it followed by stream, and has records"


# -- what becomes of it ------------------------------------------------------------------------------------------------------------


class Core:
    """Of a server that has applied and committed entries up to 20 in term 4."""

    applied, commit, term = 20, 20, 4

    def __init__(self) -> None:
        self.has: set[tuple[int, int]] = set()
        self.answers: list[Any] = []

    def has_entry(self, index: int, term: int) -> bool:
        return (index, term) in self.has

    def installed(self, handle: object, mark: SnapshotMark, now: float) -> None:
        self.answers.append(mark)

    def not_installed(self, handle: object, reason: str, now: float) -> None:
        self.answers.append(reason)


class Follower:
    """The desk's part between a fake core, a fake state machine and others that answer what they are told."""

    def __init__(self, asks: bool = True) -> None:
        self.core, self.counts = Core(), Counters()
        self.asked: list[tuple[RosterSnapshot, Callable[[Any], object]]] = []
        self.installs: list[tuple[InstallSnapshot | InstallRoster, SnapshotMark, LightFuture]] = []
        ask = (lambda snapshot, then: self.asked.append((snapshot, then))) if asks else None
        complain = Complaints("n2/raft", self.counts)
        self.foreign = ForeignSnapshots(lambda: self.core, lambda: 4, ask, self._install, self._answered, complain, Log("test"))  # type: ignore[arg-type, return-value]

    def _install(self, question: Any, handle: object, mark: SnapshotMark) -> LightFuture:
        self.installs.append((question, mark, LightFuture()))
        return self.installs[-1][2]

    def _answered(self, *what: Any) -> None:
        self.foreign.answered(*what)

    def comes(self, document: bytes = DOCUMENT) -> None:
        self.foreign.arrived("handle", "g1", MARK, io.BytesIO(document))  # type: ignore[arg-type]

    def others_say(self, outcome: Any) -> None:
        self.asked[-1][1](outcome)


def found(index: int = 45, term: int = 4, at: int = 7, configuration: Configuration = SERVERS) -> StateFound:
    return StateFound("n1", io.BytesIO(b"state"), index, term, at, encode_configuration(configuration))


def test_who_has_the_last_entry_in_its_log_needs_nothing() -> None:
    server = Follower()
    server.core.has.add((40, 3))
    server.comes()
    assert server.core.answers == [MARK] and not server.asked and not server.foreign.waits_for


def test_the_state_of_another_of_ours_is_installed_with_its_own_end() -> None:
    server = Follower()
    server.comes()
    assert server.asked[0][0] == RosterSnapshot("g1", 40, 3, ("g1", "n1", "n2"), DOCUMENT)
    assert "tells only the roster" in server.foreign.waits_for, "it is behind from the first moment"
    server.others_say(found())
    ((question, mark, _),) = server.installs
    assert isinstance(question, InstallSnapshot) and (question.index, question.term) == (45, 4)
    assert mark == unpack_mark(question.mark) == SnapshotMark(45, 4, 7, SERVERS)
    server.core.commit = 45
    assert not server.foreign.waits_for


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (found(39), "it ends at entry 39"),
        (found(41, 2), "of term 2"),
        (found(40, 4), "of term 4, and that of term 3 is wanted"),
        (found(45, 5), "only term 4 is known here yet"),
        (found(at=46), "behind its end"),
        (found(configuration=Configuration((Server("n1", "n1:1"),))), "does not have g1: it is of another cluster"),
        (StateFound("n1", io.BytesIO(), 45, 4, 7, b"\x00"), "does not decode"),
    ],
)
def test_a_state_that_cannot_stand_in_for_it_is_not_installed_and_it_is_asked_again(outcome: StateFound, why: str) -> None:
    server = Follower()
    server.comes()
    server.others_say(outcome)
    assert not server.installs and outcome.content.closed
    assert why in server.core.answers[0] and why in server.foreign.waits_for
    server.comes()
    assert len(server.asked) == 2
    assert why in server.foreign.waits_for, "the reason stands until there is another"


def test_it_waits_while_nobody_has_it_and_says_for_whom() -> None:
    server = Follower()
    server.comes()
    server.others_say(NoState("n1 is not there"))
    assert server.core.answers == ["n1 is not there"]
    assert server.foreign.waits_for.endswith("this node waits for the state of another node of coterie: n1 is not there")
    assert server.counts.snapshot() == {"snapshots of hashicorp/raft put off": 1}
    server.core.commit = 40
    assert not server.foreign.waits_for, "it got there another way"


def test_alone_it_takes_the_roster_once_it_has_applied_what_its_own_log_has() -> None:
    server = Follower()
    server.comes()
    server.others_say(NobodyNumbers())
    ((question, mark, outcome),) = server.installs
    assert isinstance(question, InstallRoster)
    assert (question.document, question.index, question.term, question.after) == (DOCUMENT, 40, 3, 20)
    assert mark == unpack_mark(question.mark) == MARK
    server.comes()
    assert "is being asked for" in server.core.answers[-1], "one at a time, to the end of the installation"
    outcome.set(True)
    server.comes()
    assert len(server.asked) == 2


def test_what_can_never_be_used_is_refused_and_waited_for_by_nobody() -> None:
    server = Follower()
    server.comes(b"x" * (MOST_DOCUMENT + 1))
    assert "cannot be a roster" in server.core.answers[-1] and not server.asked
    server.comes()
    server.others_say(NoState("no roster", waits=False))
    assert server.core.answers[-1] == "no roster" and not server.foreign.waits_for
    assert server.counts.snapshot() == {"snapshots of hashicorp/raft refused": 2}
    alone = Follower(asks=False)
    alone.comes()
    assert alone.core.answers[0].startswith(OTHER_FORM)


# -- asking ------------------------------------------------------------------------------------------------------------------------


class Stream:
    def close(self) -> None:
        """Nothing more comes."""


class Client:
    """The other nodes by address: what their streams bring, in order; an exception ends one, and `...` leaves it open."""

    def __init__(self, **nodes: list[Any]) -> None:
        self.nodes, self.asked = nodes, []

    def state(self, address: str, at_least: int, on_part: Callable[[Any], None], on_closed: Callable[[Exception | None], None]) -> Stream:
        self.asked.append(address)

        def run() -> None:
            for part in self.nodes[address]:
                if part is ...:
                    return
                if isinstance(part, Exception):
                    on_closed(part)
                    return
                on_part(part)
            on_closed(None)

        threading.Thread(target=run).start()
        return Stream()


def answer(client: Client, *, servers: tuple[str, ...] = ("g1", "n1", "n2", "n3"), document: bytes = DOCUMENT, sender: str = "g1") -> Any:
    topology = Topology(
        grpc_addr={name: name for name in client.nodes} | {"n1": "n1"}, makes={"g1": False, "n1": True, **dict.fromkeys(client.nodes, True)}
    )
    outcome: LightFuture = LightFuture()
    StateOfOthers("n1", client, lambda: topology, None)(RosterSnapshot(sender, 40, 3, servers, document), outcome.set)  # type: ignore[arg-type]
    return outcome.get(timeout=WAIT)


def whole(*pieces: bytes, size: int | None = None) -> list[Any]:
    return [StateReach(45, False), StateEnd(45, 4, 7, b"c", sum(map(len, pieces)) if size is None else size), *pieces]


def test_the_others_are_asked_one_after_the_other_until_one_has_it_all() -> None:
    client = Client(n2=[StateReach(12, False)], n3=whole(b"sta", b"te"), n4=whole(b"not asked"))
    got = answer(client)
    assert client.asked == ["n2", "n3"]
    with got.content:
        assert (got.node, got.index, got.term, got.configuration_index, got.configuration) == ("n3", 45, 4, 7, b"c")
        assert got.content.read() == b"state"


def test_what_breaks_off_or_falls_silent_is_not_taken_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_of_others, "REACH_PATIENCE", 0.0)
    monkeypatch.setattr(state_of_others, "SILENCE", 0.0)
    monkeypatch.setattr(state_of_others, "LOOK", 0.05)
    client = Client(
        n2=whole(b"state", size=9),
        n3=[*whole(b"sta", size=5), Unreachable("it died")],
        n4=[...],
        n5=[*whole(b"s", size=5), ...],
        n6=whole(size=1 << 60),
    )
    got = answer(client, servers=("n2", "n3", "n4", "n5", "n6", "n7"))
    assert isinstance(got, NoState) and got.waits
    reasons = got.reason.split("; ")
    assert "n2 at n2 did not give it: it broke off" in reasons[0]
    assert "it died" in reasons[1]
    assert "fell silent" in reasons[2] and "fell silent" in reasons[3]
    assert "free space" in "; ".join(reasons[4:])
    assert reasons[-1] == "n7 is not there"


def test_newcomers_do_not_wait_for_each_other() -> None:
    assert answer(Client(n2=[StateReach(0, True)]), servers=("g1", "n1", "n2")) == NobodyNumbers()


def test_a_snapshot_that_is_no_roster_and_one_of_ours_in_the_wrong_form_are_refused() -> None:
    got = answer(Client(), document=b"PostgreSQL")
    assert isinstance(got, NoState) and not got.waits and "no roster of go-cluster" in got.reason
    got = answer(Client(n2=[]), sender="n2")
    assert isinstance(got, NoState) and not got.waits and got.reason.startswith(OTHER_FORM)


# -- answering ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def giver(applied: int) -> Iterator[tuple[StateForOthers, MemoryLog, MemoryBuffer]]:
    log, buffer = MemoryLog(), MemoryBuffer()

    def ask(question: Any) -> LightFuture:
        reply = LightFuture()
        reply.set(applied if isinstance(question, MakeDurable) else Snapshot(applied, 3, io.BytesIO(b"state"), 5, False))
        assert isinstance(question, MakeDurable | TakeSnapshot)
        return reply

    yield StateForOthers("n1", log, buffer, ask), log, buffer
    log.close()


def test_empty_is_only_who_has_neither_log_nor_records() -> None:
    with giver(0) as (states, log, buffer):
        assert states.reach().get(timeout=WAIT) == StateReach(0, True)
        buffer.write(BufferWrite(cursors={"t": 9}))  # it had records once
        assert states.reach().get(timeout=WAIT) == StateReach(0, False)
    with giver(0) as (states, log, _):
        log.append([Entry(1, 1, CONFIGURATION, encode_configuration(SERVERS))])
        assert states.reach().get(timeout=WAIT) == StateReach(0, False)
    with giver(5) as (states, _, _):
        assert states.reach().get(timeout=WAIT) == StateReach(5, False)


def test_the_configuration_is_the_one_in_force_where_the_state_ends() -> None:
    later = Configuration(SERVERS.servers[:2])
    with giver(2) as (states, log, _):
        log.append([Entry(n, 1, CONFIGURATION, encode_configuration(later if n == 3 else SERVERS)) for n in (1, 2, 3)])
        got = states.whole().get(timeout=WAIT)
        assert (got.snapshot.index, got.configuration_index, got.configuration) == (2, 2, encode_configuration(SERVERS))


def test_a_node_that_is_starting_gives_nothing() -> None:
    with pytest.raises(Exception, match="still starting"):
        StateForOthers("n1", MemoryLog(), MemoryBuffer(), lambda question: None).reach().get(timeout=WAIT)
