"""The TLS matrix on real sockets: what a server demands × what a client shows and believes × HTTP, gRPC and Raft; and gossip by key and label.

A row is a client, a column a server; what must come of it stands in one table for all three protocols, since all three promise the same. What each side says of a
refusal is checked too: an operator has nothing else to go by.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.actors.errors import CoterieError
from coterie.actors.management.client import NodeClient
from coterie.actors.management.grpc_api import management_services
from coterie.actors.management.http_app import http_app
from coterie.cli_errors import NoAnswer
from coterie.cli_http import ask
from coterie.cli_target import Target
from coterie.proto.raft_messages import Header, PreVoteResponse
from coterie.transport.errors import DialError
from coterie.transport.grpc_client import ChannelPool
from coterie.transport.grpc_server import GrpcServer
from coterie.transport.http_server import HttpServer
from coterie.transport.raft_client import identify
from coterie.transport.raft_server import RaftServer
from coterie.transport.tls import Tls
from tests.authority import CLIENT, HOUR, Authority, Files, now
from tests.product.management_world import FakeCluster, wait_until

PATIENCE = 10.0


def yesterday() -> datetime.datetime:
    return now() - 24 * HOUR


class Sides:
    """Every server and every client of the matrix, by name; one authority is theirs, the other a stranger's."""

    def __init__(self, directory: Path) -> None:
        mine, stranger = Authority("mine", begins=-48 * HOUR), Authority("a stranger's", begins=-48 * HOUR)
        good = mine.issue(begins=-48 * HOUR)
        expired = mine.issue(begins=-48 * HOUR, ends=-HOUR)
        foreign = stranger.issue(begins=-48 * HOUR)

        def make(name: str, *arguments: Any, role: str = "node", then: bool = False, **more: Any) -> Tls:
            """then: the files were read while they were still valid, as by a node that runs on."""
            files = Files(directory / re.sub(r"\W+", "-", name), *arguments, **more)
            return Tls(files.settings, name, role, watch=False, **({"clock": yesterday} if then else {}))  # type: ignore[arg-type]

        self.servers: dict[str, Tls | None] = {
            "plain": None,
            "server TLS": make("server", None, good),
            "mutual TLS": make("mutual", mine.pem, good),
            "server TLS, expired": make("server expired", None, expired, then=True),
            "mutual TLS, expired": make("mutual expired", mine.pem, expired, then=True),
            "server TLS of a stranger": make("server foreign", None, foreign),
            "mutual TLS of a stranger": make("mutual foreign", stranger.pem, foreign),
            "mutual TLS, another name": make("mutual elsewhere", mine.pem, mine.issue(names=("elsewhere.test",), begins=-48 * HOUR)),
        }
        self.clients: dict[str, Tls | None] = {
            "plain": None,
            "good": make("good", mine.pem, good, role="client"),
            "no certificate": make("none", mine.pem, None, role="client"),
            "expired": make("old", mine.pem, expired, role="client", then=True),
            "of a stranger": make("foreign", mine.pem, foreign, role="client"),
            "for clients alone": make("clients", mine.pem, mine.issue(uses=(CLIENT,), begins=-48 * HOUR), role="client"),
            "believes a stranger": make("believes", stranger.pem, good, role="client"),
            "expects a name": make("named", mine.pem, good, role="client", server_name="elsewhere.test"),
            "skips": make("skips", stranger.pem, good, role="client", skip_verify=True),
        }


SERVERS = (
    "plain",
    "server TLS",
    "mutual TLS",
    "server TLS, expired",
    "mutual TLS, expired",
    "server TLS of a stranger",
    "mutual TLS of a stranger",
    "mutual TLS, another name",
)

# client -> the servers that answer it. Everything else is refused.
ANSWERED = {
    "plain": {"plain"},
    "good": {"server TLS", "mutual TLS"},
    "no certificate": {"server TLS"},
    "expired": {"server TLS"},
    "of a stranger": {"server TLS"},
    "for clients alone": {"server TLS", "mutual TLS"},
    "believes a stranger": {"server TLS of a stranger"},
    "expects a name": {"mutual TLS, another name"},
    "skips": {
        "server TLS",
        "mutual TLS",
        "server TLS, expired",
        "mutual TLS, expired",
        "server TLS of a stranger",
        "mutual TLS, another name",
    },
}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(tmp_path_factory.mktemp("tls"))


def over_http(sides: Sides, server: str) -> Iterator[Callable[[str], str]]:
    running = HttpServer("127.0.0.1:0", http_app(FakeCluster().service()), "n1", tls=sides.servers[server])

    def attempt(client: str) -> str:
        target = Target((("127.0.0.1", running.port),), PATIENCE, False, sides.clients[client])
        try:
            return str(ask(target, target.addrs[0], "GET", "/status")["LeaderID"])
        except NoAnswer as error:
            return str(error)

    yield attempt
    running.close()


def over_grpc(sides: Sides, server: str) -> Iterator[Callable[[str], str]]:
    running = GrpcServer("127.0.0.1:0", management_services(FakeCluster().service()), "n1", tls=sides.servers[server])

    def attempt(client: str) -> str:
        pool = ChannelPool("n2", tls=sides.clients[client])
        try:
            return str(NodeClient(pool).status(f"127.0.0.1:{running.port}", PATIENCE).get(timeout=2 * PATIENCE).leader_id)
        except CoterieError as error:
            return str(error)
        finally:
            pool.close()

    yield attempt
    running.stop()


def over_raft(sides: Sides, server: str) -> Iterator[Callable[[str], str]]:
    def answer(handle: Any, request: Any) -> None:
        handle.reply(PreVoteResponse(Header("n1", "127.0.0.1:1"), 0, False))

    running = RaftServer("127.0.0.1:0", answer, name="n1", tls=sides.servers[server])

    def attempt(client: str) -> str:
        try:
            return identify(f"127.0.0.1:{running.port}", Header("n2", "127.0.0.1:2"), PATIENCE, sides.clients[client]).id
        except DialError as error:
            return str(error)

    yield attempt
    running.close()


PROTOCOLS = {"HTTP": over_http, "gRPC": over_grpc, "Raft": over_raft}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_matrix(sides: Sides, protocol: str, server: str) -> None:
    attempts = PROTOCOLS[protocol](sides, server)
    attempt = next(attempts)
    came = {client: attempt(client) for client in ANSWERED}
    assert {client: answer == "n1" for client, answer in came.items()} == {client: server in good for client, good in ANSWERED.items()}, (
        came
    )
    assert list(attempts) == []


# client, server -> what the client is told, over HTTP and Raft (gRPC's core has words of its own).
WORDS = [
    ("good", "plain", "does not speak TLS|is it TLS there"),
    ("plain", "mutual TLS", "HTTPS|hung up"),
    ("good", "mutual TLS, expired", "certificate has expired.*renew"),
    ("good", "mutual TLS of a stranger", "certificate is refused.*tls_ca"),
    ("good", "mutual TLS, another name", "IP address mismatch.*tls_server_name"),
    ("expects a name", "mutual TLS", "Hostname mismatch.*tls_server_name"),
    ("no certificate", "mutual TLS", "client certificate"),
]


@pytest.mark.parametrize(("client", "server", "says"), WORDS)
@pytest.mark.parametrize("protocol", ["HTTP", "Raft"])
def test_a_refusal_says_why(sides: Sides, protocol: str, client: str, server: str, says: str) -> None:
    attempts = PROTOCOLS[protocol](sides, server)
    said = next(attempts)(client)
    assert re.search(says, said), said
    assert list(attempts) == []


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ("plain", "TLS: plain connections refused"),
        ("no certificate", "TLS: certificates refused"),
        ("expired", "TLS: certificates refused"),
        ("of a stranger", "TLS: certificates refused"),
        ("believes a stranger", "TLS: refused by the other side"),
    ],
)
def test_what_a_server_refuses_is_counted_by_reason(sides: Sides, client: str, reason: str) -> None:
    tls = sides.servers["mutual TLS"]
    http = HttpServer("127.0.0.1:0", http_app(FakeCluster().service()), "n1", tls=tls)
    raft = RaftServer("127.0.0.1:0", lambda handle, request: None, name="n1", tls=tls)
    try:
        with pytest.raises(NoAnswer):
            ask(Target((("127.0.0.1", http.port),), PATIENCE, False, sides.clients[client]), ("127.0.0.1", http.port), "GET", "/status")
        with pytest.raises(DialError):
            identify(f"127.0.0.1:{raft.port}", Header("n2", "127.0.0.1:2"), PATIENCE, sides.clients[client])
        wait_until(lambda: http.counters.snapshot().get(reason) == 1)
        wait_until(lambda: raft.counters().get(reason) == 1)
    finally:
        http.close()
        raft.close()
