"""What a node finds when it starts: a log and a state machine that belong together, that can be put together, or that must not be."""

from __future__ import annotations

import pytest

from coterie.actors.errors import StorageError
from coterie.actors.raft.log import HardState, SnapshotMark
from coterie.actors.raft.log_format import pack_mark
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.recovery import check_start, finish_installation
from coterie.proto.raft_messages import COMMAND, Configuration, Entry, Server

MARK = SnapshotMark(9, 3, 2, Configuration((Server("n1", "n1:9520"),)))


def log_of(term: int, *terms: int) -> MemoryLog:
    log = MemoryLog()
    log.append([Entry(index, of, COMMAND, b"x") for index, of in enumerate(terms, 1)], HardState(term, "n2"))
    return log


def ends(log: MemoryLog) -> tuple[int, int]:
    return log.first_index, log.last_index


def test_without_a_mark_nothing_is_to_be_finished() -> None:
    log = log_of(3, 1, 1)
    assert not finish_installation(log, None)
    assert ends(log) == (1, 2)


def test_a_log_that_is_behind_is_put_behind_the_snapshot() -> None:
    log = log_of(3, 1, 1)
    assert finish_installation(log, pack_mark(MARK))
    assert (ends(log), log.term(9), log.configuration()) == ((10, 9), 3, (2, MARK.configuration))
    assert not finish_installation(log, pack_mark(MARK)), "it is done once"


def test_a_tail_that_contradicts_the_snapshot_goes_and_one_that_agrees_stays() -> None:
    other = log_of(3, *[1] * 12)
    assert finish_installation(other, pack_mark(MARK))
    assert ends(other) == (10, 9)
    agrees = log_of(3, *[1] * 8, 3, 3)
    assert not finish_installation(agrees, pack_mark(MARK))
    assert ends(agrees) == (1, 10)


def test_a_server_whose_votes_are_gone_does_not_begin_behind_a_snapshot() -> None:
    """Who installs a snapshot has followed its sender, whose term is on the disk before. An empty log beside a mark is somebody's `rm -r`."""
    with pytest.raises(StorageError, match="removed or replaced"):
        finish_installation(MemoryLog(), pack_mark(MARK))


def test_a_state_machine_behind_the_beginning_of_the_log_is_refused() -> None:
    log = log_of(3, 1, 1, 1)
    log.compact(2)
    check_start(log, 2)
    with pytest.raises(StorageError, match="those between are gone"):
        check_start(log, 1)
