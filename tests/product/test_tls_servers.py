"""What TLS adds to the management servers and their clients: slow handshakes, stopping among them, and certificates that change under calls."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie import Cluster, Config
from coterie.actors.management.http_app import http_app
from coterie.cli_http import connect
from coterie.cli_target import Target
from coterie.transport.grpc_client import Answer, ChannelPool
from coterie.transport.grpc_server import Call, GrpcServer, Method
from coterie.transport.http_server import HttpServer
from coterie.transport.tls import Tls
from coterie.transport.tls_tunnel import TlsTunnel
from tests.authority import HOUR, Authority, Files, now
from tests.product.management_world import FakeCluster, wait_until

PATIENCE = 10.0


class Side:
    def __init__(self, directory: Path, authority: Authority, name: str, **more: Any) -> None:
        self.files = Files(directory / name, authority.pem, authority.issue(name), **more)
        self.tls = Tls(self.files.settings, name, watch=False)

    def now_of(self, authority: Authority) -> None:
        self.files.ca.write_bytes(authority.pem)
        authority.issue("new").write(self.files.cert, self.files.key)
        assert self.tls.look()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def side(tmp_path: Path, authority: Authority) -> Callable[..., Side]:
    return lambda name, **more: Side(tmp_path, authority, name, **more)


# -- HTTP -------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def https(tls: Tls | None, **more: Any) -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1:0", http_app(FakeCluster().service()), "n1", tls=tls, **more)
    try:
        yield server
    finally:
        server.close()


def get(server: HttpServer, tls: Tls) -> bytes:
    """The answer to one request, and the end: read by a socket of the standard library."""
    with tls.client().wrap_socket(socket.create_connection(("127.0.0.1", server.port), PATIENCE), server_hostname="127.0.0.1") as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n")
        text = b""
        with contextlib.suppress(ssl.SSLEOFError):
            while data := sock.recv(4096):
                text += data
        return text


def test_a_handshake_that_does_not_come_is_ended_in_time_and_hinders_nobody(side: Callable[..., Side]) -> None:
    tls = side("n1").tls
    with https(tls, head_timeout=0.3) as server, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(20)]
        silent[0].sendall(b"\x16\x03\x01")
        assert get(server, tls).startswith(b"HTTP/1.1 200")
        for sock in silent:
            assert sock.recv(100) == b""
        wait_until(lambda: server.counters.snapshot().get("TLS: handshakes too slow") == 20)


def test_the_bound_of_connections_counts_those_that_shake_hands(side: Callable[..., Side], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.transport.http_server.MAX_CONNECTIONS", 3)
    tls = side("n1").tls
    with https(tls) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
        with contextlib.suppress(ConnectionError):
            assert stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)).recv(1) == b""
        wait_until(lambda: server.counters.snapshot().get("connections refused") == 1)


def test_a_server_stops_at_once_among_handshakes(side: Callable[..., Side]) -> None:
    with https(side("n1").tls) as server, socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        wait_until(lambda: server._server.server_state.connections)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 5
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""


def test_tls_at_a_plain_http_port_is_refused_counted_and_named(side: Callable[..., Side], caplog: pytest.LogCaptureFixture) -> None:
    with https(None) as server:
        with pytest.raises(OSError):
            get(server, side("n1").tls)
        wait_until(lambda: server.counters.snapshot().get("TLS at a plain port") == 1)
    assert "turn tls_enable on here" in caplog.text


def test_the_next_handshake_has_the_new_certificates(side: Callable[..., Side]) -> None:
    server_side, client_side, other = side("n1"), side("client"), Authority("other")
    with https(server_side.tls) as server:
        assert get(server, client_side.tls).startswith(b"HTTP/1.1 200")
        server_side.now_of(other)
        with pytest.raises(ssl.SSLCertVerificationError):
            get(server, client_side.tls)
        client_side.now_of(other)
        assert get(server, client_side.tls).startswith(b"HTTP/1.1 200")


# -- gRPC -------------------------------------------------------------------------------------------------------------------------


class GrpcWorld:
    """A server with a method that waits until it is let go, one that answers at once, and a stream that says back what it hears."""

    def __init__(self, tls: Tls, client: Tls) -> None:
        self.go, self.arrived = threading.Event(), threading.Semaphore(0)

        def wait(request: bytes, call: Call) -> bytes:
            self.arrived.release()
            assert self.go.wait(PATIENCE)
            return request

        services = {
            "t.T": {
                "Wait": Method("work", wait),
                "Echo": Method("control", lambda request, call: request),
                "Stream": Method("bidi", lambda requests, call: iter(requests)),
            }
        }
        self.server = GrpcServer("127.0.0.1:0", services, "n1", tls=tls)
        self.address = f"127.0.0.1:{self.server.port}"
        self.pool = ChannelPool("n2", tls=client)

    def ask(self, method: str, request: bytes) -> queue.SimpleQueue[Answer]:
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.pool.call(self.address, f"/t.T/{method}", request, PATIENCE, answers.put)
        return answers

    def echo(self, request: bytes) -> Answer:
        return self.ask("Echo", request).get(timeout=2 * PATIENCE)

    def close(self) -> None:
        self.go.set()
        self.pool.close()
        self.server.stop()


def test_calls_and_streams_under_way_outlive_a_change_and_the_next_ones_use_it(side: Callable[..., Side]) -> None:
    server_side, client_side, other = side("n1"), side("n2"), Authority("other")
    world = GrpcWorld(server_side.tls, client_side.tls)
    try:
        heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        closed: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        stream = world.pool.stream(world.address, "/t.T/Stream", heard.put, closed.put)
        assert stream is not None
        stream.send(b"one")
        assert heard.get(timeout=PATIENCE) == b"one"
        waiting = world.ask("Wait", b"begun before")
        assert world.arrived.acquire(timeout=PATIENCE)
        server_side.now_of(other)
        answer = world.echo(b"the connection stands")  # its client has not read the new files yet
        assert answer.body == b"the connection stands"
        client_side.now_of(other)
        assert world.echo(b"on a new channel").body == b"on a new channel"
        assert len(world.pool._retired) == 1
        stream.send(b"two")
        assert heard.get(timeout=PATIENCE) == b"two"
        world.go.set()
        assert waiting.get(timeout=PATIENCE).body == b"begun before"
        stream.finish()
        assert closed.get(timeout=PATIENCE).code == "OK"
        wait_until(lambda: not world.pool._retired)
    finally:
        world.close()


def test_the_server_name_stands_in_for_the_address(tmp_path: Path, authority: Authority, side: Callable[..., Side]) -> None:
    files = Files(tmp_path / "server", authority.pem, authority.issue(names=("cluster.test",)))
    world = GrpcWorld(Tls(files.settings, "n1", watch=False), side("named", server_name="cluster.test").tls)
    try:
        assert world.echo(b"x").body == b"x"
        world.pool.close()
        world.pool = ChannelPool("n2", tls=side("unnamed").tls)
        answer = world.echo(b"x")
        assert (answer.code, answer.sent) == ("UNAVAILABLE", False)
    finally:
        world.close()


def test_skipping_the_verification_goes_through_a_tunnel_that_ends_with_its_channel(side: Callable[..., Side]) -> None:
    world = GrpcWorld(
        side("n1").tls, Tls(Files(side("x").files.ca.parent / "f", Authority("x").pem, None, skip_verify=True).settings, "", "client")
    )
    try:
        assert (world.echo(b"x").code, world.echo(b"x").sent) == ("UNAVAILABLE", False)  # it shows no certificate
    finally:
        world.close()
    world = GrpcWorld(side("n3").tls, side("skips", skip_verify=True).tls)
    try:
        for size in (1, 100_000, 8 << 20):
            assert world.echo(bytes(size)).body == bytes(size)
        (entry,) = world.pool._channels.values()
        assert entry.tunnel is not None
        path = Path(entry.tunnel.target.removeprefix("unix:"))
        assert path.exists()
        assert path.parent.stat().st_mode & 0o077 == 0
        world.server.stop()
        answer = world.echo(b"x")
        assert answer.code == "UNAVAILABLE"
    finally:
        world.close()
    assert not path.parent.exists()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("n2/grpc-client-tunnel")])


def test_an_address_that_no_tunnel_leads_to_is_an_answer_and_no_exception(side: Callable[..., Side]) -> None:
    """Addresses come from gossip: one that is none must not raise in the actor that asks."""
    pool = ChannelPool("n1", tls=side("n1", skip_verify=True).tls)
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    try:
        pool.call("no address", "/a.B/C", b"", 1.0, answers.put)
        answer = answers.get(timeout=PATIENCE)
        assert (answer.code, answer.sent) == ("UNAVAILABLE", False)
        assert pool.stream("no address", "/a.B/C", lambda message: None, answers.put) is None
    finally:
        pool.close()


def test_a_tunnel_to_nobody_keeps_nothing_of_its_attempts(side: Callable[..., Side]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tunnel = TlsTunnel(f"127.0.0.1:{port}", side("n1", skip_verify=True).tls, "n1")
    try:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as near:
                near.settimeout(10.0)
                near.connect(tunnel.target.removeprefix("unix:"))
                assert near.recv(1) == b""
        wait_until(lambda: not tunnel._open)
    finally:
        tunnel.close()


# -- what a node shows ------------------------------------------------------------------------------------------------------------


def test_an_expiring_certificate_stands_in_the_status_and_in_the_metrics(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue(begins=-90 * HOUR, ends=9 * HOUR)
    files = Files(tmp_path / "n1", authority.pem, pair)
    addresses = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")
    with Cluster(Config(node_id="n1", bootstrap=True, **addresses, **files.config())) as cluster:
        warnings = cluster.status().warnings
        assert [text for text in warnings if text.startswith(f"TLS of n1: the certificate in {files.cert} expires at ")]
        client = Tls(files.settings, "", "client", watch=False)
        http = Target.of(cluster.ref.ask("addresses")["http"], "10s", "http", {})._replace(tls=client)
        connection = connect(http, http.addrs[0])
        wanted = pytest.approx((now() + 9 * HOUR).timestamp(), abs=120)
        seen: list[float] = []

        def shown() -> bool:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            name = 'coterie_tls_certificate_expiry_timestamp_seconds{certificate="node"}'
            seen[:] = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
            return bool(seen)

        wait_until(shown)
        assert seen == [wanted]
        connection.close()
