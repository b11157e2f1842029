"""Bombs: bytes that promise or hide far more than they are. Each must be refused (or read) within bounds of memory and time."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from coterie.proto.errors import WireError
from coterie.proto.gomsgpack import pack
from coterie.proto.gossip_codec import PACKET_COMPRESSED, decode_packet, encode_compressed, encode_packet
from coterie.proto.gossip_messages import User
from coterie.proto.gossip_stream import StreamDecoder, encode_stream
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_entries import MAX_ENTRIES
from coterie.proto.raft_messages import AppendRequest
from coterie.proto.raft_stream import RequestDecoder, ResponseDecoder

MIB = 1 << 20


class Cost:
    """Peak memory (tracemalloc sees Python's objects and msgpack's lists) and time of a block."""

    def __enter__(self):
        tracemalloc.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._started
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def raft_refuses(data: bytes) -> None:
    with pytest.raises(WireError):
        RequestDecoder(max_message=MIB).feed(data)


def in_append(key: bytes, value: bytes) -> bytes:
    return b"\x00\x81" + pack(key) + value


BOMBS = {
    "an array of four billion entries": in_append(b"Entries", b"\xdd\xff\xff\xff\xff") + bytes(2 * MIB),
    "an array in an array in an array": in_append(b"Entries", b"\x91" * 5000 + b"\xc0"),
    "a million empty maps for entries": in_append(b"Entries", b"\xdd" + (MAX_ENTRIES + 1).to_bytes(4, "big") + b"\x80" * (MAX_ENTRIES + 1)),
    "a string of four billion bytes": in_append(b"Addr", b"\xdb\xff\xff\xff\xff") + bytes(2 * MIB),
    "a map of four billion keys": b"\x00\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * MIB,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_raft_bomb_costs_no_more_than_its_message(name):
    with Cost() as cost:
        raft_refuses(BOMBS[name])
    assert cost.peak < 16 * MIB
    assert cost.seconds < 5


@pytest.mark.parametrize("key", [b"Entries", b"Unknown", b"Addr"])
def test_empty_lists_inside_a_message_do_not_grow_into_objects(key):
    """One byte of input is an empty list of 56 bytes, if somebody builds it."""
    inner = b"\xdd" + (MIB // 2).to_bytes(4, "big") + b"\x90" * (MIB // 2)
    entry = b"\x91\x81\xa1Z" + inner if key == b"Entries" else inner
    with Cost() as cost:
        try:
            RequestDecoder(max_message=MIB).feed(in_append(key, entry))
        except WireError:
            assert key == b"Addr"
    assert cost.peak < 8 * MIB


def test_a_message_of_exactly_the_limit_is_read():
    body = pack({"Entries": [{"Data": bytes(MIB - 40), "Index": 1}], "Term": 1})
    (request,) = RequestDecoder(max_message=len(body)).feed(b"\x00" + body)
    assert isinstance(request, AppendRequest)
    with pytest.raises(WireError, match="above"):
        RequestDecoder(max_message=len(body) - 1).feed(b"\x00" + body)


def test_a_message_fed_byte_by_byte_takes_linear_time():
    message = b"\x00" + pack({"Entries": [{"Data": bytes(100), "Index": i} for i in range(600)]})
    decoder = RequestDecoder()
    started = time.perf_counter()
    found = [item for byte in message for item in decoder.feed(bytes((byte,)))]
    assert len(found) == 1
    assert time.perf_counter() - started < 10  # a decoder that starts again at each byte takes minutes


def test_an_endless_answer_is_refused():
    decoder = ResponseDecoder(max_message=MIB)
    decoder.expect(AppendRequest)
    with Cost() as cost, pytest.raises(WireError, match="more than"):
        for _ in range(100):
            decoder.feed(b"\xdb\xff\xff\xff\xff" + bytes(64 << 10))
    assert cost.peak < 16 * MIB


def test_a_configuration_that_promises_too_much_is_refused():
    with Cost() as cost, pytest.raises(WireError, match="cut off"):
        decode_configuration(b"\x81\xa7Servers\xdd\x7f\xff\xff\xff")
    assert cost.peak < MIB


def test_a_packet_may_expand_to_4_mib_and_no_further_than_its_allowance():
    for size, passes in ((4 * MIB, True), (9 * MIB, False)):
        packet = encode_compressed(b"\x08" + bytes(size))
        assert len(packet) < 65_000
        with Cost() as cost:
            if passes:
                assert decode_packet(packet).messages == (User(bytes(size)),)
            else:
                with pytest.raises(WireError, match="expands to more than"):
                    decode_packet(packet)
        assert cost.peak < 48 * MIB
        assert cost.seconds < 10


def test_compression_in_compression_has_one_allowance():
    inner = encode_compressed(b"\x08" + bytes(3 * MIB))
    packet = decode_packet(encode_packet([User(b"first"), *[inner] * 4]))
    assert packet.messages[0] == User(b"first")
    assert len(packet.messages) == 3
    assert len(packet.errors) == 2


def test_much_compressed_input_inside_a_packet_is_refused():
    slow = b"\x09" + pack({"Algo": 0, "Buf": bytes(PACKET_COMPRESSED + 1)})
    with pytest.raises(WireError, match="compressed bytes in one packet"):
        decode_packet(encode_compressed(slow))


def test_layers_without_end_are_refused():
    packet = b"\x08x"
    for _ in range(200):
        packet = b"\x07\x01" + len(packet).to_bytes(2, "big") + packet
    with pytest.raises(WireError, match="layers"):
        decode_packet(packet)


def test_messages_without_end_are_refused():
    parts = encode_packet([b"\x08"] * 255)
    many = encode_packet([parts] * 80)
    packet = decode_packet(encode_compressed(many))
    assert len(packet.messages) <= 16_384
    assert any("more than 16384 messages" in error for error in packet.errors)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x06\x82\xa5Nodes\xce\x00\x10\x00\x01\xacUserStateLen\x00", "Nodes"),
        (b"\x06\x82\xa5Nodes\xff\xacUserStateLen\x00", "Nodes"),
        (b"\x06\x82\xa5Nodes\x00\xacUserStateLen\xce\x01\x40\x00\x01", "UserStateLen"),
        (b"\x08\x81\xaaUserMsgLen\xce\x01\x40\x00\x01", "UserMsgLen"),
        (b"\x09\x82\xa4Algo\x00\xa3Buf\xdb\xff\xff\xff\xff" + bytes(21 * MIB), "more than"),
    ],
)
def test_a_stream_that_promises_too_much_is_refused_at_the_promise(data, says):
    with Cost() as cost, pytest.raises(WireError, match=says):
        StreamDecoder().feed(data)
    assert cost.peak < (100 * MIB if len(data) > MIB else MIB // 4)


def test_a_user_message_of_20_mib_passes():
    message = User(bytes(20 * MIB))
    decoder = StreamDecoder()
    data = encode_stream(message)
    assert [decoder.feed(data[start : start + MIB]) for start in range(0, len(data), MIB)][-1] == message


def test_a_stream_expands_no_further_than_its_limit(monkeypatch):
    monkeypatch.setattr("coterie.proto.gossip_stream.MAX_EXPANDED", MIB)
    for size, passes in ((MIB - 100, True), (MIB, False)):
        data = encode_stream(User(bytes(size)), compress=True)
        if passes:
            assert StreamDecoder().feed(data) == User(bytes(size))
        else:
            with pytest.raises(WireError, match="expands to more than"):
                StreamDecoder().feed(data)
