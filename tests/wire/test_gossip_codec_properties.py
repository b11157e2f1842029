"""The gossip codec: round trips, any chunking, sizes that are kept, and bytes from anybody."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.proto.errors import WireError
from coterie.proto.gossip_codec import COMPOUND_PARTS, decode_packet, encode_compressed, encode_message, encode_packet, pack_packets
from coterie.proto.gossip_messages import Ack, Alive, Dead, Err, IndirectPing, Nack, NodeState, Ping, PushPull, Suspect, User
from coterie.proto.gossip_security import PLAIN, Security
from coterie.proto.gossip_stream import StreamDecoder, encode_stream
from tests.wire.vectors import MEMBERLIST

KEY = b"0123456789abcdef"
RINGS = [PLAIN, Security(b"blue"), Security(b"", (KEY,)), Security(b"blue", (KEY, b"x" * 32))]

uint32 = st.integers(0, 2**32 - 1)
ports = st.integers(0, 2**16 - 1)
names = st.text(max_size=30)
ips = st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None).map(str)
sources = ips | st.just("")
metas = st.binary(max_size=600)
vsns = st.binary(min_size=6, max_size=6)
packet_messages = st.one_of(
    st.builds(Ping, uint32, names, sources, ports, names),
    st.builds(IndirectPing, uint32, ips, ports, names, st.booleans(), sources, ports, names),
    st.builds(Ack, uint32, st.binary(max_size=100)),
    st.builds(Nack, uint32),
    st.builds(Suspect, uint32, names, names),
    st.builds(Alive, uint32, names, ips, ports, metas, vsns),
    st.builds(Dead, uint32, names, names),
    st.builds(User, st.binary(max_size=300)),
)
nodes = st.builds(NodeState, names, ips, ports, metas, uint32, st.integers(0, 3), vsns)
stream_messages = st.one_of(
    st.builds(PushPull, st.booleans(), st.lists(nodes, max_size=6).map(tuple), st.binary(max_size=300)),
    st.builds(Ping, uint32, names, sources, ports, names),
    st.builds(Ack, uint32, st.binary(max_size=100)),
    st.builds(User, st.binary(max_size=300)),
    st.builds(Err, names),
)
rings = st.sampled_from(RINGS)


@settings(deadline=None)
@given(st.lists(packet_messages, min_size=1, max_size=8), st.booleans(), rings, st.booleans())
def test_packets_come_back(sent, crc, security, compress):
    packet = decode_packet(encode_packet(sent, crc, security, compress), security)
    assert list(packet.messages) == sent
    assert packet.errors == ()


@settings(deadline=None)
@given(st.lists(packet_messages, max_size=60), st.integers(100, 1400), st.booleans(), rings)
def test_packed_packets_keep_order_and_limit(sent, limit, crc, security):
    packets = [(packet, decode_packet(packet, security)) for packet in pack_packets(sent, limit, crc, security)]
    assert [message for _, found in packets for message in found.messages] == sent
    assert all(len(packet) <= limit or len(found.messages) == 1 for packet, found in packets)


def test_more_than_255_messages_take_two_packets():
    sent = [Nack(number) for number in range(COMPOUND_PARTS + 1)]
    with pytest.raises(ValueError, match="256 messages"):
        encode_packet(sent)
    packets = pack_packets(sent, 65_000)
    assert [len(decode_packet(packet).messages) for packet in packets] == [255, 1]


def test_a_part_above_64_kib_is_the_callers_error():
    with pytest.raises(ValueError, match="65537 bytes"):
        encode_packet([User(bytes(65_536)), Nack(1)])


@settings(deadline=None)
@given(stream_messages, rings, st.booleans(), st.booleans(), st.integers())
def test_streams_come_back_whatever_the_chunks(sent, security, answer, compress, seed):
    data = encode_stream(sent, security, answer, compress)
    decoder, chance, found = StreamDecoder(security, answer), random.Random(seed), None
    while data:
        assert found is None
        with pytest.raises(WireError, match="cut off"):
            decoder.finish()
        size = chance.choice((0, 1, 2, 7, 64, len(data)))
        found, data = decoder.feed(data[:size]), data[size:]
    assert found == sent
    decoder.finish()
    assert decoder.feed(b"whatever comes after it") == sent


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_16_bytes_is_ipv4(number):
    text = str(ipaddress.IPv4Address(number))
    usual = encode_message(Alive(1, "a", text, 1))
    assert encode_message(Alive(1, "a", f"::ffff:{text}", 1)) == usual
    mapped = usual.replace(
        b"\xa4Addr\xa4" + number.to_bytes(4, "big"), b"\xa4Addr\xb0" + bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")
    )
    assert decode_packet(mapped).messages == (Alive(1, "a", text, 1),)


@pytest.mark.parametrize("size", [0, 1, 3, 5, 7, 12])
def test_a_version_array_of_any_other_length_is_refused_by_name(size):
    with pytest.raises(ValueError, match="exactly 6"):
        encode_message(Alive(1, "a", "10.0.0.1", 1, b"", bytes(size)))
    good = encode_message(Alive(1, "short", "10.0.0.1", 1))
    bad = good.replace(b"\xa3Vsn\xa6" + bytes((1, 5, 2, 0, 0, 0)), b"\xa3Vsn" + bytes((0xA0 + size,)) + bytes(size))
    with pytest.raises(WireError, match=f"member 'short': {size} bytes"):
        decode_packet(bad)
    packet = decode_packet(encode_packet([Nack(7), bad]))
    assert packet.messages == (Nack(7),)
    assert "short" in packet.errors[0]


def test_a_version_array_of_integers_is_taken():
    good = encode_message(Alive(1, "a", "10.0.0.1", 1))
    assert decode_packet(good.replace(b"\xa3Vsn\xa6", b"\xa3Vsn\x96")).messages == (Alive(1, "a", "10.0.0.1", 1),)


@pytest.mark.parametrize(("label", "keys"), [(b"x" * 256, ()), (b"", (b"short",)), (b"", (KEY, b"x" * 33))])
def test_a_ring_that_cannot_work_is_refused_at_once(label, keys):
    with pytest.raises(ValueError, match=r"256 bytes|keys"):
        Security(label, keys)


def test_keys_are_not_shown():
    assert "0123" not in repr(Security(b"blue", (KEY,)))


PACKETS = [vector.raw for vector in MEMBERLIST.values() if vector.transport == "udp"]
STREAMS = [vector.raw for vector in MEMBERLIST.values() if vector.transport == "tcp"]


@st.composite
def mutated(draw, originals):
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "double"]))
        if kind == "flip" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            data[at:at] = data[at : at + 40]
    return bytes(data)


def survives(call, *arguments) -> None:
    try:
        call(*arguments)
    except WireError as refusal:
        assert str(refusal)


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=300) | mutated(PACKETS), rings)
def test_nothing_but_wire_errors_from_packets_of_anybody(data, security):
    survives(decode_packet, data, security)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300) | mutated(PACKETS), rings)
def test_nothing_but_wire_errors_behind_a_good_seal(data, security):
    sealed = security.seal(data, security.label) if security.encrypts else data
    survives(decode_packet, security.header() + sealed, security)
    survives(decode_packet, encode_compressed(data))


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=300) | mutated(STREAMS), rings, st.booleans())
def test_nothing_but_wire_errors_from_streams_of_anybody(data, security, answer):
    survives(StreamDecoder(security, answer).feed, data)
