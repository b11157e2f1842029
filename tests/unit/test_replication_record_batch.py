"""The record batch and the forward: what is packed comes back, and no bytes but valid ones are taken."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.errors import InvalidRequest
from coterie.actors.messages import Publish
from coterie.actors.replication.requests import check_data, check_topic, enriched
from coterie.proto.errors import WireError
from coterie.proto.forwarding import decode_answer, decode_forward, encode_answer, encode_forward
from coterie.proto.record_batch import decode_batch, decode_entry, decode_patiently, encode_batch, encode_entry, kind_of

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
headers = st.none() | st.dictionaries(names, names, max_size=3)
rich = st.tuples(st.binary(max_size=40), st.none() | names, headers).map(list)
records = st.lists(st.binary(max_size=300) | rich, min_size=1, max_size=20)
batches = st.builds(encode_batch, names, st.integers(0, 2**63 - 1), records)


@given(st.lists(batches, min_size=1, max_size=20))
def test_an_entry_decodes_to_what_was_packed_down_to_the_bytes_of_each_batch(made):
    data = encode_entry([batch.data for batch in made])
    assert kind_of(data) == "batch"
    assert decode_entry(data) == made
    assert [decode_batch(batch.data) for batch in made] == made


@given(st.integers(-(2**70), 2**70), st.lists(st.binary(max_size=9), min_size=1, max_size=3))
def test_a_clock_that_is_wrong_makes_no_batch_that_others_refuse(time, made):
    batch = encode_batch("t", time, made)
    assert decode_batch(batch.data) == batch
    assert batch.time == sorted((0, time, 2**63 - 1))[1]


anything = st.text(max_size=300) | st.integers() | st.none() | st.binary(max_size=3)


@given(anything, st.binary(max_size=9), anything, st.none() | st.dictionaries(anything, anything, max_size=70), st.integers())
def test_what_a_publisher_is_allowed_nobody_refuses(topic, data, message_id, some, time):
    with contextlib.suppress(InvalidRequest):
        record, _ = enriched(Publish(topic, data, message_id=message_id, headers=some), check_data(data))
        batch = encode_batch(check_topic(topic), time, [record])
        assert decode_batch(batch.data) == batch


def test_the_format_is_what_the_document_says():
    plain = encode_batch("t", 7, [b"ab"])
    assert encode_entry([plain.data]) == bytes.fromhex("92 01 93 a1 74 07 91 c4 02 6162")
    whole = encode_batch("t", 7, [[b"ab", "id", {"k": "v"}]])
    assert whole.data == bytes.fromhex("93 a1 74 07 91 93 c4 02 6162 a2 6964 81 a1 6b a1 76")
    many = encode_entry([plain.data] * 15)
    assert many[:4] == bytes.fromhex("dc 0010 01") and len(decode_entry(many)) == 15


@pytest.mark.parametrize(
    "value",
    [
        [], [1], [2, ["t", 0, [b""]]], [True, ["t", 0, [b""]]], ["1", ["t", 0, [b""]]], {"a": 1}, [1, "t"], [1, ["t", 0]], [1, ["t", 0, []]],
        [1, ["", 0, [b""]]], [1, ["x" * 256, 0, [b""]]], [1, [b"t", 0, [b""]]], [1, ["t", -1, [b""]]], [1, ["t", 1.5, [b""]]], [1, ["t", True, [b""]]],
        [1, ["t", 2**63, [b""]]], [1, ["t", 0, ["text"]]], [1, ["t", 0, [None]]], [1, ["t", 0, [[b"x"]]]], [1, ["t", 0, [["x", None, None]]]],
        [1, ["t", 0, [[b"x", b"id", None]]]], [1, ["t", 0, [[b"x", "", None]]]], [1, ["t", 0, [[b"x", "i" * 256, None]]]],
        [1, ["t", 0, [[b"x", None, {"a": 1}]]]], [1, ["t", 0, [[b"x", None, [1]]]]], [1, ["t", 0, [b"x"], 0]],
    ],
)  # fmt: skip
def test_what_is_not_exactly_an_entry_is_refused(value):
    with pytest.raises(WireError):
        decode_entry(msgpack.packb(value))


@pytest.mark.parametrize("tail", [b"\x00", b"\xc1", b"\x92"])
def test_bytes_after_the_end_are_refused(tail):
    data = encode_entry([encode_batch("t", 0, [b"x"]).data])
    with pytest.raises(WireError):
        decode_entry(data + tail)
    with pytest.raises(WireError):
        decode_batch(encode_batch("t", 0, [b"x"]).data + tail)


def test_a_claimed_length_reserves_no_memory():
    for bomb in (
        b"\xdd\xff\xff\xff\xff\x01",
        b"\x92\x01\xdd\xff\xff\xff\xff",
        b"\x92\x01\x93\xa1t\x00\xdd\x7f\xff\xff\xff",
        b"\x92\x01" + b"\xdd\x00\x00\xff\xff" * 600,
    ):
        with pytest.raises(WireError):
            decode_entry(bomb)


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", "unknown"), (b'{"Op":"AddNode"}', "roster"), (b"\x00", "unknown"), (b"\xc1", "unknown"), (b"\xdd", "batch")]
)
def test_the_first_byte_tells_kinds_apart(data, kind):
    assert kind_of(data) == kind


@given(st.binary(max_size=200))
def test_random_bytes_raise_wire_errors_and_nothing_else(data):
    for decode in (decode_entry, decode_batch, decode_forward, decode_answer):
        with contextlib.suppress(WireError):
            decode(data)


@given(st.lists(batches, min_size=1, max_size=3), st.data())
def test_a_mutated_entry_is_valid_or_a_wire_error(made, data):
    entry = bytearray(encode_entry([batch.data for batch in made]))
    for _ in range(data.draw(st.integers(1, 4))):
        entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_entry(bytes(entry))
    except WireError:
        return
    assert b"".join(batch.data for batch in found) == bytes(entry[-sum(len(b.data) for b in found) :])


def verdict(decode, data):
    try:
        return decode(data)
    except WireError:
        return None


@given(batches, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.binary(max_size=3), st.integers(0, 9))
def test_an_entry_of_one_batch_has_the_same_verdict_on_the_short_way_and_on_the_long_one(batch, changes, tail, cut):
    data = bytearray(encode_entry([batch.data]))
    for at, value in changes:
        data[2 + at % (len(data) - 2)] = value
    whole = bytes(data[: len(data) - cut] + tail if cut else data + tail)
    assert verdict(decode_entry, whole) == verdict(decode_patiently, whole)
    if whole.startswith(b"\x92\x01"):
        found = verdict(decode_entry, whole)
        assert verdict(decode_batch, whole[2:]) == (found[0] if found else None)


@pytest.mark.parametrize(
    "value",
    ["t", 7, None, b"t", msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), {"a": 1}, {1: 2}, ["t", 0, [b"x"] * 65_536], ["t", 0, [b"x"] * 65_537]],
)  # fmt: skip
def test_odd_values_have_the_same_verdict_too(value):
    data = b"\x92\x01" + msgpack.packb(value)
    assert verdict(decode_entry, data) == verdict(decode_patiently, data)


@given(batches, st.booleans(), st.integers(0, 2**32 - 1), st.floats(0, 4_000_000))
def test_a_forward_comes_back(batch, early, epoch, wait):
    found = decode_forward(encode_forward(batch.data, early, epoch, wait))
    assert (found.batch, found.early, found.epoch) == (batch, early, epoch)
    assert abs(found.wait - wait) <= 0.002


@given(
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.dictionaries(st.integers(0, 65_535), st.tuples(st.integers(1, 2**63), st.integers(1, 2**63)), max_size=9),
)
def test_an_answer_comes_back(index, first_seq, duplicates):
    assert decode_answer(encode_answer(index, first_seq, duplicates)) == (index, first_seq, duplicates)


@pytest.mark.parametrize("value", [1, [1, 2], [1, 2, 3], [1, 2, [[1, 2]]], ["1", 2, []], [1, -2, []], [1, 2, [[0, "1", 1]]], [1, True, []]])
def test_an_answer_that_is_none_is_refused(value):
    with pytest.raises(WireError):
        decode_answer(msgpack.packb(value))
