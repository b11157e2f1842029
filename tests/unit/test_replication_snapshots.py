"""A buffer becomes a snapshot, and a snapshot a buffer: of either kind, from any state, and nothing of it is believed that is not whole."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.errors import CoterieError, Overloaded, StorageError
from coterie.actors.replication.buffer import BufferWrite, Gap, Remembered, ReplicationBuffer, StoredBatch
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.snapshots import check, dump, restore
from coterie.proto.errors import WireError
from coterie.proto.record_batch import encode_batch
from coterie.proto.roster import RosterRow, encode_document
from coterie.proto.snapshot import BATCH, END, HEAD, MAGIC, TOPIC, encode_frame

ME = Identity("n1", "a" * 32)
MUCH = 1 << 40
ROSTER = encode_document([RosterRow("n1", "10.0.0.1:7946", {})])

Open = Callable[[str], ReplicationBuffer]


@pytest.fixture(params=["lmdb", "memory"])
def open_(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    def opened(name: str) -> ReplicationBuffer:
        return LmdbBuffer.open(tmp_path / name, ME) if request.param == "lmdb" else MemoryBuffer()

    return opened


def batch(topic: str, first_seq: int, count: int, index: int) -> StoredBatch:
    records = [f"{topic}{seq}".encode() for seq in range(first_seq, first_seq + count)]
    return StoredBatch(topic, first_seq, count, index, encode_batch(topic, 7, records).data)


def full(buffer: ReplicationBuffer, trim: int = 0) -> ReplicationBuffer:
    """Two topics of four batches, ids, a roster; applied up to entry 9."""
    batches = [batch(topic, 1 + 3 * n, 3, 2 + 2 * n) for n in range(4) for topic in ("a", "b/ü")]
    ids = [Remembered(b"id%d" % n, "a", n + 1, 2) for n in range(1500)]
    trims = [("a", trim)] if trim else []
    buffer.write(BufferWrite(batches, {}, {"a": 5}, (9, 3), ids, (), None, trims, ROSTER))
    return buffer


def snapshot_of(buffer: ReplicationBuffer) -> io.BytesIO:
    out = io.BytesIO()
    dump(buffer, out)
    out.seek(0)
    return out


def all_batches(buffer: ReplicationBuffer, topic: str) -> list[StoredBatch]:
    state = buffer.load().topics[topic]
    return buffer.read(topic, state.first_seq, MUCH, 1000) if state.batches else []


def test_what_was_restored_is_what_was_dumped_but_for_the_cursors(open_: Open) -> None:
    source, target = full(open_("source"), trim=7), open_("target")
    stream = snapshot_of(source)
    content = check(stream)
    assert (content.applied, content.topics, len(content.ids)) == ((9, 3), {"a": (13, 7), "b/ü": (13, 1)}, 1500)
    restore(target, stream, content, b"mark")
    before, after = source.load(), target.load()
    assert (after.applied, after.dedupe, after.roster) == (before.applied, before.dedupe, before.roster)
    assert {t: s._replace(cursor=0) for t, s in after.topics.items()} == {t: s._replace(cursor=0) for t, s in before.topics.items()}
    assert all(all_batches(source, topic) == all_batches(target, topic) for topic in ("a", "b/ü"))
    assert target.mark() == b"mark"
    assert snapshot_of(target).read() == snapshot_of(source).read()
    source.close()
    target.close()


def test_a_buffer_that_is_behind_keeps_its_cursors_and_what_it_has_and_gets_the_rest(open_: Open) -> None:
    source, target = full(open_("source")), open_("target")
    ids = [Remembered(b"old", "a", 1, 2), Remembered(b"id3", "a", 4, 4)]
    target.write(BufferWrite([batch("a", 1, 3, 2), batch("a", 4, 3, 4)], {}, {"a": 2, "b/ü": 1}, (4, 2), ids))
    stream = snapshot_of(source)
    restore(target, stream, check(stream), b"m")
    state = target.load()
    assert (state.topics["a"].cursor, state.topics["a"].first_seq, state.topics["a"].next_seq) == (2, 1, 13)
    assert all_batches(target, "a") == all_batches(source, "a")
    assert state.dedupe == source.load().dedupe
    source.close()
    target.close()


def test_what_the_snapshot_does_not_retain_any_more_is_a_gap(open_: Open) -> None:
    source, target = full(open_("source"), trim=10), open_("target")
    target.write(BufferWrite([batch("a", 1, 3, 2)], {}, {"a": 2}, (2, 1)))
    stream = snapshot_of(source)
    restore(target, stream, check(stream), b"m")
    with pytest.raises(Gap) as gap:
        target.read("a", 2, MUCH, 10)
    assert gap.value.first_retained == 10
    assert [stored.first_seq for stored in all_batches(target, "a")] == [10]
    source.close()
    target.close()


def test_a_stream_that_was_ahead_of_the_snapshot_stays_ahead(open_: Open) -> None:
    source, target = full(open_("source")), open_("target")
    target.write(BufferWrite([batch("a", 1 + 3 * n, 3, 2 + 2 * n) for n in range(6)]))
    stream = snapshot_of(source)
    restore(target, stream, check(stream), b"m")
    state = target.load()
    assert (state.applied, state.topics["a"].next_seq, state.topics["b/ü"].next_seq) == ((9, 3), 19, 13)
    source.close()
    target.close()


def test_a_restored_buffer_goes_on_and_is_opened_again(tmp_path: Path) -> None:
    source, target = full(MemoryBuffer(), trim=7), LmdbBuffer.open(tmp_path / "t", ME)
    stream = snapshot_of(source)
    restore(target, stream, check(stream), b"m")
    target.write(BufferWrite([batch("a", 13, 2, 11)], {}, {}, (11, 3), [Remembered(b"new", "a", 13, 11)], [b"id0"]))
    state = target.load()
    target.close()
    again = LmdbBuffer.open(tmp_path / "t", ME)
    assert again.load() == state
    assert again.mark() == b"m"
    again.close()


def test_the_dump_is_one_state_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    buffer = LmdbBuffer.open(tmp_path / "b", ME)
    full(buffer)
    with buffer.frozen() as (state, batches, _):
        first = next(batches)
        buffer.write(BufferWrite([batch("a", 13, 3, 11)], {}, {}, (11, 3), (), (), None, [("a", 13)]))
        rest = list(batches)
    assert state.applied == (9, 3)
    assert len([first, *rest]) == 8
    buffer.close()


def test_a_dump_gives_way_to_a_buffer_that_grows_or_is_closed(tmp_path: Path) -> None:
    """Both wait for readers, and a dump may read for minutes."""
    buffer = LmdbBuffer.open(tmp_path / "b", ME, 1 << 20)
    full(buffer)
    reading, given_way = threading.Event(), []

    def read(until: threading.Event) -> None:
        with buffer.frozen() as (_, batches, _blocks):
            reading.set()
            until.wait(10)
            try:
                for _ in batches:
                    pass
            except CoterieError as error:
                given_way.append(error)

    grown = threading.Event()
    one = threading.Thread(target=read, args=(grown,))
    one.start()
    assert reading.wait(10)
    growth = threading.Timer(0.2, grown.set)  # by then the writer waits
    growth.start()
    records = [b"x" * 1000] * 100
    for n in range(30):
        buffer.write(BufferWrite([StoredBatch("big", 1 + 100 * n, 100, 20 + n, encode_batch("big", 7, records).data)]))
    one.join(10)
    assert isinstance(given_way.pop(), Overloaded)
    assert buffer.usage().growths > 0

    reading.clear()
    closed = threading.Event()
    two = threading.Thread(target=read, args=(closed,))
    two.start()
    assert reading.wait(10)
    threading.Timer(0.2, closed.set).start()
    buffer.close()
    two.join(10)
    assert isinstance(given_way.pop(), StorageError)


def test_a_dump_that_the_disk_has_no_room_for_is_not_begun() -> None:
    buffer, out = full(MemoryBuffer()), io.BytesIO()
    with pytest.raises(OSError, match="are free for it"):
        dump(buffer, out, 10)
    assert len(out.getvalue()) == len(MAGIC)


def good() -> bytes:
    return snapshot_of(full(MemoryBuffer())).read()


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_one_flipped_bit_or_a_cut_anywhere_is_found(data: st.DataObject) -> None:
    whole = bytearray(good())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    with pytest.raises(WireError):
        check(io.BytesIO(bytes(whole)))


def frames(*parts: bytes) -> io.BytesIO:
    return io.BytesIO(MAGIC + b"".join(parts))


def test_what_contradicts_itself_is_refused() -> None:
    one = encode_batch("a", 7, [b"x", b"y"]).data
    head, topic = encode_frame(HEAD, 9, 3), encode_frame(TOPIC, "a", 3, 1)
    assert check(frames(head, topic, encode_frame(BATCH, "a", 1, 2, 5, one), encode_frame(END, 3))).topics == {"a": (3, 1)}
    for parts in (
        [topic, encode_frame(END, 1)],  # no head
        [head, head, encode_frame(END, 2)],
        [head, encode_frame([1], 2), encode_frame(END, 2)],  # a kind that is no number
        [head, topic, encode_frame(END, 2)],  # the batches are missing
        [head, topic, topic, encode_frame(BATCH, "a", 1, 2, 5, one), encode_frame(END, 4)],
        [head, encode_frame(BATCH, "a", 1, 2, 5, one), encode_frame(END, 2)],  # of no topic
        [head, topic, encode_frame(BATCH, "a", 2, 2, 5, one), encode_frame(END, 3)],  # a hole
        [head, topic, encode_frame(BATCH, "a", 1, 2, 10, one), encode_frame(END, 3)],  # from beyond its end
        [head, topic, encode_frame(BATCH, "a", 1, 1, 5, one), encode_frame(END, 3)],  # not what it says
        [head, encode_frame(TOPIC, "a", 1, 3), encode_frame(END, 2)],
        [head, encode_frame(END, 7)],
        [head, encode_frame(END, 1), b"x"],
        [head, encode_frame(99, 1), encode_frame(END, 2)],
        [head, encode_frame(HEAD), encode_frame(END, 2)],
    ):
        with pytest.raises(WireError):
            check(frames(*parts))
    with pytest.raises(WireError, match="no snapshot of coterie"):
        check(io.BytesIO(b'{"version":1,"members":[]}'))
