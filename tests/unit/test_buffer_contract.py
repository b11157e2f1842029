"""One contract for every replication buffer: what `LmdbBuffer` and `MemoryBuffer` both owe to the state machine and to delivery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.replication.buffer import BufferWrite, Gap, Remembered, ReplicationBuffer, StoredBatch, TopicState
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.replication.memory_buffer import MemoryBuffer

ME = Identity("n1", "a" * 32)
MUCH = 1 << 40


def batch(first_seq: int, count: int = 3, topic: str = "t", data: bytes = b"0123456789", index: int = 0) -> StoredBatch:
    return StoredBatch(topic, first_seq, count, index or first_seq, data)


def filled(count: int = 4) -> BufferWrite:
    """Batches at 1, 4, 7, 10 of three records each."""
    return BufferWrite(batches=[batch(1 + 3 * n) for n in range(count)])


@pytest.fixture(params=["lmdb", "memory"])
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReplicationBuffer]:
    opened: ReplicationBuffer = LmdbBuffer.open(tmp_path / "buffer", ME) if request.param == "lmdb" else MemoryBuffer()
    yield opened
    opened.close()


def starts(batches: list[StoredBatch]) -> list[int]:
    return [stored.first_seq for stored in batches]


def test_an_empty_buffer_knows_nothing(buffer: ReplicationBuffer) -> None:
    state = buffer.load()
    assert (dict(state.topics), state.applied, state.dedupe) == ({}, (0, 0), ())
    assert buffer.applied == (0, 0)
    assert buffer.read("t", 1, MUCH, 10) == []


def test_a_batch_comes_back_as_it_came(buffer: ReplicationBuffer) -> None:
    given = batch(1, 2, data=bytes(range(256)) * 40, index=77)
    buffer.write(BufferWrite(batches=[given, batch(3, 1, data=b"")]))
    assert buffer.read("t", 1, MUCH, 10) == [given, batch(3, 1, data=b"")]
    assert buffer.load().topics["t"] == TopicState(next_seq=4, first_seq=1, cursor=0, batches=2, size=256 * 40)


@pytest.mark.parametrize(("seq", "first"), [(1, 1), (3, 1), (4, 4), (5, 4), (12, 10)])
def test_reading_begins_with_the_batch_that_contains_the_seq(buffer: ReplicationBuffer, seq: int, first: int) -> None:
    buffer.write(filled())
    assert starts(buffer.read("t", seq, MUCH, 100)) == list(range(first, 11, 3))


def test_reading_is_bounded_in_bytes_and_batches_but_there_is_always_one(buffer: ReplicationBuffer) -> None:
    buffer.write(filled())
    assert starts(buffer.read("t", 1, 20, 100)) == [1, 4]
    assert starts(buffer.read("t", 1, 21, 100)) == [1, 4, 7]
    assert starts(buffer.read("t", 1, 0, 100)) == [1]
    assert starts(buffer.read("t", 1, MUCH, 2)) == [1, 4]
    assert buffer.read("t", 13, MUCH, 100) == []


def test_topics_are_told_apart_by_their_exact_names(buffer: ReplicationBuffer) -> None:
    names = ["a/b", "a_b", "a", "A", "سفارش", "سفارش‌ها", "x" * 255, "\0"]
    buffer.write(BufferWrite(batches=[batch(1, 1, name, name.encode()) for name in names]))
    assert set(buffer.load().topics) == set(names)
    for name in names:
        assert [stored.data for stored in buffer.read(name, 1, MUCH, 10)] == [name.encode()]


@pytest.mark.parametrize("topic", ["", "x" * 256, "ä" * 128])
def test_a_name_the_format_cannot_hold_is_refused(buffer: ReplicationBuffer, topic: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        buffer.write(BufferWrite(batches=[batch(1, 1, topic)]))
    assert buffer.load().topics == {}


def test_trimming_drops_whole_batches_below_and_reading_there_is_a_gap(buffer: ReplicationBuffer) -> None:
    buffer.write(filled())
    buffer.write(BufferWrite(trim=[("t", 9)]))
    assert buffer.load().topics["t"] == TopicState(next_seq=13, first_seq=7, cursor=0, batches=2, size=20)
    with pytest.raises(Gap) as gap:
        buffer.read("t", 6, MUCH, 10)
    assert gap.value.first_retained == 7
    assert starts(buffer.read("t", 7, MUCH, 10)) == [7, 10]


def test_trimming_everything_leaves_the_sequence_and_a_write_may_trim_what_it_adds(buffer: ReplicationBuffer) -> None:
    buffer.write(filled(2))
    buffer.write(BufferWrite(batches=[batch(7), batch(10)], trim=[("t", 5), ("t", 10), ("t", 8)]))
    assert buffer.load().topics["t"] == TopicState(next_seq=13, first_seq=10, batches=1, size=10)
    buffer.write(BufferWrite(trim=[("t", 99), ("unheard of", 5)]))
    assert buffer.load().topics["t"] == TopicState(next_seq=13, first_seq=13)
    buffer.write(BufferWrite(batches=[batch(13)]))
    assert starts(buffer.read("t", 13, MUCH, 10)) == [13]


def test_cursors_move_alone_and_may_be_ahead_of_what_is_stored(buffer: ReplicationBuffer) -> None:
    buffer.write(BufferWrite(cursors={"t": 9}))
    assert buffer.load().topics["t"] == TopicState(cursor=9)
    buffer.write(BufferWrite(batches=[batch(1, 2)], cursors={"t": 3}))
    assert buffer.load().topics["t"] == TopicState(next_seq=3, first_seq=1, cursor=3, batches=1, size=10)


def test_next_seq_may_be_repeated_or_jump_forward_over_what_is_then_dropped(buffer: ReplicationBuffer) -> None:
    buffer.write(BufferWrite(batches=[batch(1), batch(4)], topics={"t": 7, "u": 5}, cursors={"t": 2}))
    assert buffer.load().topics["u"] == TopicState(next_seq=5, first_seq=5)
    buffer.write(BufferWrite(topics={"t": 100}))
    assert buffer.load().topics["t"] == TopicState(next_seq=100, first_seq=100, cursor=2)
    with pytest.raises(Gap):
        buffer.read("t", 4, MUCH, 10)
    buffer.write(BufferWrite(batches=[batch(100)]))
    assert starts(buffer.read("t", 100, MUCH, 10)) == [100]


ADD = Remembered(b"id-1", "t", 1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        BufferWrite(batches=[batch(8)]),
        BufferWrite(batches=[batch(6)]),
        BufferWrite(batches=[batch(7, 0)]),
        BufferWrite(topics={"t": 6}),
        BufferWrite(batches=[batch(7)], topics={"t": 11}),
        BufferWrite(cursors={"t": 0}),
        BufferWrite(applied=(4, 2)),
        BufferWrite(applied=(6, 1)),
        BufferWrite(dedupe_add=[ADD]),
        BufferWrite(dedupe_add=[ADD._replace(message_id=b"")]),
        BufferWrite(dedupe_add=[ADD._replace(message_id=b"2"), ADD._replace(message_id=b"2")]),
        BufferWrite(dedupe_drop=[b"unknown"]),
        BufferWrite(dedupe_drop=[b"id-1", b"id-1"]),
    ],
    ids=repr,
)
def test_a_contradiction_is_refused_as_a_whole(buffer: ReplicationBuffer, wrong: BufferWrite) -> None:
    buffer.write(BufferWrite(batches=[batch(1), batch(4)], applied=(5, 2), dedupe_add=[ADD]))
    before = buffer.load()
    with pytest.raises(ValueError, match=r"topic|seq|applied|dedupe|message_id|cursor|declared|batch"):
        buffer.write(wrong)
    with pytest.raises(ValueError, match=r"topic|seq|applied|dedupe|message_id|cursor|declared|batch"):
        buffer.write(BufferWrite(batches=[batch(7), batch(99)], cursors={"t": 3}, dedupe_add=[ADD._replace(message_id=b"new")]))
    assert buffer.load() == before
    buffer.write(BufferWrite(batches=[batch(7)]))
    assert starts(buffer.read("t", 1, MUCH, 10)) == [1, 4, 7]


def remembered(number: int) -> Remembered:
    return Remembered(b"id-%d" % number, f"topic {number % 2}", number, number * 10)


def test_the_window_is_in_order_and_the_oldest_leave(buffer: ReplicationBuffer) -> None:
    buffer.write(BufferWrite(dedupe_add=[remembered(n) for n in (1, 2, 3)]))
    buffer.write(BufferWrite(dedupe_add=[remembered(4)], dedupe_drop=[b"id-2"]))
    assert buffer.load().dedupe == tuple(remembered(n) for n in (1, 3, 4))
    buffer.write(BufferWrite(dedupe_add=[remembered(5), remembered(6)], dedupe_limit=3))
    assert buffer.load().dedupe == tuple(remembered(n) for n in (4, 5, 6))
    buffer.write(BufferWrite(dedupe_add=[remembered(n) for n in (7, 8, 9, 10)], dedupe_drop=[b"id-5"], dedupe_limit=2))
    assert buffer.load().dedupe == tuple(remembered(n) for n in (9, 10))
    buffer.write(BufferWrite(dedupe_drop=[b"id-9"], dedupe_add=[remembered(9)]))
    assert buffer.load().dedupe == (remembered(10), remembered(9))
    buffer.write(BufferWrite(dedupe_limit=0))
    assert buffer.load().dedupe == ()


def test_all_of_a_write_is_seen_together(buffer: ReplicationBuffer) -> None:
    buffer.write(BufferWrite(batches=[batch(1, 2)], cursors={"t": 2}, applied=(9, 4), dedupe_add=[ADD], topics={"t": 3}))
    state = buffer.load()
    assert state.topics == {"t": TopicState(next_seq=3, first_seq=1, cursor=2, batches=1, size=10)}
    assert (state.applied, state.dedupe) == ((9, 4), (ADD,))
    assert buffer.applied == (9, 4)
