"""The data directory of format 1, as it was first released, still opens and still says the same. It is never made anew to please this test.

tests/data/data_dir_v1 was written by tools/make_data_dir_v1.py on a little-endian machine with 64 bits; LMDB's files do not open on another kind.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import pytest

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.lmdb_view import look
from coterie.actors.errors import StorageError
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.replication.buffer import Gap, TopicState
from coterie.actors.replication.lmdb_buffer import LAYOUT, LmdbBuffer
from coterie.proto.raft_messages import COMMAND, Configuration, Entry
from tools.make_data_dir_v1 import HERE, Content, content, make

UNBOUNDED = 1 << 40


@pytest.fixture(params=["as released", "as written now"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "as written now":
        make(tmp_path / "n1")
    elif sys.byteorder != "little" or struct.calcsize("P") != 8:
        pytest.skip("LMDB's files are those of a little-endian machine with 64 bits")
    else:
        shutil.copytree(HERE, tmp_path / "n1")
    return tmp_path / "n1"


@pytest.fixture
def given() -> Content:
    return content()


def test_whose_directory_it_is(directory: Path, given: Content) -> None:
    data_dir = DataDir.open(directory, given.identity.node_id)
    assert (data_dir.identity, data_dir.created) == (given.identity, given.created)
    data_dir.close()


def test_the_raft_log_says_what_was_written_and_goes_on(directory: Path, given: Content) -> None:
    log = LmdbLog.open(directory / "raft", given.identity)
    assert (log.first_index, log.last_index, log.hard_state()) == (1, 8, given.hard_state)
    assert tuple(log.entries(1, 8, UNBOUNDED)) == given.entries
    assert [log.term(index) for index in range(9)] == [0, *(entry.term for entry in given.entries)]
    assert (log.configuration(), log.configuration_before(5)) == given.configurations[::-1]
    assert log.configuration_before(1) == (0, Configuration())
    log.append([Entry(9, 2**41, COMMAND, b"later")])
    log.close()
    log = LmdbLog.open(directory / "raft", given.identity)
    assert (log.last_index, log.term(9)) == (9, 2**41)
    log.close()


def test_the_buffer_says_what_was_written(directory: Path, given: Content) -> None:
    buffer = LmdbBuffer.open(directory / "buffer", given.identity)
    state = buffer.load()
    assert state.topics == {
        "a/b": TopicState(next_seq=1003, first_seq=3, cursor=4, batches=1, size=6),
        "a_b": TopicState(next_seq=2, first_seq=1, cursor=0, batches=1, size=0),
        "سفارش": TopicState(next_seq=2**33 + 1, first_seq=2**33, cursor=0, batches=1, size=256 * 12),
        "never seen": TopicState(cursor=9),
    }
    assert (state.applied, state.dedupe) == (given.applied, given.dedupe)
    assert state.roster is None  # format 1 was released without one
    for stored in given.batches[1:]:
        assert buffer.read(stored.topic, stored.first_seq, UNBOUNDED, 10) == [stored]
    with pytest.raises(Gap):
        buffer.read("a/b", 1, UNBOUNDED, 10)
    buffer.close()


def test_who_only_looks_at_a_directory_of_an_earlier_version_hears_what_to_do(tmp_path: Path, given: Content) -> None:
    shutil.copytree(HERE / "buffer", tmp_path / "buffer")
    with pytest.raises(StorageError, match="written by an earlier version and has no table 'blocks' yet; remedy: start the node once"):
        look(tmp_path / "buffer", LAYOUT, given.identity)
    LmdbBuffer.open(tmp_path / "buffer", given.identity).close()
    look(tmp_path / "buffer", LAYOUT, given.identity).close()
