"""Backups: what is taken is what is restored, whatever is wrong with one is found, and a restored directory is a node's."""

from __future__ import annotations

import io
import random
import shutil
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.disk.data_dir import DataDir, read_node
from coterie.actors.errors import StorageError
from coterie.actors.raft.forcing import STEP
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState
from coterie.actors.raft.recovery import check_start, finish_installation
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.stores.backups import Verified, restore, take, verify
from coterie.actors.stores.inspection import Inspection, inspect
from coterie.proto import backup, frames
from coterie.proto.errors import WireError
from coterie.proto.raft_messages import CONFIGURATION, NONVOTER, Configuration, Entry, Server
from tests.unit.stored import SERVERS, TERM, change, entries, fingerprints, make, rows

ALONE = Configuration((Server("new", "127.0.0.1:9600"),))


def silent(part: str, done: int, total: int) -> None:
    pass


def taken(path: Path, to: Path) -> Verified:
    with to.open("xb") as out:
        take(path, None, out, silent)
    return verify(io.BytesIO(to.read_bytes()))


def test_a_backup_is_the_state_of_the_buffer_and_what_the_log_has_beyond_it(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    before = fingerprints(path)
    verified = taken(path, tmp_path / "b")
    header = verified.header
    assert fingerprints(path) == before
    assert (header.node_id, header.online, header.term, header.applied, header.last) == ("n1", False, TERM, (35, 4), (40, 4))
    assert (header.configuration_index, header.configuration, header.cursors) == (1, SERVERS, {"orders": 32})
    assert list(verified.source.entries()) == entries(36, 40)
    assert (verified.records, verified.entries, len(verified.content.ids)) == (28, 5, 6)


def test_restored_it_has_the_same_records_numbers_and_ids_and_goes_on_above(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    verified = taken(path, tmp_path / "b")
    made = restore(verified, tmp_path / "new", None, "new", ALONE)
    assert (made.first_index, made.last_index, made.term) == (36, 41, TERM + STEP)
    *_, seen = inspect(tmp_path / "new")
    assert isinstance(seen, Inspection)
    assert seen.damage == 0 and seen.log is not None and seen.buffer is not None
    held = DataDir.open(tmp_path / "new", "new")
    log = LmdbLog.open(held.raft_path, held.identity)
    buffer = LmdbBuffer.open(held.buffer_path(), held.identity)
    old = LmdbBuffer.look(path / "buffer", read_node(path)[0])
    try:
        assert log.entries(36, 40, 1 << 30) == entries(36, 40)
        assert log.configuration() == (41, ALONE) and log.hard_state() == HardState(TERM + 2 * STEP, "new")
        assert not finish_installation(log, buffer.mark()), "the next start has nothing to mend"
        check_start(log, buffer.load().applied[0])
        assert buffer.load() == old.load()
        assert buffer.read("orders", 6, 1 << 30, 1000) == old.read("orders", 6, 1 << 30, 1000)
    finally:
        for store in (log, buffer, old, held):
            store.close()


def test_without_the_cursors_delivery_begins_anew(tmp_path: Path) -> None:
    verified = taken(make(tmp_path / "n1"), tmp_path / "b")
    restore(verified, tmp_path / "new", None, "new", ALONE, keep_cursors=False)
    *_, seen = inspect(tmp_path / "new")
    assert isinstance(seen, Inspection) and seen.buffer is not None
    assert (seen.buffer.topics["orders"].cursor, seen.buffer.topics["orders"].next_seq) == (0, 34)


def test_restored_on_several_servers_they_have_the_same_log(tmp_path: Path) -> None:
    verified = taken(make(tmp_path / "n1"), tmp_path / "backup")
    several = Configuration((Server("a", "a:1"), Server("b", "b:1"), Server("c", "c:1", NONVOTER)))
    logs = []
    for name in "abc":
        restore(verified, tmp_path / name, tmp_path / f"{name}-buffer", name, several)
        logs.append([rows(tmp_path / name, "raft", table) for table in ("log", "configurations")])
        *_, seen = inspect(tmp_path / name, tmp_path / f"{name}-buffer")
        assert isinstance(seen, Inspection) and seen.damage == 0 and seen.log is not None
        assert seen.log.hard_state.voted_for == ""
    assert logs[0] == logs[1] == logs[2]


def test_a_node_whose_log_ends_with_its_buffer_and_one_that_is_new_are_backed_up_too(tmp_path: Path) -> None:
    for name, last, applied, compacted in (("whole", 40, 40, 40), ("young", 12, 12, 0)):
        verified = taken(make(tmp_path / name, last=last, applied=applied, compacted=compacted), tmp_path / f"{name}.backup")
        assert (verified.header.applied[0], verified.entries) == (last, 0)
        assert restore(verified, tmp_path / f"{name}-new", None, "new", ALONE).last_index == last + 1


def test_a_directory_that_is_not_empty_and_one_that_is_damaged_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "n1")
    verified = taken(path, tmp_path / "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for where, buffer in ((path, None), (tmp_path / "full", None), (tmp_path / "new", tmp_path / "full")):
        with pytest.raises(StorageError, match="is not empty"):
            restore(verified, where, buffer, "new", ALONE)
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["mine"]
    assert {entry.name for entry in (tmp_path / "new").iterdir()} <= {"LOCK"}, "nothing is left of what failed"
    key, value = rows(path, "buffer", "batches")[3]
    change(path, "buffer", "batches", key, value[:-1] + b"?")
    with pytest.raises(StorageError, match="is damaged"), (tmp_path / "c").open("xb") as out:
        take(path, None, out, silent)
    held = DataDir.open(path, "n1")
    with pytest.raises(StorageError, match="in use"), (tmp_path / "d").open("xb") as out:
        take(path, None, out, silent)
    held.close()


def test_a_restore_that_was_cut_short_is_no_nodes_directory(tmp_path: Path) -> None:
    restore(taken(make(tmp_path / "n1"), tmp_path / "b"), tmp_path / "new", None, "new", ALONE)
    (tmp_path / "new" / "node.json").unlink()
    with pytest.raises(StorageError, match="holds other files"):
        DataDir.open(tmp_path / "new", "new")


# -- the file ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("content")
    taken(make(directory / "n1"), directory / "b")
    return (directory / "b").read_bytes()


def test_each_changed_byte_and_each_lost_end_is_found(content: bytes) -> None:
    verify(io.BytesIO(content))
    chance = random.Random(1)
    for at in [*range(120), *chance.sample(range(len(content)), 150), len(content) - 1]:
        changed = bytearray(content)
        changed[at] ^= 1 << chance.randrange(8)
        with pytest.raises(WireError):
            verify(io.BytesIO(bytes(changed)))
    for end in chance.sample(range(len(content)), 60):
        with pytest.raises(WireError):
            verify(io.BytesIO(content[:end]))
    with pytest.raises(WireError, match="something follows"):
        verify(io.BytesIO(content + b"x"))


def framed(*bodies: list[object]) -> io.BytesIO:
    return io.BytesIO(backup.MAGIC + b"".join(frames.encode_frame(*body) for body in bodies))


HEADER = {
    "node_id": "n1",
    "created": "2026-01-01T00:00:00+00:00",
    "version": "1",
    "online": True,
    "term": 3,
    "applied": [5, 2],
    "last": [5, 2],
    "configuration_index": 1,
    "configuration": [["n1", "n1:1", 0]],
    "cursors": {"t": 4},
}


@pytest.mark.parametrize(
    ("bodies", "says"),
    [
        ([[2, b"x"]], "does not belong there"),
        ([[1, HEADER], [3, []]], "does not belong there"),
        ([[1, HEADER], [2, b""], [7, 1]], "which this version does not know"),
        ([[1, HEADER], [2, b""], [9, 3]], "2 frames came of 3"),
        ([[1, {**HEADER, "term": "3"}]], "term='3' in its header is no int"),
        ([[1, {**HEADER, "applied": [5]}]], "applied="),
        ([[1, {**HEADER, "configuration": [["n1", 5, 0]]}]], "the configuration in its header"),
        ([[1, {**HEADER, "cursors": {"t": None}}]], "the cursors in its header"),
        ([[1]], "not in the form of a frame"),
        ([[[1], HEADER]], "not in the form of a frame"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(bodies: list[list[object]], says: str) -> None:
    with pytest.raises(WireError, match=says):
        backup.scan(framed(*bodies))


def test_keys_of_a_later_version_in_the_header_are_left_alone() -> None:
    found = backup.scan(framed([1, {**HEADER, "more": 1}], [2, b"abc"], [2, b"de"], [9, 3]))
    assert found.header.configuration == Configuration((Server("n1", "n1:1"),))
    snapshot = found.snapshot()
    assert snapshot.read(4) == b"abcd" and snapshot.read() == b"e"
    snapshot.seek(0)
    assert snapshot.read() == b"abcde"


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else(garbage: bytes) -> None:
    for stream in (io.BytesIO(garbage), io.BytesIO(backup.MAGIC + garbage)):
        with pytest.raises(WireError):
            backup.scan(stream)


def test_a_file_whose_parts_contradict_each_other_is_refused(tmp_path: Path, content: bytes) -> None:
    whole = backup.scan(io.BytesIO(content))
    snapshot = whole.snapshot().read()
    tail = list(whole.entries())
    header = whole.header

    def made(header: backup.Header, tail: list[Entry]) -> io.BytesIO:
        return io.BytesIO(b"".join(backup.frames(header, io.BytesIO(snapshot), tail)))

    verify(made(header, tail))
    odd = Entry(40, 4, 9, b"")
    old = Entry(40, 1, CONFIGURATION, b"")
    for changed, entries_, says in (
        (attrs.evolve(header, applied=(30, 3)), tail, "its snapshot ends at"),
        (attrs.evolve(header, last=(41, 4)), tail, "its entries end at"),
        (header, tail[1:], "entry 37 of term 4"),
        (header, [*tail[:-1], odd], "kind 9 cannot follow"),
        (header, [*tail[:-1], old], "of term 1 and kind 5 cannot follow"),
    ):
        with pytest.raises(WireError, match=says):
            verify(made(changed, entries_))
    shutil.rmtree(tmp_path)
