"""Hostile clients on every port of the leader, all at once, under a write load. One by one, and for longer, in `make siege`."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import grpc
import pytest

from tests.product.assault import PORTS, Attacks, Fort, fort
from tests.product.wait import wait_for

IDLE = 1250  # on each of four ports

ALL_AT_ONCE: Attacks = [
    *(("idle", port, IDLE) for port in PORTS),
    *((kind, port, 10) for kind in ("slow-head", "slow-body", "slow-read") for port in PORTS),
    *((kind, port, 1) for kind in ("huge-body", "headers") for port in PORTS),
    ("datagrams", "gossip", 1000),
]


@pytest.mark.long
def test_five_thousand_idle_slow_and_greedy_clients_on_all_ports_cost_neither_the_leader_nor_half_of_the_writes(tmp_path: Path) -> None:
    with fort(tmp_path) as standing:
        course = standing.withstand(ALL_AT_ONCE, 5.0, lambda: a_peer_gets_in(standing))
        print(f"\n{course}")
        assert sum(did.get("connections", 0) for name, did in course.did.items() if name.startswith("idle")) >= 4 * IDLE


@pytest.mark.long
def test_thousands_of_calls_without_their_request_leave_grpc_answering(tmp_path: Path) -> None:
    with fort(tmp_path) as standing:
        course = standing.withstand(
            [("half-calls", "grpc", 10)], 5.0, lambda: wait_for(lambda: answers_grpc(standing), 30, "gRPC answers a new client")
        )
        print(f"\n{course}")
        assert course.did["half-calls grpc"]["calls"] > 0


def a_peer_gets_in(standing: Fort) -> None:
    """While strangers fill all ports, a member that was away comes back, and who asks is answered."""
    standing.third.kill()
    standing.third.start()
    standing.cluster.wait_whole(30)
    wait_for(lambda: delivered(standing) > 0, 30, "it catches up")
    wait_for(lambda: answers_http(standing), 30, "HTTP answers a new client")


def delivered(standing: Fort) -> int:
    return max((t["delivered"] for t in standing.third.status(local=True)["topics"]), default=0)


def answers_http(standing: Fort) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(standing.ports["http"], timeout=5) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(100).startswith(b"HTTP/1.1 200")
    return False


def answers_grpc(standing: Fort) -> bool:
    """The health check of a probe, and a write."""
    host, port = standing.ports["grpc"]
    with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(f"{host}:{port}") as channel:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        channel.unary_unary("/cluster.v1.Management/AppWrite")(b'{"op":"none"}', timeout=5)
        return True
    return False
