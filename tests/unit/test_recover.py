"""A configuration that is forced on stopped nodes: what the file may say, what changes, and that any logs that are left become one."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.findings import Finding
from coterie.actors.disk.lmdb_env import seal
from coterie.actors.errors import InvalidRequest, StorageError
from coterie.actors.raft.forcing import STEP, forced_entry, forced_state
from coterie.actors.raft.log import Doubt, HardState, SnapshotMark
from coterie.actors.raft.log_format import pack_doubt, pack_mark
from coterie.actors.raft.peers_file import check_among, parse_peers
from coterie.actors.replication.buffer_format import pack_applied, pack_document
from coterie.actors.stores.inspection import Inspection, inspect
from coterie.actors.stores.recovering import plan, recover
from coterie.proto.raft_messages import COMMAND, NONVOTER, VOTER, Configuration, Entry, Server
from tests.sim.disk import SimDisk
from tests.unit.raft_cluster import Member, RaftCluster, server
from tests.unit.stored import SERVERS, TERM, change, fingerprints, make

ALONE = Configuration((Server("n1", "127.0.0.1:9521"),))


def silent(part: str, done: int, total: int) -> None:
    pass


# -- the file ---------------------------------------------------------------------------------------------------------------------


def test_the_file_is_that_of_hashicorp() -> None:
    found = parse_peers('[{"id": "n1", "address": "10.0.0.1:9520"}, {"id": "n2", "address": "n2.lan:9520", "non_voter": true}]')
    assert found == Configuration((Server("n1", "10.0.0.1:9520"), Server("n2", "n2.lan:9520", NONVOTER)))
    check_among("n2", found)


N1 = {"id": "n1", "address": "10.0.0.1:9520"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "the file is no JSON"),
        ({}, "holds no list of servers"),
        ([], "holds no list of servers"),
        (["10.0.0.1:9520"], "is no object with id and address"),
        ([{**N1, "nonvoter": True}], r"peers\[0\].nonvoter: no such field"),
        ([{**N1, "non_voter": "yes"}], r"peers\[0\].non_voter='yes'"),
        ([{"address": "10.0.0.1:9520"}], r"peers\[0\].id=None"),
        ([{**N1, "id": ""}], r"peers\[0\].id=''"),
        ([{**N1, "id": "a\nb"}], r"peers\[0\].id="),
        ([{**N1, "address": "10.0.0.1"}], r"peers\[0\].address='10.0.0.1'"),
        ([{**N1, "address": ":9520"}], "give the host and port"),
        ([{**N1, "address": "0.0.0.0:9520"}], "give the host and port"),
        ([{**N1, "address": 9520}], r"peers\[0\].address=9520"),
        ([N1, {"id": "n1", "address": "10.0.0.2:9520"}], r"peers\[1\].id='n1': stands there twice"),
        ([N1, {"id": "n2", "address": "10.0.0.1:9520"}], r"peers\[1\].address='10.0.0.1:9520': stands there twice"),
        ([{**N1, "non_voter": True}], "at least one must vote"),
    ],
)
def test_what_is_not_certainly_meant_is_refused_by_row_and_field(content: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse_peers(content if isinstance(content, str) else json.dumps(content))


def test_the_node_itself_must_be_in_it() -> None:
    with pytest.raises(InvalidRequest, match="'n9', whose data directory this is, is not among n1"):
        check_among("n9", ALONE)


# -- one node ---------------------------------------------------------------------------------------------------------------------


def test_what_would_change_is_told_and_nothing_is_changed(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    before = fingerprints(path)
    planned = plan(path, None, ALONE)
    assert fingerprints(path) == before
    assert (planned.before, planned.configuration_index, planned.after) == (SERVERS, 1, ALONE)
    assert (planned.last, planned.applied, planned.taken_as_committed) == ((40, TERM), 35, 5)
    assert (planned.index, planned.term) == (41, TERM + STEP)
    assert planned.hard_state == (HardState(TERM, "n1"), HardState(TERM + 2 * STEP, "n1"))


def test_it_is_copied_first_and_then_changed_and_is_sound_after_it(tmp_path: Path) -> None:
    path, copy = make(tmp_path / "n1"), tmp_path / "copy"
    before = fingerprints(path)
    told: list[tuple[str, int, int]] = []
    recover(path, None, ALONE, copy, lambda *progress: told.append(progress))
    assert {name: digest for name, digest in fingerprints(copy).items() if name != "LOCK"} == {
        name: digest for name, digest in before.items() if name != "LOCK"
    }
    assert told[-1][0] == "copy" and told[-1][1] == told[-1][2]
    *_, seen = inspect(path)
    assert isinstance(seen, Inspection) and seen.log is not None and seen.damage == 0
    assert (seen.log.last, seen.log.configuration_index, seen.log.configuration) == (41, 41, ALONE)
    assert seen.log.hard_state == HardState(TERM + 2 * STEP, "n1")
    again = recover(path, None, ALONE, tmp_path / "copy2", silent)
    assert (again.index, again.term) == (42, TERM + 2 * STEP), "it may be repeated"


def test_a_snapshot_whose_installation_was_cut_short_is_finished_first(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    mark = SnapshotMark(50, TERM, 1, SERVERS)
    for key, body in ((b"installed", pack_document(pack_mark(mark))), (b"applied", pack_applied((50, TERM)))):
        change(path, "buffer", "meta", key, seal(key, body))
    assert plan(path, None, ALONE).index == 51
    assert recover(path, None, ALONE, tmp_path / "copy", silent).index == 51
    *_, seen = inspect(path)
    assert isinstance(seen, Inspection) and seen.log is not None
    assert (seen.damage, seen.log.first, seen.log.last, seen.log.configuration) == (0, 51, 51, ALONE)


def test_what_a_log_has_lost_to_damage_is_told_and_it_votes_again(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    change(path, "raft", "meta", b"doubt", seal(b"doubt", pack_doubt(Doubt(44, TERM))))
    *findings, seen = inspect(path)
    assert isinstance(seen, Inspection) and seen.log is not None
    assert (seen.damage, seen.log.doubt) == (0, Doubt(44, TERM))
    assert any(isinstance(finding, Finding) and "lost entries to damage, up to 44" in finding.what for finding in findings)
    assert recover(path, None, ALONE, tmp_path / "copy", silent).doubt == Doubt(44, TERM)
    *_, seen = inspect(path)
    assert isinstance(seen, Inspection) and seen.log is not None and seen.log.doubt is None


def test_what_must_not_be_recovered_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    copy = tmp_path / "copy"
    held = DataDir.open(path, "n1")
    with pytest.raises(StorageError, match="in use by process"):
        recover(path, None, ALONE, copy, silent)
    held.close()
    before = fingerprints(path)
    with pytest.raises(InvalidRequest, match="is not among"):
        recover(path, None, Configuration((Server("n2", "n2:1"),)), copy, silent)
    copy.mkdir()
    with pytest.raises(StorageError, match="the copy failed"):
        recover(path, None, ALONE, copy, silent)
    with pytest.raises(StorageError, match="name the data directory of a node"):
        plan(tmp_path, None, ALONE)
    assert {name: d for name, d in fingerprints(path).items() if name != "LOCK"} == {n: d for n, d in before.items() if n != "LOCK"}
    change(path, "buffer", "meta", b"applied", seal(b"applied", pack_applied((45, TERM))))
    with pytest.raises(StorageError, match="the Raft log ends at 40: entries are lost"):
        plan(path, None, ALONE)


# -- several nodes ----------------------------------------------------------------------------------------------------------------


def ends(log: list[Entry]) -> tuple[int, int]:
    return log[-1].term, log[-1].index


@st.composite
def survivors(draw: st.DrawFn) -> list[list[Entry]]:
    """Logs as Raft leaves them behind: each a beginning of the history of some leader, and histories that branch off with a later term."""
    random = Random(draw(st.integers(0, 1 << 32)))
    histories = [[Entry(1, 1, COMMAND, b"begin")]]
    for term in range(2, 2 + draw(st.integers(1, 8))):
        base = random.choice(histories)
        cut = base[: random.randint(1, len(base))]
        histories.append([*cut, *(Entry(len(cut) + n, term, COMMAND, b"%d" % term) for n in range(1, random.randint(2, 5)))])
    return [history[: random.randint(1, len(history))] for history in random.choices(histories, k=draw(st.integers(2, 4)))]


@settings(max_examples=300)
@given(survivors())
def test_forced_entries_keep_the_order_of_the_logs_and_never_match_where_the_logs_differ(logs: list[list[Entry]]) -> None:
    configuration = Configuration(tuple(Server(f"n{n}", f"n{n}:1") for n in range(len(logs))))
    forced = [[*log, forced_entry(log[-1].index, log[-1].term, configuration)] for log in logs]
    states = [forced_state(HardState(log[-1].term), log[-1].term, "n0", configuration) for log in logs]
    for a, before_a in zip(forced, logs, strict=True):
        for b, before_b in zip(forced, logs, strict=True):
            assert (ends(a) < ends(b)) == (ends(before_a) < ends(before_b)), "votes go to whom they would have gone to"
            for index, (one, other) in enumerate(zip(a, b, strict=False), 1):
                if one.term == other.term:
                    assert a[:index] == b[:index], "log matching"
    assert max(entry.term for log in forced for entry in log) < min(state.term for state in states), (
        "no later leader has a term that is taken"
    )


def recovered(logs: list[list[Entry]], configuration: Configuration) -> RaftCluster:
    """Servers n1, n2, … with these logs, each recovered by itself, that have run for a while and then committed one command more."""
    cluster = RaftCluster(*(f"n{number}" for number in range(1, len(logs) + 1)))
    for name, log in zip(list(cluster.members), logs, strict=True):
        disk, index, term = SimDisk(), log[-1].index, log[-1].term
        disk.write([*log, forced_entry(index, term, configuration)], forced_state(HardState(term), term, name, configuration), None)
        cluster.members[name] = Member(name, cluster.settings, cluster.now, disk)
    cluster.pass_time(8, 0.05)
    cluster.propose(b"new")
    cluster.pass_time(0.5)
    return cluster


def servers(logs: list[list[Entry]], *voters: int) -> Configuration:
    """voters: their numbers, from 0; none: all."""
    return Configuration(tuple(server(f"n{n + 1}", VOTER if n in voters or not voters else NONVOTER) for n in range(len(logs))))


@settings(max_examples=60, deadline=None)
@given(survivors())
def test_whatever_logs_are_left_they_become_one_cluster(logs: list[list[Entry]]) -> None:
    members = recovered(logs, servers(logs)).alive()
    first = members[0].applied
    assert [entry.data for entry in first if entry.data == b"new"] == [b"new"]
    assert all(member.applied == first for member in members)
    assert any(first[: len(log)] == log for log in logs), "it goes on with what one of them had, all of it"
    if len(logs) == 2:  # neither decides without the other
        longest = max(logs, key=ends)
        assert first[: len(longest)] == longest


@settings(max_examples=60, deadline=None)
@given(survivors())
def test_when_the_one_with_the_longest_log_is_the_only_voter_nothing_of_it_is_lost(logs: list[list[Entry]]) -> None:
    longest = max(range(len(logs)), key=lambda number: ends(logs[number]))
    members = recovered(logs, servers(logs, longest)).alive()
    for member in members:
        assert member.applied[: len(logs[longest])] == logs[longest]
        assert member.applied[-1].data == b"new"


def test_the_only_voter_knows_that_it_decides_alone() -> None:
    learner = Configuration((*ALONE.servers, Server("n2", "n2:1", NONVOTER)))
    both = Configuration((*ALONE.servers, Server("n2", "n2:1")))
    before = HardState(3, "n3")
    assert forced_state(before, 3, "n1", ALONE).voted_for == forced_state(before, 3, "n1", learner).voted_for == "n1"
    assert forced_state(before, 3, "n2", learner).voted_for == forced_state(before, 3, "n1", both).voted_for == ""
    assert forced_state(HardState(5 * STEP, "n3"), 3, "n1", ALONE) == HardState(5 * STEP + 1, "n1")
