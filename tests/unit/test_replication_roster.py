"""The roster: the same on every node that applies the same log, whatever stands in the log and wherever a node restarts; and kept by the leader as the quorum is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.errors import Indeterminate, NotLeader, StorageError
from coterie.actors.messages import RosterMember
from coterie.actors.replication.buffer import BufferState, BufferWrite, ReplicationBuffer
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.reader import Reader
from coterie.actors.replication.recovery import recovered
from coterie.actors.replication.registrar import PAUSE, Registrar, RosterProposal, due
from coterie.actors.replication.roster import Roster
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.room_messages import Committed, ProposalsFailed, Propose, Topology
from coterie.proto.raft_messages import COMMAND, NOOP, Entry
from coterie.proto.record_batch import encode_batch, encode_entry
from coterie.proto.roster import RosterCommand, RosterRow, encode_command, removal
from coterie.transport.logs import Log
from tests.unit.replication_support import cluster, eventually

names = st.sampled_from(["n1", "n2", "go1", "نود"])
rows = st.builds(
    RosterRow, names, st.sampled_from(["a:1", "b:2"]), st.none() | st.dictionaries(st.sampled_from(["mgmt", "x"]), st.text(max_size=3))
)
commands = st.builds(lambda row: RosterCommand("add", row), rows) | st.builds(removal, names)
good = st.builds(encode_command, commands)
other = st.sampled_from(
    [
        b'{"Op":"AddNode","Payload":"e30="}',
        b'{"Op":"Rename","Payload":"eyJJRCI6Im4xIn0="}',
        b"{",
        b"\x00later",
        b"\x92\x01",
        encode_entry([encode_batch("t", 0, [b"x"]).data]),
        None,
        b"",
    ]
)
logs = st.lists(st.one_of(good, good, other), max_size=25)


class Obvious:
    """What the commands say, one after the other, without a word about anything else."""

    def __init__(self) -> None:
        self.rows: dict[str, RosterRow] = {}

    def apply(self, command: RosterCommand) -> None:
        self.rows = {name: row for name, row in self.rows.items() if name != command.row.id}
        if command.op == "add":
            self.rows[command.row.id] = command.row


class Counting:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.reader = Reader(self.count, Log("coterie.test"))

    def count(self, reason: str, n: int) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + n


def entries_of(log: list[bytes | None]) -> list[Entry]:
    return [Entry(index, 1, COMMAND if data is not None else NOOP, data) for index, data in enumerate(log, 1)]


def save(buffer: ReplicationBuffer, machine: StateMachine) -> None:
    outcome = machine.take_outcome()
    if machine.applied[0]:
        buffer.write(BufferWrite(batches=outcome.stored, applied=machine.applied, roster=outcome.roster))


@given(logs, st.data())
def test_every_node_has_the_same_roster_wherever_it_restarts(log: list[bytes | None], data: st.DataObject) -> None:
    entries, obvious, plain, counting = entries_of(log), Obvious(), StateMachine(), Counting()
    restarting, buffer = StateMachine(), MemoryBuffer()
    cuts = data.draw(st.sets(st.integers(1, max(1, len(log)))))
    for entry in entries:
        batches, command = counting.reader.entry(entry)
        plain.apply(entry.index, entry.term, batches, command)
        restarting.apply(entry.index, entry.term, batches, command)
        if command is not None:
            obvious.apply(command)
        if entry.index in cuts:
            save(buffer, restarting)
            restarting, _ = recovered(buffer)
    assert plain.roster.rows == restarting.roster.rows == obvious.rows
    assert plain.roster.document() == restarting.roster.document()
    assert plain.next_seqs == restarting.next_seqs
    skipped = [entry for entry in entries if entry.data and counting.reader.entry(entry) == ([], None)]
    assert sum(counting.counts.values()) == 2 * len(skipped)


@given(logs)
def test_a_buffer_of_an_older_version_gets_its_roster_from_the_log(log: list[bytes | None]) -> None:
    entries, machine, reader = entries_of(log), StateMachine(), Counting().reader
    for entry in entries:
        machine.apply(entry.index, entry.term, *reader.entry(entry))
    buffer = MemoryBuffer()
    if machine.applied[0]:
        buffer.write(BufferWrite(batches=machine.take_outcome().stored, applied=machine.applied))  # as a version without a roster writes it
    later = entries_of([*log, encode_command(removal("n1"))])[-1:]
    found, _ = recovered(buffer, lambda index: entries[:index])
    assert found.roster.document() == machine.roster.document()
    assert found.take_outcome().roster == machine.roster.document()  # stored with what comes next, so that the log is read once
    found.apply(later[0].index, 1, *reader.entry(later[0]))
    assert "n1" not in found.roster.rows


def test_the_log_is_not_read_where_a_roster_is_stored() -> None:
    buffer = MemoryBuffer()
    buffer.write(BufferWrite(applied=(7, 1), roster=Roster().document()))

    def past(index: int) -> list[Entry]:
        raise AssertionError("read")

    recovered(buffer, past)


@pytest.fixture(params=["lmdb", "memory"])
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> ReplicationBuffer:
    return LmdbBuffer.open(tmp_path, Identity("n1", "a" * 32)) if request.param == "lmdb" else MemoryBuffer()


def test_the_roster_is_stored_with_the_applied_index(buffer: ReplicationBuffer) -> None:
    assert buffer.load().roster is None
    buffer.write(BufferWrite(applied=(3, 1), roster=b"{}"))
    buffer.write(BufferWrite(applied=(4, 1)))
    assert buffer.load() == BufferState({}, (4, 1), (), b"{}")
    with pytest.raises(ValueError, match="behind"):
        buffer.write(BufferWrite(applied=(2, 1), roster=b"[]"))
    assert buffer.load().roster == b"{}"
    buffer.close()


def test_a_roster_of_another_version_stops_the_node() -> None:
    buffer = MemoryBuffer()
    buffer.write(BufferWrite(applied=(3, 1), roster=b'{"version":2,"members":[]}'))
    with pytest.raises(StorageError, match="roster"):
        recovered(buffer)


# -- what a leader proposes ---------------------------------------------------------------------------------------------------------

N1 = RosterMember("n1", "a:1", {"mgmt": "a:2"})
N2 = RosterMember("n2", "b:1", {"mgmt": "b:2"})


def row(member: RosterMember) -> RosterRow:
    return RosterRow(member.id, member.addr, member.meta)


@given(
    st.dictionaries(names, rows),
    st.lists(st.builds(RosterMember, names, st.text(max_size=3), st.none() | st.dictionaries(names, st.text(max_size=3)))),
)
def test_what_is_due_leads_to_where_nothing_is_due(before: dict[str, RosterRow], voters: list[RosterMember]) -> None:
    roster = {name: old._replace(id=name) for name, old in before.items()}
    for command in due(roster, voters):
        roster.pop(command.row.id, None)
        if command.op == "add":
            roster[command.row.id] = command.row
    assert due(roster, voters) == []
    assert set(roster) == {voter.id for voter in voters}


def test_a_member_that_gossip_does_not_know_stays_and_a_new_one_has_its_raft_address() -> None:
    unheard = RosterMember("n2", "raft:2", None)
    assert due({"n1": row(N1), "n2": row(N2)}, [N1, unheard]) == []
    assert due({"n1": row(N1)}, [N1, unheard]) == [RosterCommand("add", RosterRow("n2", "raft:2", {}))]


class Raft:
    def __init__(self) -> None:
        self.proposed: list[Propose] = []

    def send(self, message: Propose) -> None:
        self.proposed.append(message)


def leads(*voters: RosterMember, term: int = 3) -> Topology:
    return Topology(term=term, leader_id="n1", leads=True, in_quorum=True, voters=voters)


def test_only_a_leader_writes_and_nothing_twice() -> None:
    raft, roster = Raft(), Roster()
    registrar = Registrar(raft, roster, lambda reason, n: None)
    registrar.reconcile(Topology(leader_id="n2", voters=(N1, N2)))
    assert raft.proposed == []
    registrar.reconcile(leads(N1, N2))
    registrar.reconcile(leads(N1, N2))
    assert [message.data for message in raft.proposed] == [encode_command(RosterCommand("add", row(m))) for m in (N1, N2)]
    assert {message.term for message in raft.proposed} == {3}
    for member, message in zip((N1, N2), raft.proposed, strict=True):
        roster.apply(RosterCommand("add", row(member)))
        registrar.committed(message.context)
    registrar.reconcile(leads(N1, N2))
    assert len(raft.proposed) == 2
    registrar.reconcile(leads(N1))
    assert raft.proposed[2].data == encode_command(removal("n2"))


def test_what_changed_while_commands_were_under_way_is_seen_though_they_changed_nothing() -> None:
    """A new leader that has not applied all of its log yet proposes what an entry in it says already."""
    raft, roster = Raft(), Roster()
    registrar = Registrar(raft, roster, lambda reason, n: None)
    registrar.reconcile(leads(N1, N2))
    for member in (N1, N2):
        roster.apply(RosterCommand("add", row(member)))
    registrar.reconcile(leads(N1))
    assert len(raft.proposed) == 2
    for message in raft.proposed:
        registrar.committed(message.context)
    assert registrar.retry_at is not None
    registrar.reconcile(leads(N1))
    assert raft.proposed[2].data == encode_command(removal("n2"))


def test_what_failed_is_compared_again_after_a_pause() -> None:
    raft, registrar = Raft(), None
    registrar = Registrar(raft, Roster(), lambda reason, n: None)
    registrar.reconcile(leads(N1))
    registrar.failed(raft.proposed[0].context, 100.0)
    assert registrar.retry_at == 100.0 + PAUSE
    registrar.reconcile(leads(N1))
    assert len(raft.proposed) == 2 and registrar.retry_at is None


def test_what_no_roster_can_hold_is_counted_and_not_proposed() -> None:
    raft, counting = Raft(), Counting()
    registrar = Registrar(raft, Roster(), counting.count)
    registrar.reconcile(leads(N1, RosterMember("n2", "b:1", {"mgmt": "x" * 100_000})))
    assert len(raft.proposed) == 1
    assert counting.counts == {"roster_rows_not_written": 1}


# -- in the publisher ---------------------------------------------------------------------------------------------------------------


def test_the_leader_fills_the_roster_and_every_node_has_it() -> None:
    with cluster("n1", "n2") as (n1, n2, _):
        n1.topology("n1", voters=(N1, N2))
        for node in (n1, n2):
            assert eventually(lambda node=node: node.view().roster) == (N1, N2)  # type: ignore[misc]
        n1.topology("n1", voters=(N1,))
        for node in (n1, n2):
            eventually(lambda node=node: node.view().roster == (N1,))  # type: ignore[misc]


@pytest.mark.parametrize("error", [NotLeader(), Indeterminate("deposed")])
def test_a_refused_proposal_is_made_again(error: Exception) -> None:
    with cluster("n1") as (n1, raft):
        raft.hold = True
        n1.topology("n1", voters=(N1,))
        eventually(lambda: raft.held)
        raft.lose(error)
        raft.release()
        eventually(lambda: n1.view().roster == (N1,))


def test_a_next_leader_makes_up_for_what_the_last_one_left() -> None:
    with cluster("n1", "n2") as (n1, n2, raft):
        raft.hold = True
        n1.topology("n1", voters=(N1, N2))
        eventually(lambda: len(raft.held) == 2)
        raft.lose(Indeterminate("killed"))
        raft.hold = False
        raft.leader = n2.publisher
        for node in (n1, n2):
            node.topology("n2", term=2, voters=(N1, N2))
        for node in (n1, n2):
            eventually(lambda node=node: node.view().roster == (N1, N2))  # type: ignore[misc]


def test_commands_of_a_go_leader_reach_the_buffer() -> None:
    buffer = MemoryBuffer()
    with cluster("n1", leader="", buffers={"n1": buffer}) as (n1, _):
        data = encode_command(RosterCommand("add", RosterRow("go1", "c:1", {})))
        n1.publisher.tell(Committed([(Entry(1, 1, COMMAND, data), None)]))
        eventually(lambda: buffer.load().roster == b'{"version":1,"members":[{"ID":"go1","Addr":"c:1","Meta":{}}]}')
        assert n1.view().roster == (RosterMember("go1", "c:1", {}),)


def test_the_end_of_a_proposal_that_is_not_known_any_more_does_no_harm() -> None:
    with cluster("n1") as (n1, _):
        n1.publisher.tell(ProposalsFailed([RosterProposal()], NotLeader()))
        n1.topology("n1", voters=(N1,))
        eventually(lambda: n1.view().roster == (N1,))
