"""One contract for every Raft log: what `LmdbLog` and `MemoryLog` both owe to the core and to the shell."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState, RaftLog, SnapshotMark
from coterie.actors.raft.memory_log import MemoryLog
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, NONVOTER, NOOP, Configuration, Entry, Server

ME = Identity("n1", "a" * 32)
UNBOUNDED = 1 << 40
ONE = Configuration((Server("n1", "127.0.0.1:9521"),))
TWO = Configuration((Server("n1", "127.0.0.1:9521"), Server("n2", "127.0.0.1:9522", NONVOTER)))


def command(index: int, term: int = 1, data: bytes = b"x") -> Entry:
    return Entry(index, term, COMMAND, data, None, b"\x01" * 15)


def configured(index: int, configuration: Configuration, term: int = 1) -> Entry:
    return Entry(index, term, CONFIGURATION, encode_configuration(configuration))


@pytest.fixture(params=["lmdb", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RaftLog]:
    opened: RaftLog = LmdbLog.open(tmp_path / "raft", ME) if request.param == "lmdb" else MemoryLog()
    yield opened
    opened.close()


def test_an_empty_log_ends_before_it_begins(log: RaftLog) -> None:
    assert (log.first_index, log.last_index) == (1, 0)
    assert log.term(0) == 0
    assert log.hard_state() == HardState(0, "")
    assert log.configuration() == (0, Configuration())
    with pytest.raises(KeyError):
        log.term(1)
    with pytest.raises(KeyError):
        log.entries(1, 1, UNBOUNDED)


def test_every_field_comes_back_as_it_was_given_nil_told_from_empty(log: RaftLog) -> None:
    given_entries = [
        Entry(1, 1, NOOP, None),
        Entry(2, 1, COMMAND, b"", None, b"\x01" + b"\x00" * 12 + b"\xff\xff"),
        Entry(3, 1, COMMAND, b"data", b"", b""),
        Entry(4, 2, COMMAND, None, b"extensions", b"\x02" * 16),
        Entry(5, 2**63, 255, b"\x00" * 5000, b"e" * 300, b""),
    ]
    log.append(given_entries)
    assert log.entries(1, 5, UNBOUNDED) == given_entries
    assert [log.term(index) for index in range(6)] == [0, 1, 1, 1, 2, 2**63]


def test_entries_end_with_the_one_that_reaches_the_bound_but_there_is_always_one(log: RaftLog) -> None:
    log.append([command(index, data=b"x" * 10) for index in range(1, 7)])
    assert [entry.index for entry in log.entries(2, 6, 20)] == [2, 3]
    assert [entry.index for entry in log.entries(2, 6, 21)] == [2, 3, 4]
    assert [entry.index for entry in log.entries(2, 6, 0)] == [2]
    assert [entry.index for entry in log.entries(2, 4, UNBOUNDED)] == [2, 3, 4]


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 4), (4, 4), (3, 2)])
def test_what_is_no_range_within_the_log_is_a_key_error(log: RaftLog, first: int, last: int) -> None:
    log.append([command(index) for index in (1, 2, 3)])
    with pytest.raises(KeyError):
        log.entries(first, last, UNBOUNDED)


def test_a_truncation_and_what_takes_its_place_are_one_append(log: RaftLog) -> None:
    log.append([command(index, term=1) for index in range(1, 6)], HardState(1, "n1"))
    log.append([command(index, term=2, data=b"new") for index in (3, 4)], HardState(2, ""), truncate_from=3)
    assert (log.last_index, log.term(4), log.term(2)) == (4, 2, 1)
    assert log.entries(1, 4, UNBOUNDED) == [command(1), command(2), command(3, 2, b"new"), command(4, 2, b"new")]
    assert log.hard_state() == HardState(2, "")
    with pytest.raises(KeyError):
        log.term(5)


def test_a_truncation_alone_shortens_the_log_even_to_nothing(log: RaftLog) -> None:
    log.append([command(1, 1), command(2, 3)])
    log.append([], truncate_from=2)
    assert (log.last_index, log.term(1)) == (1, 1)
    log.append([], truncate_from=1)
    assert (log.last_index, log.term(0)) == (0, 0)
    log.append([command(1, 4)])
    assert log.term(1) == 4


def test_a_truncation_beyond_the_end_removes_nothing(log: RaftLog) -> None:
    log.append([command(1)])
    log.append([command(2)], truncate_from=9)
    assert log.entries(1, 2, UNBOUNDED) == [command(1), command(2)]


@pytest.mark.parametrize(
    ("entries", "truncate_from"),
    [([command(5)], None), ([command(3)], None), ([command(4), command(6)], None), ([command(4)], 3), ([], 0)],
    ids=["gap", "overlap", "gap within", "gap after a cut", "cut below the first"],
)
def test_what_does_not_continue_the_log_is_refused_and_changes_nothing(
    log: RaftLog, entries: list[Entry], truncate_from: int | None
) -> None:
    log.append([command(index) for index in (1, 2, 3)], HardState(1, "n1"))
    with pytest.raises(ValueError, match=r"entry|truncate_from"):
        log.append(entries, HardState(9, "n9"), truncate_from)
    assert (log.last_index, log.hard_state()) == (3, HardState(1, "n1"))
    log.append([command(4)])
    assert log.last_index == 4


def test_the_hard_state_stands_alone_or_with_entries_and_stays_when_not_given(log: RaftLog) -> None:
    log.append([], HardState(3, "n2"))
    log.append([command(1, 3)])
    assert log.hard_state() == HardState(3, "n2")
    log.append([command(2, 4)], HardState(4, "نود"))
    assert log.hard_state() == HardState(4, "نود")


def test_the_latest_configuration_and_the_one_before_any_index(log: RaftLog) -> None:
    log.append([configured(1, ONE), command(2), command(3), configured(4, TWO), command(5)])
    assert log.configuration() == (4, TWO)
    assert log.configuration_before(5) == (4, TWO)
    assert log.configuration_before(4) == (1, ONE)
    assert log.configuration_before(2) == (1, ONE)
    assert log.configuration_before(1) == (0, Configuration())


def test_a_truncated_configuration_is_no_longer_in_force(log: RaftLog) -> None:
    log.append([configured(1, ONE), command(2), configured(3, TWO), command(4)])
    log.append([command(3, 2)], truncate_from=3)
    assert log.configuration() == (1, ONE)
    log.append([configured(3, TWO, 3)], truncate_from=3)
    assert log.configuration() == (3, TWO)


appends = st.lists(
    st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 4)), st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 3)),
    max_size=12,
)


def follows_the_model(log: RaftLog, reopen: Callable[[RaftLog], RaftLog], script: list[tuple[int, int | None, int | None, int]]) -> None:
    model: list[Entry] = []
    hard_state = HardState()
    for term, (count, back, vote, configuration_at) in enumerate(script, 1):
        cut = None if back is None or back >= len(model) else len(model) - back + 1
        kept = model[: cut - 1] if cut is not None else model
        entries = [
            configured(index, ONE, term) if offset == configured_at(configuration_at, count) else command(index, term, b"%d" % index)
            for offset, index in enumerate(range(len(kept) + 1, len(kept) + count + 1))
        ]
        given_state = None if vote is None else HardState(term, f"n{vote}")
        log.append(entries, given_state, cut)
        model, hard_state = kept + entries, given_state or hard_state
        log = reopen(log)
        assert log.last_index == len(model)
        assert log.hard_state() == hard_state
        assert not model or log.entries(1, len(model), UNBOUNDED) == model
        assert [log.term(entry.index) for entry in model] == [entry.term for entry in model]
        for below in range(1, len(model) + 2):
            at = max((entry.index for entry in model if entry.kind == CONFIGURATION and entry.index < below), default=0)
            assert log.configuration_before(below) == (at, ONE if at else Configuration())
    log.close()


def configured_at(place: int, count: int) -> int | None:
    return place if place < count - 2 else None


@given(appends)
@settings(max_examples=60, deadline=None)
def test_any_history_of_appends_reads_like_a_list_in_memory(script: list[tuple[int, int | None, int | None, int]]) -> None:
    follows_the_model(MemoryLog(), lambda log: log, script)


@given(appends, st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_history_of_appends_reads_like_a_list_on_disk_reopened_or_not(
    script: list[tuple[int, int | None, int | None, int]], reopens: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:

        def reopen(log: RaftLog) -> RaftLog:
            if not reopens:
                return log
            log.close()
            return LmdbLog.open(Path(directory) / "raft", ME)

        follows_the_model(LmdbLog.open(Path(directory) / "raft", ME), reopen, script)


def test_compaction_takes_the_beginning_and_keeps_what_must_be_known_of_it(log: RaftLog) -> None:
    log.append([configured(1, ONE), command(2), configured(3, TWO), command(4, 2), command(5, 3)], HardState(3, "n1"))
    log.compact(4)
    assert (log.first_index, log.last_index, log.term(4), log.term(5)) == (5, 5, 2, 3)
    assert log.configuration() == log.configuration_before(5) == (3, TWO)
    assert log.entries(5, 5, UNBOUNDED) == [command(5, 3)]
    assert log.hard_state() == HardState(3, "n1")
    with pytest.raises(KeyError):
        log.term(3)
    with pytest.raises(KeyError):
        log.entries(4, 5, UNBOUNDED)
    with pytest.raises(ValueError, match="committed and compacted"):
        log.append([command(4)], truncate_from=4)


def test_compaction_of_everything_leaves_a_log_that_goes_on(log: RaftLog) -> None:
    log.append([configured(1, ONE), command(2, 4)])
    log.compact(2)
    assert (log.first_index, log.last_index, log.term(2)) == (3, 2, 4)
    assert log.configuration() == (1, ONE)
    log.append([command(3, 5)])
    assert (log.last_index, log.term(3), log.term(2)) == (3, 5, 4)
    log.append([], truncate_from=3)
    assert (log.last_index, log.term(2)) == (2, 4)


def test_compaction_again_or_below_changes_nothing_and_beyond_the_end_is_refused(log: RaftLog) -> None:
    log.append([command(index) for index in range(1, 6)])
    log.compact(3)
    log.compact(3)
    log.compact(1)
    assert (log.first_index, log.last_index) == (4, 5)
    with pytest.raises(ValueError, match="ends at 5"):
        log.compact(6)
    assert (log.first_index, log.last_index) == (4, 5)


def test_a_snapshot_takes_the_place_of_the_whole_log(log: RaftLog) -> None:
    log.append([configured(1, ONE), command(2), command(3)], HardState(2, "n2"))
    log.reset(SnapshotMark(90, 7, 40, TWO))
    assert (log.first_index, log.last_index, log.term(90)) == (91, 90, 7)
    assert log.configuration() == (40, TWO)
    assert log.hard_state() == HardState(2, "n2")
    with pytest.raises(KeyError):
        log.term(3)
    log.append([command(91, 8)])
    assert (log.last_index, log.term(91), log.term(90)) == (91, 8, 7)


def test_a_compacted_log_is_opened_again_as_it_was(tmp_path: Path) -> None:
    log = LmdbLog.open(tmp_path / "raft", ME)
    log.append([configured(1, ONE), command(2), configured(3, TWO), command(4, 2), command(5, 3)])
    log.compact(4)
    log.close()
    log = LmdbLog.open(tmp_path / "raft", ME)
    assert (log.first_index, log.last_index, log.term(4), log.configuration()) == (5, 5, 2, (3, TWO))
    log.reset(SnapshotMark(90, 7, 40, ONE))
    log.close()
    log = LmdbLog.open(tmp_path / "raft", ME)
    assert (log.first_index, log.last_index, log.term(90), log.configuration()) == (91, 90, 7, (40, ONE))
    log.close()
