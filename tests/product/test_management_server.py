"""The actor that owns both servers: which protocol sits where, and what happens when a port cannot be had."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from coterie.actors.errors import BindFailed
from coterie.actors.management.client import NodeClient
from coterie.actors.management.server import ManagementServer, ManagementSettings, Open, bind_addresses
from coterie.transport.grpc_client import ChannelPool
from tests.product.management_world import STATUS, FakeCluster

PATIENCE = 10.0


@pytest.fixture
def started() -> Iterator[list[Any]]:
    refs: list[Any] = []
    yield refs
    for ref in refs:
        ref.stop(timeout=PATIENCE)


def start(started: list[Any], settings: ManagementSettings) -> Any:
    ref = ManagementServer.start(settings, FakeCluster().service(), node="n1")
    started.append(ref)
    return ref


@pytest.mark.parametrize(
    ("settings", "http", "grpc"),
    [
        (ManagementSettings(":17946"), ":17946", ":17947"),
        (ManagementSettings("127.0.0.1:17946", "grpc"), "127.0.0.1:17947", "127.0.0.1:17946"),
        (ManagementSettings("127.0.0.1:0"), "127.0.0.1:0", "127.0.0.1:0"),
        (ManagementSettings(":1", grpc_addr="127.0.0.1:9"), ":1", "127.0.0.1:9"),
        (ManagementSettings(":1", "grpc", http_addr="[::1]:9"), "[::1]:9", ":1"),
        (ManagementSettings("[::1]:1"), "[::1]:1", "[::1]:2"),
    ],
)
def test_the_other_protocol_sits_on_the_next_port_unless_it_is_told_otherwise(settings: ManagementSettings, http: str, grpc: str) -> None:
    assert bind_addresses(settings) == (http, grpc)


def test_the_last_port_has_no_next_one() -> None:
    with pytest.raises(BindFailed, match="mgmt_addr ':65535' has no next port for grpc_addr: give grpc_addr"):
        bind_addresses(ManagementSettings(":65535"))


@pytest.mark.parametrize("proto", ["http", "grpc"])
def test_both_protocols_answer_from_the_addresses_told(started: list[Any], proto: str) -> None:
    addresses = start(started, ManagementSettings("127.0.0.1:0", proto)).ask(Open(), timeout=PATIENCE)
    assert addresses.mgmt == getattr(addresses, proto)
    assert httpx.get(f"http://{addresses.http}/status", trust_env=False).json()["LeaderID"] == "n1"
    pool = ChannelPool()
    try:
        assert NodeClient(pool).status(addresses.grpc, PATIENCE).get(timeout=PATIENCE) == STATUS
    finally:
        pool.close()


def test_a_bind_on_all_interfaces_tells_an_address_that_can_be_dialled(started: list[Any]) -> None:
    addresses = start(started, ManagementSettings(":0")).ask(Open(), timeout=PATIENCE)
    for address in (addresses.http, addresses.grpc):
        host, _, port = address.rpartition(":")
        assert host not in ("", "0.0.0.0")
        socket.create_connection((host, int(port)), PATIENCE).close()


def test_asked_twice_it_stays_where_it_is(started: list[Any]) -> None:
    ref = start(started, ManagementSettings("127.0.0.1:0"))
    assert ref.ask(Open(), timeout=PATIENCE) == ref.ask(Open(), timeout=PATIENCE)


@pytest.mark.parametrize("taken", ["mgmt_addr", "grpc_addr"])
def test_when_one_port_is_taken_neither_listens(started: list[Any], taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupant, socket.create_server(("127.0.0.1", 0)) as probe:
        busy = f"127.0.0.1:{occupant.getsockname()[1]}"
        free = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        settings = ManagementSettings(busy, grpc_addr=free) if taken == "mgmt_addr" else ManagementSettings(free, grpc_addr=busy)
        ref = start(started, settings)
        with pytest.raises(BindFailed, match=f"{taken} '{busy}' cannot be bound: .*choose another port"):
            ref.ask(Open(), timeout=PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(free.rpartition(":")[2])), 1)
        assert ref.is_alive()


def test_stopping_closes_the_ports(started: list[Any]) -> None:
    ref = start(started, ManagementSettings("127.0.0.1:0"))
    addresses = ref.ask(Open(), timeout=PATIENCE)
    ref.stop(timeout=PATIENCE)
    for address in (addresses.http, addresses.grpc):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1)
