"""Attacks on a node's ports, in a process of their own: `python -m tests.product.attacks '<json>'`, with {"ports": {name: [host, port]}, "attacks": [[kind, port,
size]…]}.

Each attack is a thread. What it sends is paced, and the process is nice, so that what is measured is what the victim spends on an attack and not what the
attacker takes of the machine's processors. A line of JSON when all are under way, another one with what they did when standard input ends.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

from coterie.proto.gossip_codec import encode_packet
from coterie.proto.gossip_messages import PushPull
from coterie.proto.gossip_stream import encode_stream
from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import COMMAND, AppendRequest, Entry, Header, PreVoteRequest

Address = tuple[str, int]

HUNDRED_MB = 100_000_000
STRANGER = Header("stranger", "127.0.0.1:1")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def field(name: bytes, value: bytes) -> bytes:
    """A header as HPACK writes one that is in no table."""
    assert len(name) < 127
    assert len(value) < 127
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def grpc_call(stream: int, path: bytes = b"/cluster.v1.Management/GetStatus", more: bytes = b"", last: bool = True) -> bytes:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"), (b"te", b"trailers")]
    head = b"".join(field(*pair) for pair in [*fields, (b"content-type", b"application/grpc")])
    return frame(1, 4 if last else 0, stream, head + more)


GRPC_HELLO = PREFACE + frame(4, 0, 0, b"")
GRPC_QUESTION = b"\x00" + struct.pack(">I", 0)

# A whole and valid request that is answered; what a slow client says of one before it slows down; and the beginning of one that claims 100 MB.
WHOLE: dict[str, bytes] = {
    "raft": encode_request(PreVoteRequest(STRANGER, 0, 0, 0)),
    "gossip": encode_stream(PushPull(False, ())),
    "http": b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
    "grpc": b"",
}
HEADS: dict[str, bytes] = {
    "raft": WHOLE["raft"][:20],
    "gossip": WHOLE["gossip"][:5],
    "http": b"POST /appsync HTTP/1.1\r\nHost: x\r\nX: ",
    "grpc": GRPC_HELLO[:18],
}
SLOW_BODIES: dict[str, bytes] = {
    "raft": encode_request(AppendRequest(STRANGER, 1, 0, 0, 0, (Entry(1, 1, COMMAND, b"x" * 100_000),)))[:200],
    "gossip": b"\x06\x83\xa5Nodes\x00\xacUserStateLen\xce\x00\x10\x00\x00\xa4Join\xc2",
    "http": b"POST /appsync HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
    "grpc": GRPC_HELLO + grpc_call(1) + frame(0, 0, 1, b"\x00" + struct.pack(">I", 1 << 20)),
}
HUGE_BODIES: dict[str, bytes] = {
    "raft": b"\x00\x81\xa7Entries\x91\x81\xa4Data\xc6" + struct.pack(">I", HUNDRED_MB),
    "gossip": b"\x08\x81\xaaUserMsgLen\xce" + struct.pack(">I", HUNDRED_MB),
    "http": b"POST /appsync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % HUNDRED_MB,
    "grpc": GRPC_HELLO + grpc_call(1) + frame(0, 0, 1, b"\x00" + struct.pack(">I", HUNDRED_MB)),
}


# Calls whose request never comes, to methods of each of the server's pools.
METHODS = (b"/cluster.v1.Management/GetStatus", b"/cluster.v1.Management/AppWrite", b"/grpc.health.v1.Health/Watch")


def half_calls(first: int, many: int) -> bytes:
    """So many calls from stream `first` on, each with its headers and the beginning of a message."""
    numbers = range(first, first + 2 * many, 2)
    return b"".join(grpc_call(n, METHODS[n // 2 % len(METHODS)]) + frame(0, 0, n, b"\x00" + struct.pack(">I", 1000)) for n in numbers)


def header_lines(port: str) -> tuple[bytes, Callable[[int], bytes]]:
    """A head that has no end: its beginning, and its nth further part."""
    if port == "http":
        return b"GET /status HTTP/1.1\r\nHost: x\r\n", lambda n: b"".join(b"X-%d-%d: %s\r\n" % (n, i, b"y" * 60) for i in range(50))
    if port == "grpc":
        return GRPC_HELLO + grpc_call(1, last=False), lambda n: frame(
            9, 0, 1, b"".join(field(b"x-%d-%d" % (n, i), b"y" * 60) for i in range(50))
        )
    if port == "raft":
        return b"\x00\xdf\x7f\xff\xff\xff", lambda n: b"".join(b"\xa9K%08d\xa1y" % (n * 50 + i) for i in range(50))
    return b"\x06\xdf\x7f\xff\xff\xff", lambda n: b"".join(b"\xa9K%08d\xa1y" % (n * 50 + i) for i in range(50))


class Attack(threading.Thread):
    """kind: idle, slow-head, slow-body, slow-read, huge-body, headers, half-calls or datagrams; size: how many connections, or datagrams a second."""

    def __init__(self, kind: str, port: str, to: Address, size: int) -> None:
        super().__init__(daemon=True, name=f"{kind} {port}")
        self.kind, self.port, self.to, self.size = kind, port, to, size
        self.under_way, self.stopping = threading.Event(), threading.Event()
        self.did: collections.Counter[str] = collections.Counter()
        self.random = random.Random(f"{kind} {port}")

    def run(self) -> None:
        attack = {"idle": self.idle, "datagrams": self.datagrams, "slow-read": self.slow_read, "huge-body": self.huge_bodies}
        attack |= {"half-calls": self.half_calls}
        attack |= {"slow-head": lambda: self.dribble(HEADS), "slow-body": lambda: self.dribble(SLOW_BODIES), "headers": self.headers}
        while not self.stopping.is_set():
            try:
                attack[self.kind]()
            except OSError as error:
                self.did[f"broken off: {type(error).__name__}"] += 1
                self.stopping.wait(0.05)

    def connect(self, buffer: int = 0) -> socket.socket:
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(10)
        try:
            sock.connect(self.to)
        except OSError:
            sock.close()
            raise
        self.did["connections"] += 1
        return sock

    @contextlib.contextmanager
    def crowd(self, say: bytes = b"", buffer: int = 0) -> Iterator[list[socket.socket]]:
        """`size` connections, each of which has said `say`; those that are closed meanwhile are replaced by `keep_up`."""
        crowd: list[socket.socket] = []
        try:
            while len(crowd) < self.size and not self.stopping.is_set():
                crowd.append(self.greet(say, buffer))
                if len(crowd) % 50 == 0:
                    self.stopping.wait(0.02)
            self.under_way.set()
            yield crowd
        finally:
            for sock in crowd:
                sock.close()

    def greet(self, say: bytes, buffer: int) -> socket.socket:
        while True:
            sock = self.connect(buffer)
            try:
                if say:
                    sock.sendall(say)
                sock.setblocking(False)
                return sock
            except OSError:
                sock.close()
                self.did["closed at once"] += 1
                if self.stopping.wait(0.01):
                    raise

    def keep_up(self, crowd: list[socket.socket], say: bytes, buffer: int = 0, most: int = 50) -> None:
        """Those that the other side has closed come again, at most so many at a time."""
        poll = select.poll()
        numbers = {sock.fileno(): at for at, sock in enumerate(crowd)}
        for number in numbers:
            poll.register(number, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        for number, _ in poll.poll(0)[:most]:
            at = numbers[number]
            crowd[at].close()
            self.did["closed by it"] += 1
            crowd[at] = self.greet(say, buffer)

    def idle(self) -> None:
        with self.crowd() as crowd:
            while not self.stopping.wait(0.1):
                self.keep_up(crowd, b"")

    def dribble(self, says: dict[str, bytes]) -> None:
        say = says[self.port]
        with self.crowd(say) as crowd:
            while not self.stopping.wait(0.3):
                self.keep_up(crowd, say)
                for sock in crowd:
                    with contextlib.suppress(OSError):
                        sock.send(b"x")

    def half_calls(self) -> None:
        """A hundred at once on each connection, and ten more at each turn."""
        say, first = GRPC_HELLO + half_calls(1, 100), 201
        with self.crowd(say) as crowd:
            while not self.stopping.wait(0.3):
                self.keep_up(crowd, say)
                for sock in crowd:
                    with contextlib.suppress(OSError):
                        sock.send(half_calls(first, 10))
                        self.did["calls"] += 10
                first += 20

    def slow_read(self) -> None:
        """Questions without an end, whose answers nobody reads."""
        say = WHOLE[self.port] * 20
        if self.port == "grpc":
            say = GRPC_HELLO + b"".join(grpc_call(n) + frame(0, 1, n, GRPC_QUESTION) for n in range(1, 41, 2))
        elif self.port == "http":
            say = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20
        with self.crowd(say, buffer=4096) as crowd:
            while not self.stopping.wait(0.3):
                self.keep_up(crowd, say, 4096)
                for sock in crowd:
                    with contextlib.suppress(OSError):
                        self.did["questions"] += self.port in ("raft", "http") and sock.send(WHOLE[self.port]) > 0

    def huge_bodies(self) -> None:
        with self.connect() as sock:
            self.under_way.set()
            sock.sendall(HUGE_BODIES[self.port])
            chunk = b"x" * 16_000
            if self.port == "grpc":
                chunk = frame(0, 0, 1, chunk)
            for _ in range(HUNDRED_MB // 16_000):
                sock.sendall(chunk)
                self.did["bytes"] += len(chunk)
                if self.stopping.wait(0.002):
                    return

    def headers(self) -> None:
        begin, part = header_lines(self.port)
        with self.connect() as sock:
            self.under_way.set()
            sock.sendall(begin)
            n = 0
            while not self.stopping.wait(0.005):
                data = part(n)
                sock.sendall(data)
                self.did["bytes"] += len(data)
                n += 1

    def datagrams(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            self.under_way.set()
            valid = encode_packet([b"\x03\x81\xa5SeqNo\x01"])  # an acknowledgement that nobody waits for
            while not self.stopping.wait(0.01):
                for _ in range(self.size // 100):
                    garbage = self.random.randbytes(self.random.randint(1, 1400))
                    sock.sendto(valid if self.random.random() < 0.1 else garbage, self.to)
                    self.did["datagrams"] += 1


def main() -> None:
    os.nice(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asked = json.loads(sys.argv[1])
    attacks = [Attack(kind, port, tuple(asked["ports"][port]), size) for kind, port, size in asked["attacks"]]
    for attack in attacks:
        attack.start()
    until = time.monotonic() + asked.get("within", 60)
    late = [attack.name for attack in attacks if not attack.under_way.wait(max(0.0, until - time.monotonic()))]
    print(json.dumps({"late": late}), flush=True)
    sys.stdin.read()
    for attack in attacks:
        attack.stopping.set()
    for attack in attacks:
        attack.join(5)
    print(json.dumps({attack.name: dict(attack.did) for attack in attacks}), flush=True)


if __name__ == "__main__":
    main()
