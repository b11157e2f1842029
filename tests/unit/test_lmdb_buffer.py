"""What the replication buffer owes beyond the contract because it is on a disk."""

from __future__ import annotations

import struct
from pathlib import Path

import lmdb
import pytest

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.errors import StorageError
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.replication.buffer import BufferWrite, Remembered, StoredBatch
from coterie.actors.replication.lmdb_buffer import LmdbBuffer

ME = Identity("n1", "a" * 32)
MUCH = 1 << 40


def test_everything_is_there_after_reopening_and_goes_on(tmp_path: Path) -> None:
    buffer = LmdbBuffer.open(tmp_path / "buffer", ME)
    ids = [Remembered(b"id-%d" % n, "only in the window", n, n) for n in range(1, 6)]
    buffer.write(BufferWrite(batches=[StoredBatch("a", 1, 2, 3, b"x"), StoredBatch("b", 5, 1, 3, b"y")], applied=(3, 1), dedupe_add=ids))
    before = buffer.load()
    buffer.close()
    buffer = LmdbBuffer.open(tmp_path / "buffer", ME)
    assert buffer.load() == before
    buffer.write(BufferWrite(batches=[StoredBatch("a", 3, 1, 4, b"z"), StoredBatch("c", 1, 1, 4, b"w")], dedupe_limit=1))
    assert [stored.data for stored in buffer.read("a", 1, MUCH, 9)] == [b"x", b"z"]
    assert [stored.data for topic in "bc" for stored in buffer.read(topic, 5 if topic == "b" else 1, MUCH, 9)] == [b"y", b"w"]
    assert buffer.load().dedupe == (ids[-1],)
    buffer.close()


def test_a_full_map_repeats_the_whole_write_in_a_larger_one(tmp_path: Path) -> None:
    buffer = LmdbBuffer.open(tmp_path / "buffer", ME, map_bytes=1 << 17)
    for n in range(20):
        ids = [Remembered(b"%d" % n, "t", n + 1, n)]
        buffer.write(BufferWrite(batches=[StoredBatch("t", n + 1, 1, n, b"y" * 50_000)], applied=(n, 1), dedupe_add=ids, dedupe_limit=5))
    assert buffer.usage().growths >= 3
    assert len(buffer.read("t", 1, MUCH, 100)) == 20
    assert [remembered.index for remembered in buffer.load().dedupe] == [15, 16, 17, 18, 19]
    buffer.close()


@pytest.mark.parametrize("database", ["topics", "batches", "dedupe", "meta"])
def test_a_flipped_bit_is_found_in_every_table(tmp_path: Path, database: str) -> None:
    buffer = LmdbBuffer.open(tmp_path / "buffer", ME)
    buffer.write(BufferWrite(batches=[StoredBatch("t", 1, 1, 1, b"x")], applied=(1, 1), dedupe_add=[Remembered(b"i", "t", 1, 1)]))
    buffer.close()
    with lmdb.open(str(tmp_path / "buffer"), max_dbs=4, map_size=1 << 30) as environment:
        handle = environment.open_db(database.encode())
        with environment.begin(write=True, db=handle) as transaction:
            key = b"applied" if database == "meta" else next(iter(transaction.cursor()))[0]
            value = bytearray(transaction.get(key))
            value[-1] ^= 1
            transaction.put(key, bytes(value))

    def use() -> None:
        opened = LmdbBuffer.open(tmp_path / "buffer", ME)
        try:
            opened.read("t", 1, MUCH, 9)
        finally:
            opened.close()

    with pytest.raises(StorageError, match=r"buffer.*damaged.*remedy"):
        use()


def test_a_missing_batch_is_damage_and_not_an_empty_answer(tmp_path: Path) -> None:
    buffer = LmdbBuffer.open(tmp_path / "buffer", ME)
    buffer.write(BufferWrite(batches=[StoredBatch("t", 1, 1, 1, b"x"), StoredBatch("t", 2, 1, 2, b"y")]))
    buffer.close()
    with lmdb.open(str(tmp_path / "buffer"), max_dbs=4, map_size=1 << 30) as environment:
        handle = environment.open_db(b"batches")
        with environment.begin(write=True, db=handle) as transaction:
            transaction.delete(struct.pack(">IQ", 1, 2))
    buffer = LmdbBuffer.open(tmp_path / "buffer", ME)
    with pytest.raises(StorageError, match="missing"):
        buffer.read("t", 2, MUCH, 9)
    buffer.close()


def test_a_raft_log_is_not_a_buffer_and_a_strangers_files_are_not_ours(tmp_path: Path) -> None:
    LmdbLog.open(tmp_path / "raft", ME).close()
    with pytest.raises(StorageError, match="holds a coterie raft log, not a coterie replication buffer"):
        LmdbBuffer.open(tmp_path / "raft", ME)
    with lmdb.open(str(tmp_path / "strange"), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    with pytest.raises(StorageError, match="not a coterie replication buffer"):
        LmdbBuffer.open(tmp_path / "strange", ME)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(StorageError, match=r"holds other files \(letter.txt\)"):
        LmdbBuffer.open(tmp_path / "full", ME)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]
