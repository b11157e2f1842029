"""The gossip transport on loopback: packets, push/pull, stream pings, and every kind of bad input on both."""

from __future__ import annotations

import os
import random
import socket
import threading
import time

import pytest

from coterie.proto.gossip_codec import encode_packet
from coterie.proto.gossip_messages import ALIVE, Ack, Alive, Err, NodeState, Ping, PushPull, User
from coterie.proto.gossip_security import Security
from coterie.proto.gossip_stream import StreamDecoder, encode_stream
from coterie.transport.errors import AddressError, BindError, DialError, StreamError
from coterie.transport.gossip import GossipTransport
from tests.wire.transport_support import Recorder, connected, eventually, read_to_end, silent_listener

KEYED = Security(b"blue", (bytes(16),))
OTHER_KEY = Security(b"blue", (bytes(range(16)),))
OTHER_LABEL = Security(b"green", (bytes(16),))
UNLABELLED = Security(b"", (bytes(16),))
LABEL_ALONE = Security(b"blue")


def state(name, join=True, nodes=1, user_state=b""):
    return PushPull(join, tuple(NodeState(f"{name}-{n}", "127.0.0.1", 7946, b"meta", 1, ALIVE) for n in range(nodes)), user_state)


class Node:
    """A GossipTransport with recorders in place of a member; it answers pings to itself and pushes."""

    def __init__(self, name, security=None, bind="127.0.0.1:0", advertise="", **options):
        self.name = name
        self.packets, self.streams, self.merges = Recorder(), Recorder(), Recorder()
        self.state = state(name)
        self.transport = GossipTransport(bind, advertise, security, self.packets, self.answer, self.merges, name=name, **options)
        self.address = ("127.0.0.1", self.transport.port)

    def answer(self, message, source):
        self.streams(message, source)
        if isinstance(message, Ping):
            return Ack(message.seq_no) if message.node in ("", self.name) else None
        return self.state._replace(join=message.join) if isinstance(message, PushPull) else None

    def counters(self):
        return self.transport.counters()


@pytest.fixture
def node():
    nodes = []

    def start(name="a", *args, **options):
        nodes.append(Node(name, *args, **options))
        return nodes[-1]

    yield start
    for each in nodes:
        each.transport.close()
    names = {each.name for each in nodes}
    assert not [thread for thread in threading.enumerate() if thread.name.split("/")[0] in names]


# Packets


@pytest.mark.parametrize("security", [None, KEYED], ids=["plain", "keyed"])
@pytest.mark.parametrize("crc", [False, True])
def test_a_packet_arrives_with_its_source(node, security, crc):
    a, b = node("a", security), node("b", security)
    messages = (Ping(7, "b"), Alive(1, "a", "127.0.0.1", 7946))
    assert a.transport.send(*b.address, messages, crc)
    assert b.packets.wait(1) == [(messages, (), a.address)]
    assert b.counters()["packets received"] == a.counters()["packets sent"] == 1


def test_a_datagram_of_60000_bytes_arrives(node):
    a, b = node("a"), node("b")
    message = User(os.urandom(60_000))
    assert a.transport.send(*b.address, [message])
    assert b.packets.wait(1)[0][0] == (message,)


def test_what_the_socket_refuses_is_told_at_once_and_counted(node):
    a = node("a")
    assert not a.transport.send("127.0.0.1", 9, [User(bytes(70_000))])
    assert not a.transport.send("", 9, [Ping(1)])
    assert not a.transport.send("::1", 9, [Ping(1)])
    assert not a.transport.send("127.0.0.1", 70_000, [Ping(1)])
    refused = {name: number for name, number in a.counters().items() if name.startswith("packets not sent")}
    assert refused["packets not sent: EMSGSIZE"] == 1
    assert sum(refused.values()) == 4


def test_sending_after_close_is_refused(node):
    a = node("a")
    a.transport.close()
    assert not a.transport.send("127.0.0.1", 9, [Ping(1)])


def test_garbage_packets_are_dropped_counted_and_survived(node):
    b = node("b")
    rng = random.Random(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        garbage = [b"", b"\x0a", b"\xff" * 40, b"\x07\xff", b"\x0c1234", b"\x09\x82\xa4Algo\x00\xa3Buf\xa1\x00", b"\xf4\x04blue\x08x"]
        garbage += [bytes((kind,)) + rng.randbytes(30) for kind in (0, 1, 3, 4, 5, 6, 9, 10, 12, 13, 99)]
        for data in garbage:
            sock.sendto(data, b.address)
        sock.sendto(encode_packet([Ping(1)], False, None), b.address)
        last = b.packets.wait(1)[-1]
        assert last[0] == (Ping(1),)
    assert b.counters()["packets received"] == len(garbage) + 1
    counters = b.counters()
    refused = sum(
        count
        for reason, count in counters.items()
        if reason.startswith(("packets dropped", "packets of strangers", "packet parts dropped"))
    )
    assert refused >= len(garbage) - 1


@pytest.mark.parametrize(
    ("sender", "reason"),
    [
        (None, "no label"),
        (UNLABELLED, "no label"),
        (OTHER_KEY, "wrong key"),
        (OTHER_LABEL, "wrong label"),
        (LABEL_ALONE, "no key|wrong key"),
    ],
    ids=["plain", "key without label", "other key", "other label", "label without key"],
)
def test_a_packet_of_a_stranger_is_dropped_counted_by_reason_and_named(node, sender, reason, caplog):
    a, b, friend = node("a", sender), node("b", KEYED), node("friend", KEYED)
    assert a.transport.send(*b.address, [Ping(1)])
    eventually(lambda: sum(b.counters().get(f"packets of strangers: {one}", 0) for one in reason.split("|")) == 1, "it is counted")
    assert f"from 127.0.0.1:{a.transport.port}" in caplog.text
    assert friend.transport.send(*b.address, [Ping(2)])
    assert b.packets.wait(1)[0][0] == (Ping(2),)


def test_a_failing_callback_does_not_end_the_reception(node, caplog):
    b = node("b")
    fail = [True]
    recorder = b.packets

    def flaky(*what):
        if fail:
            fail.clear()
            raise RuntimeError("the actor is gone")
        recorder(*what)

    b.transport._on_packet = flaky
    a = node("a")
    a.transport.send(*b.address, [Ping(1)])
    eventually(lambda: b.counters().get("callbacks failed") == 1, "the failure is counted")
    a.transport.send(*b.address, [Ping(2)])
    assert b.packets.wait(1)[0][0] == (Ping(2),)


# Streams


@pytest.mark.parametrize("security", [None, KEYED], ids=["plain", "keyed"])
def test_push_pull_exchanges_states_and_the_answer_leaves_before_the_merge(node, security):
    a, b = node("a", security), node("b", security)
    b.state = state("b", nodes=1000, user_state=b"u" * 100_000)
    held = threading.Event()
    merges = b.merges
    b.transport._on_push_pull = lambda message, source: (held.wait(10), merges(message, source))
    mine = state("a", join=True, nodes=500)
    assert a.transport.push_pull(*b.address, mine, 5.0) == b.state._replace(join=True)
    assert merges.seen == []
    held.set()
    (merged, source), *_ = merges.wait(1)
    assert merged == mine
    assert source[0] == "127.0.0.1"


def test_a_stream_ping_is_acknowledged_by_the_right_node_only(node):
    a, b = node("a"), node("b")
    assert a.transport.stream_ping(*b.address, Ping(9, "b"), 5.0)
    assert not a.transport.stream_ping(*b.address, Ping(9, "somebody else"), 5.0)
    assert a.counters()["stream pings failed"] == 1


def test_a_stream_ping_to_nobody_or_to_a_silent_node_fails_in_time(node):
    a = node("a")
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        assert not a.transport.stream_ping("127.0.0.1", unbound.getsockname()[1], Ping(9), 0.2)
    with silent_listener() as (port, _):
        started = time.monotonic()
        assert not a.transport.stream_ping("127.0.0.1", port, Ping(9), 0.2)
        assert 0.2 <= time.monotonic() - started < 2


def test_push_pull_errors_are_typed_and_say_what_happened(node):
    a, b = node("a"), node("b", KEYED)
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        with pytest.raises(DialError, match="cannot be reached"):
            a.transport.push_pull("127.0.0.1", unbound.getsockname()[1], a.state, 1.0)
    with silent_listener() as (port, _), pytest.raises(StreamError, match=r"did not answer within 0\.1 s"):
        a.transport.push_pull("127.0.0.1", port, a.state, 0.1)
    with pytest.raises(StreamError):
        a.transport.push_pull(*b.address, a.state, 5.0)
    assert b.merges.seen == []


def test_a_user_message_on_a_stream_is_given_on_without_an_answer(node):
    b = node("b")
    with connected(b.transport.port) as sock:
        sock.sendall(encode_stream(User(b"hello")))
        assert read_to_end(sock) == b""
    assert b.streams.wait(1)[0][0] == User(b"hello")


def test_a_stream_may_come_byte_by_byte(node):
    b = node("b")
    with connected(b.transport.port) as sock:
        for byte in encode_stream(state("x")):
            sock.send(bytes((byte,)))
        answer = StreamDecoder(answer=True).feed(read_to_end(sock))
    assert answer == b.state
    assert b.merges.wait(1)[0][0] == state("x")


def read_answer(sock, security=None):
    return StreamDecoder(security, answer=True).feed(read_to_end(sock))


def test_a_plain_stream_to_a_keyed_node_is_answered_with_a_sealed_error(node):
    b = node("b", Security(b"", (bytes(16),)))
    with connected(b.transport.port) as sock:
        sock.sendall(encode_stream(state("x")))
        answer = read_answer(sock, Security(b"", (bytes(16),)))
    assert isinstance(answer, Err)
    assert answer.error
    assert b.counters()["streams of strangers: no key"] == 1


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x00\x00\x00\x30" + bytes(0x30), b"\x09\x82\xa4Algo\x05\xa3Buf\xa1\x00"],
    ids=["sealed, but this node has no key", "an unknown compression"],
)
def test_what_go_answers_with_an_error_is_answered_so(node, data):
    b = node("b")
    with connected(b.transport.port) as sock:
        sock.sendall(data)
        assert isinstance(read_answer(sock), Err)


def test_a_sealed_stream_that_announces_too_much_is_answered_with_an_error(node):
    b = node("b", Security(b"", (bytes(16),)))
    with connected(b.transport.port) as sock:
        sock.sendall(b"\x0a\x7f\xff\xff\xff" + bytes(100_000))
        assert isinstance(read_answer(sock, Security(b"", (bytes(16),))), Err)


@pytest.mark.parametrize(
    "data",
    [
        b"\x63",
        b"\x04\x80",
        b"\x0c1234",
        b"\x06\x83\xa4Join\xc3\xa5Nodes\xff\xacUserStateLen\x00",
        b"\x06\x83\xa4Join\xc3\xa5Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\x00",
        encode_stream(state("x"))[:-3],
        b"\xf4\x04blue" + encode_stream(state("x")),
    ],
    ids=["unknown type", "alive", "crc", "-1 nodes", "too many nodes", "cut off", "a label"],
)
def test_other_garbage_is_closed_without_an_answer_and_counted(node, data):
    b = node("b")
    with connected(b.transport.port) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b""
    reason = "streams of strangers: wrong label" if data[0] == 0xF4 else "streams dropped"
    eventually(lambda: b.counters().get(reason) == 1, "it is counted")
    assert b.streams.seen == []


def test_random_streams_are_survived(node):
    b = node("b")
    rng = random.Random(11)
    for _ in range(100):
        with connected(b.transport.port) as sock:
            sock.sendall(bytes((rng.choice((0, 6, 8, 9, 10, 244, rng.randrange(256))),)) + rng.randbytes(rng.randrange(200)))
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
    a = node("a")
    assert a.transport.stream_ping(*b.address, Ping(1), 5.0)
    assert b.counters()["streams now"] <= 1


def test_a_stream_that_says_nothing_ends_at_its_deadline(node):
    b = node("b", stream_timeout=0.1)
    with connected(b.transport.port) as sock:
        started = time.monotonic()
        assert read_to_end(sock) == b""
        assert time.monotonic() - started < 2
    eventually(lambda: b.counters().get("streams overdue") == 1, "it is counted")


def test_a_stream_that_drips_ends_at_its_deadline_too(node):
    b = node("b", stream_timeout=0.2)
    with connected(b.transport.port) as sock:
        started = time.monotonic()
        data = encode_stream(state("x", nodes=100))
        with pytest.raises(OSError):
            for byte in data:
                sock.send(bytes((byte,)))
                time.sleep(0.005)
        assert time.monotonic() - started < 3
    eventually(lambda: b.counters().get("streams overdue") == 1, "it is counted")


def test_at_most_128_streams_at_once(node):
    b = node("b")
    b.transport._crowd._grace = 3600.0  # none of them has to go for the next, however long it takes to open them
    idle = [socket.create_connection(b.address) for _ in range(128)]
    try:
        eventually(lambda: b.counters()["streams now"] == 128, "all are open")
        with connected(b.transport.port) as one_more:
            assert read_to_end(one_more) == b""
        assert b.counters()["streams refused"] == 1
        idle[0].sendall(encode_stream(Ping(1)))
        assert read_answer(idle[0]) == Ack(1)
    finally:
        for sock in idle:
            sock.close()
    eventually(lambda: b.counters()["streams now"] == 0, "they are forgotten when they end")
    a = node("a")
    assert a.transport.stream_ping(*b.address, Ping(1), 5.0)


def test_closing_ends_open_streams(node):
    b = node("b")
    with connected(b.transport.port) as sock:
        eventually(lambda: b.counters()["streams now"] == 1, "it is open")
        started = time.monotonic()
        b.transport.close()
        assert time.monotonic() - started < 2
        assert read_to_end(sock) == b""


# Binding


def test_both_sockets_share_one_port(node):
    a = node("a", bind=":0")
    assert a.transport._udp.getsockname()[1] == a.transport.port
    assert socket.inet_aton(a.transport.ip)
    assert a.transport.advertised_port == a.transport.port
    assert node("b").transport.send(a.transport.ip, a.transport.port, [Ping(1)])
    a.packets.wait(1)


def test_a_port_free_for_tcp_alone_is_refused_and_leaves_nothing_open():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"mem_bind '127.0.0.1:{port}'.*choose another port"):
            Node("a", bind=f"127.0.0.1:{port}")
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_an_advertised_name_is_resolved_and_a_bad_one_refused(node):
    assert node("a", advertise="localhost:4000").transport.ip == "127.0.0.1"
    assert node("b", advertise="10.0.0.1:4000").transport.advertised_port == 4000
    with pytest.raises(AddressError):
        Node("c", advertise="no.such.host.invalid:1")


def test_a_dual_stack_bind_tells_ipv4_sources_as_ipv4(node):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    a, b = node("a"), node("b", bind="[::]:0")
    assert a.transport.send(*b.address, [Ping(1)])
    assert b.packets.wait(1)[0][2] == a.address
    assert a.transport.stream_ping(*b.address, Ping(1), 5.0)
    assert b.streams.wait(1)[0][1][0] == "127.0.0.1"


def test_a_cut_answer_is_a_stream_error(node):
    a = node("a")
    with silent_listener() as (port, accepted):

        def cut() -> None:
            sock = accepted.wait(1)[0]
            sock.sendall(encode_stream(state("x"), answer=True)[:-4])
            sock.shutdown(socket.SHUT_WR)

        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(StreamError, match="cannot be read"):
            a.transport.push_pull("127.0.0.1", port, a.state, 5.0)
        cutter.join()
