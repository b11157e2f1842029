"""Garbage, half messages, strangers' protocols and idle connections on every port of live nodes: counted, closed, and nothing else happens.

The gossip and the Raft port get what the wire formats' golden files keep as fatal to Go nodes, too.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import COMMAND, AppendRequest, Entry, Header, PreVoteRequest, Request, TimeoutNowRequest, VoteRequest
from tests.product.nodes import Node
from tests.product.siege import Siege, call, counted, resident_bytes, siege
from tests.product.wait import wait_for
from tests.wire.vectors import MEMBERLIST, RAFT

IDLE = 300
TLS_HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(range(32)) + b"\x00" * 130
HTTP_REQUEST = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with siege(tmp_path_factory.mktemp("ports")) as cluster:
        yield cluster


@pytest.fixture
def cluster(besieged: Siege) -> Iterator[Siege]:
    with besieged.unharmed():
        yield besieged


# -- ports ------------------------------------------------------------------------------------------------------------------------


def address(node: Node, port: str) -> tuple[str, int]:
    text = {"raft": node.raft_addr, "gossip": str(node.config["mem_bind"]), "http": node.mgmt_addr}.get(port)
    if text is None:
        text = next(m["meta"]["grpc"] for m in node.status(local=True)["members"] if m["id"] == node.name)
    host, _, number = text.rpartition(":")
    return host, int(number)


def send(to: tuple[str, int], data: bytes, read: bool = True) -> bytes:
    """Over TCP on a connection of its own; what comes back until the other side closes or says nothing for a moment."""
    said = bytearray()
    with socket.create_connection(to, timeout=10) as sock, contextlib.suppress(OSError):  # it may hang up on us at any point
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(2)
        while read and len(said) < 1 << 20 and (more := sock.recv(65536)):
            said += more
    return bytes(said)


def send_datagrams(to: tuple[str, int], datagrams: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, to)


@contextlib.contextmanager
def counts(node: Node, *reasons: str) -> Iterator[None]:
    """What is done inside is counted in the node's status: every one of the reasons grows."""

    def now() -> dict[str, int]:
        kept = counted(node)
        return {reason: sum(count for name, count in kept.items() if reason in name) for reason in reasons}

    before = now()
    yield
    wait_for(lambda: all(now()[reason] > before[reason] for reason in reasons), 10, f"{node.name} counts {reasons}: {counted(node)}")


def garbage(seed: int, most: int = 4096) -> bytes:
    rng = random.Random(seed)
    return rng.randbytes(rng.randint(1, most))


NODES = pytest.mark.parametrize("name", ["n1", "n2"], ids=["leader", "follower"])


# -- gossip -----------------------------------------------------------------------------------------------------------------------


def vectors_of(vectors: dict[str, object], transport: str, *beginnings: str) -> list[bytes]:
    return [v.raw for v in vectors.values() if v.transport == transport and v.name.startswith(beginnings)]  # type: ignore[attr-defined]


@NODES
def test_gossip_datagrams(cluster: Siege, name: str) -> None:
    node = cluster.cluster[name]
    vectors = vectors_of(MEMBERLIST, "udp", "unusual_")
    assert len(vectors) > 20
    cut = [raw[:length] for raw in vectors for length in range(0, len(raw), 3)]
    with counts(node, "gossip: packets dropped", "gossip: packet parts dropped"):
        send_datagrams(
            address(node, "gossip"), [*vectors, *cut, *(garbage(seed, 1400) for seed in range(300)), b"", TLS_HELLO, HTTP_REQUEST]
        )
    send_datagrams(address(node, "gossip"), [bytes([kind]) + b"\xdf\xff\xff\xff\xff" for kind in range(16)])
    send_datagrams(address(node, "gossip"), [b"\x07" + bytes([255]) + b"\xff\xff" * 255, b"\x00" * 65000])


@NODES
def test_gossip_streams(cluster: Siege, name: str) -> None:
    node = cluster.cluster[name]
    vectors = vectors_of(MEMBERLIST, "tcp", "unusual_")
    assert len(vectors) > 8
    with counts(node, "gossip: streams dropped"):
        for data in (*vectors, *(garbage(seed) for seed in range(40)), TLS_HELLO, HTTP_REQUEST, HTTP2_PREFACE):
            send(address(node, "gossip"), data, read=False)
    huge = [
        b"\x06" + b"\x83\xa5Nodes\xce\xff\xff\xff\xff\xacUserStateLen\x00\xa4Join\xc2",  # a push/pull of four milliards of nodes
        b"\x06" + b"\x83\xa5Nodes\x00\xacUserStateLen\xce\x7f\xff\xff\xff\xa4Join\xc2",
        b"\x08" + b"\x81\xaaUserMsgLen\xce\x7f\xff\xff\xff",
        b"\x0a\xff\xff\xff\xff" + b"x" * 1000,
    ]
    before = resident_bytes(node)
    for data in huge:
        send(address(node, "gossip"), data, read=False)
    assert resident_bytes(node) - before < 24 << 20


# -- Raft -------------------------------------------------------------------------------------------------------------------------


@NODES
def test_raft_garbage(cluster: Siege, name: str) -> None:
    node = cluster.cluster[name]
    vectors = vectors_of(RAFT, "tcp", "CRASH_")
    assert len(vectors) == 4
    with counts(node, "garbage"):
        for data in (*vectors, *(garbage(seed) for seed in range(40)), TLS_HELLO, HTTP_REQUEST, HTTP2_PREFACE):
            send(address(node, "raft"), data, read=False)


@NODES
def test_raft_half_messages_and_valid_heads_then_garbage(cluster: Siege, name: str) -> None:
    node, to = cluster.cluster[name], address(cluster.cluster[name], "raft")
    whole = next(v.raw for v in RAFT.values() if v.name == "tolerance_heartbeat_term0")
    with counts(node, "cut off"):
        for length in range(1, len(whole), 7):
            send(to, whole[:length], read=False)
    with counts(node, "garbage"):
        for seed in range(20):
            head = whole[: random.Random(seed).randint(2, len(whole) - 1)]
            send(to, head + garbage(seed), read=False)
            send(to, whole + b"\x09" + garbage(seed), read=False)


@NODES
def test_raft_huge_lengths_are_not_stored(cluster: Siege, name: str) -> None:
    node, to = cluster.cluster[name], address(cluster.cluster[name], "raft")
    before = resident_bytes(node)
    for claim in (
        b"\x00\xdf\xff\xff\xff\xff",
        b"\x00\xdb\xff\xff\xff\xff",
        b"\x00\x81\xa7Entries\xdd\xff\xff\xff\xff",
        b"\x00\x81\xa4Term\xc6\xff\xff\xff\xff",
    ):
        send(to, claim, read=False)
        send(to, claim + b"\x81" * (1 << 20), read=False)
    assert resident_bytes(node) - before < 48 << 20


@NODES
def test_what_a_stranger_asks_of_raft_changes_nothing(cluster: Siege, name: str) -> None:
    """Well-formed requests of a server that is in no configuration, of old terms and of high ones: no vote, no new term, no new leader while there is one."""
    node = cluster.cluster[name]
    stranger = Header("stranger", "127.0.0.1:1")
    asked: list[Request] = [TimeoutNowRequest(stranger)]
    for term in (0, 1, cluster.term, cluster.term + 1, cluster.term + 1000, (1 << 64) - 1):
        asked.append(PreVoteRequest(stranger, term, 1 << 40, term))
        asked += [VoteRequest(stranger, term, 1 << 40, term, transfer) for transfer in (False, True)]
        asked += [
            AppendRequest(stranger, term, 0, 0, 0, None),
            AppendRequest(stranger, term, 1, 1, 1 << 40, (Entry(2, term, COMMAND, b"forged"),)),
        ]
    with counts(node, "raft: timeout_now_ignored", "raft: append_requests_of_strangers"):
        for request in asked:
            send(address(node, "raft"), encode_request(request), read=False)


# -- every TCP port ---------------------------------------------------------------------------------------------------------------


@NODES
def test_http_garbage(cluster: Siege, name: str) -> None:
    node = cluster.cluster[name]
    heartbeat = next(v.raw for v in RAFT.values() if v.name == "tolerance_heartbeat")
    with counts(node, "management: http: garbage"):
        for data in (
            heartbeat,
            TLS_HELLO,
            HTTP2_PREFACE,
            *(garbage(seed) for seed in range(40)),
            b"GET /status HTTP/9.9\r\n\r\n",
            b"POST /join HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
            b"POST /join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"x" * (256 << 10),
            b"GET /status HTTP/1.1\r\nHost: x\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(10_000)) + b"\r\n",
        ):
            send(address(node, "http"), data)
    assert b"405" in send(address(node, "http"), b"CONNECT /status HTTP/1.1\r\nHost: x\r\n\r\n" + b"\x00" * 100)[:20]


@NODES
def test_grpc_garbage(cluster: Siege, name: str) -> None:
    node = cluster.cluster[name]
    heartbeat = next(v.raw for v in RAFT.values() if v.name == "tolerance_heartbeat")
    frame = struct.pack(">I", 0x00FFFFFF)[1:] + b"\x00\x00" + struct.pack(">I", 1)
    for data in (
        heartbeat,
        TLS_HELLO,
        HTTP_REQUEST,
        HTTP2_PREFACE,
        HTTP2_PREFACE + frame,
        *(HTTP2_PREFACE + garbage(s) for s in range(20)),
        *map(garbage, range(20)),
    ):
        send(address(node, "grpc"), data, read=False)


@pytest.mark.parametrize("port", ["raft", "gossip", "http", "grpc"])
def test_300_idle_connections_hold_nobody_up(cluster: Siege, port: str) -> None:
    node = cluster.leader
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(address(node, port), timeout=10))
        still_serves(node, cluster)
        with cluster.unharmed():
            pass
    still_serves(node, cluster)


def still_serves(node: Node, cluster: Siege) -> None:
    assert call(node.mgmt_addr, "GET", "/readyz") == (200, b"ok")
    assert cluster.follower.ask("publish", topic="while idle", data="d")["seq"] > 0
    assert cluster.follower.ask("write", op="w", data="d") == "n1:w:d"


def trickle(sock: socket.socket, data: bytes) -> None:
    for byte in data:
        sock.send(bytes([byte]))


def test_one_who_dribbles_a_message_on_each_port_holds_nobody_up(cluster: Siege) -> None:
    node = cluster.leader
    heads: dict[str, bytes] = {"raft": b"\x00\xdf", "gossip": b"\x06\x83", "http": b"POST /join HTTP/1.1\r\n", "grpc": HTTP2_PREFACE[:10]}
    with contextlib.ExitStack() as stack:
        for port, head in heads.items():
            for _ in range(20):
                trickle(stack.enter_context(socket.create_connection(address(node, port), timeout=10)), head)
        still_serves(node, cluster)


SWAPS: list[tuple[str, Callable[[], bytes]]] = [
    ("raft", lambda: HTTP_REQUEST),
    ("raft", lambda: next(v.raw for v in MEMBERLIST.values() if v.transport == "tcp")),
    ("gossip", lambda: HTTP_REQUEST),
    ("http", lambda: next(v.raw for v in RAFT.values() if v.name == "tolerance_heartbeat")),
]


@pytest.mark.parametrize(("port", "protocol"), SWAPS)
def test_another_ports_protocol_is_counted_and_closed(cluster: Siege, port: str, protocol: Callable[[], bytes]) -> None:
    node = cluster.follower
    reason = {"raft": "garbage", "gossip": "gossip: streams dropped", "http": "management: http: garbage"}[port]
    with counts(node, reason):
        send(address(node, port), protocol())
