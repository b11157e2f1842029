"""A damaged log or buffer: what is kept, what is moved aside, what the server must not do afterwards, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from coterie import StorageError
from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.lmdb_env import META, Damaged
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import Doubt, HardState
from coterie.actors.raft.log_format import KEY_HARD_STATE, index_key
from coterie.actors.raft.salvage import finish, salvage
from coterie.actors.stores import storage
from coterie.actors.stores.storage import note_damage, open_stores
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry
from coterie.transport.logs import Log
from tests.unit.stored import SERVERS, TERM, change, entries, make, rows

NOTES = Log("coterie.test")


@contextlib.contextmanager
def opened(path: Path):
    directory = DataDir.open(path, "n1")
    closing = [directory]
    try:
        stores = open_stores(directory, directory.buffer_path(), closing.append, NOTES)
        yield stores
    finally:
        for one in reversed(closing):
            one.close()


def flip(path: Path, index: int) -> None:
    value = dict(rows(path, "raft", "log"))[index_key(index)]
    change(path, "raft", "log", index_key(index), value[:-1] + bytes((value[-1] ^ 1,)))


def noted(path: Path, part: str = "raft") -> None:
    note_damage(path, Damaged(path / part, "a record"))


def aside(path: Path, part: str) -> list[Path]:
    return sorted(path.glob(f"{part}.damaged-*"))


def test_the_last_entry_is_damaged_and_the_rest_is_kept(tmp_path):
    path = make(tmp_path / "n1", last=40, applied=35, compacted=10)
    flip(path, 40)
    damaged = (path / "raft" / "data.mdb").read_bytes()
    with opened(path) as (log, buffer):
        assert (log.first_index, log.last_index, log.hard_state()) == (11, 39, HardState(TERM, "n1"))
        assert log.entries(11, 39, 1 << 30) == entries(11, 39)
        assert log.configuration() == (1, SERVERS)
        assert log.doubt() == Doubt(40, TERM)
        assert buffer.load().applied[0] == 35
    (kept,) = aside(path, "raft")
    assert (kept / "data.mdb").read_bytes() == damaged, "it is moved, not changed"
    with opened(path) as (log, _):
        assert log.doubt() == Doubt(40, TERM), "also in the next life"
        log.append([entries(40, 40)[0]])
        log.settle()
    with opened(path) as (log, _):
        assert log.doubt() is None
        assert log.last_index == 40
    assert len(aside(path, "raft")) == 1


def test_damage_that_the_state_machine_has_behind_it_costs_nothing(tmp_path):
    """What the start does not read it reads in full where an earlier life has met damage."""
    path = make(tmp_path / "n1", last=40, applied=35, compacted=10)
    flip(path, 20)
    with opened(path) as (log, _):
        with pytest.raises(Damaged) as caught:
            log.entries(11, 40, 1 << 30)
        assert caught.value.path == path / "raft"
    note_damage(path, caught.value)
    assert json.loads((path / storage.NOTE).read_bytes()) == [str(path / "raft")]
    with opened(path) as (log, _):
        assert (log.first_index, log.last_index, log.doubt()) == (36, 40, None)
        assert log.term(35) == entries(35, 35)[0].term
        assert log.entries(36, 40, 1 << 30) == entries(36, 40)
        assert log.configuration() == (1, SERVERS)
    assert not (path / storage.NOTE).exists()


def test_damage_on_both_sides_of_the_state_machine(tmp_path):
    path = make(tmp_path / "n1", last=40, applied=35, compacted=10)
    flip(path, 20)
    flip(path, 38)
    noted(path)
    with opened(path) as (log, _):
        assert (log.first_index, log.last_index, log.doubt()) == (36, 37, Doubt(40, TERM))


def test_a_note_about_what_is_sound_changes_nothing(tmp_path):
    path = make(tmp_path / "n1")
    noted(path)
    noted(path, "buffer")
    before = rows(path, "raft", "log"), rows(path, "buffer", "batches")
    with opened(path) as (log, _):
        assert log.doubt() is None
    assert (rows(path, "raft", "log"), rows(path, "buffer", "batches")) == before
    assert not aside(path, "raft") and not aside(path, "buffer") and not (path / storage.NOTE).exists()


@pytest.mark.parametrize("key", [KEY_HARD_STATE, b"start", b"node_id"])
def test_a_server_that_cannot_tell_what_it_promised_is_refused_and_nothing_is_changed(tmp_path, key):
    path = make(tmp_path / "n1")
    value = dict(rows(path, "raft", META))[key]
    change(path, "raft", META, key, value[:-1] + bytes((value[-1] ^ 1,)))
    before = (path / "raft" / "data.mdb").read_bytes()
    with pytest.raises(StorageError, match="clusterctl check"), opened(path):
        pass
    assert (path / "raft" / "data.mdb").read_bytes() == before
    assert not aside(path, "raft")


def test_the_only_voter_stays_down_when_it_lost_what_nobody_else_has(tmp_path):
    path = make(tmp_path / "n1", last=40, applied=35, compacted=10)
    alone = Entry(36, TERM, CONFIGURATION, encode_configuration(Configuration(SERVERS.servers[:1])))
    directory = DataDir.open(path, "n1")
    log = LmdbLog.open(directory.raft_path, directory.identity)
    log.append([alone, *entries(37, 40)], truncate_from=36)
    log.close()
    directory.close()
    flip(path, 40)
    with pytest.raises(StorageError, match=r"the only voter(.|\n)*clusterctl check(.|\n)*clusterctl recover"), opened(path):
        pass
    assert not aside(path, "raft")


def test_a_hole_in_the_log_is_where_it_ends(tmp_path):
    path = make(tmp_path / "n1", last=40, applied=35, compacted=10)
    change(path, "raft", "log", index_key(37), None)
    with opened(path) as (log, _):
        assert (log.last_index, log.doubt()) == (36, Doubt(40, TERM))


def test_a_crash_between_the_two_renames_is_finished(tmp_path, monkeypatch):
    path = make(tmp_path / "n1", last=40, applied=35)
    flip(path, 40)
    directory = DataDir.open(path, "n1")
    real = Path.rename

    def dies(self, target):
        if self.name == "raft.new":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        salvage(directory.raft_path, directory.identity, (35, 4))
    monkeypatch.undo()
    directory.close()
    assert not (path / "raft").exists()
    with opened(path) as (log, _):
        assert (log.last_index, log.doubt()) == (39, Doubt(40, TERM))
    finish(path / "raft")  # nothing is left to do
    assert (path / "raft").exists()


def test_a_damaged_buffer_begins_anew_from_the_log_and_keeps_its_cursors(tmp_path):
    path = make(tmp_path / "n1", last=40, applied=35, compacted=0)
    key, value = rows(path, "buffer", "batches")[3]
    change(path, "buffer", "batches", key, value[:-1] + bytes((value[-1] ^ 1,)))
    noted(path, "buffer")
    with opened(path) as (log, buffer):
        state = buffer.load()
        assert (state.applied, state.topics["orders"].cursor, state.topics["orders"].next_seq) == ((0, 0), 32, 0)
        assert (log.first_index, log.last_index, log.doubt()) == (1, 40, None), "all of it is in the log"
    assert len(aside(path, "buffer")) == 1 and not aside(path, "raft")


def test_a_damaged_buffer_whose_log_is_compacted_waits_for_a_snapshot(tmp_path):
    path = make(tmp_path / "n1", last=40, applied=35, compacted=10)
    key, value = rows(path, "buffer", "batches")[3]
    change(path, "buffer", "batches", key, value[:-1] + bytes((value[-1] ^ 1,)))
    noted(path, "buffer")
    with opened(path) as (log, buffer):
        assert buffer.load().applied == (0, 0)
        assert (log.first_index, log.last_index, log.hard_state(), log.doubt()) == (1, 0, HardState(TERM, "n1"), Doubt(40, TERM))
    assert len(aside(path, "buffer")) == 1 and len(aside(path, "raft")) == 1
