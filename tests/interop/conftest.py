"""Fixtures: the built Go programs, and peers of both kinds that do not outlive their test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coterie.proto.gossip_security import Security
from tests.interop.our_gossip import GossipPeer
from tests.interop.our_raft import RaftPeer
from tests.interop.support import LinePeer, build_programs


@pytest.fixture(scope="session")
def programs() -> Path:
    return build_programs()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def go_server(programs: Path, stack: ExitStack) -> Callable[..., LinePeer]:
    """Starts a hashicorp/raft server; tls: the directory of its ca.pem, cert.pem and key.pem."""

    def start(name: str, tls: str = "") -> LinePeer:
        peer = LinePeer(name, programs / "quorum", "-id", name, "-tls", tls)
        stack.callback(peer.close)
        return peer

    return start


@pytest.fixture
def our_server(stack: ExitStack) -> Callable[..., RaftPeer]:
    """Starts a Raft server of ours; arguments as in `RaftPeer`."""

    def start(name: str, **options: object) -> RaftPeer:
        peer = RaftPeer(name, **options)  # type: ignore[arg-type]
        stack.callback(peer.close)
        return peer

    return start


@pytest.fixture
def go_member(programs: Path, stack: ExitStack) -> Callable[..., LinePeer]:
    """Starts a hashicorp/memberlist node."""

    def start(name: str, meta: str = "{}", bind: str = "127.0.0.1:0", key: str = "", label: str = "") -> LinePeer:
        peer = LinePeer(name, programs / "gossip", "-name", name, "-meta", meta, "-bind", bind, "-key", key, "-label", label)
        stack.callback(peer.close)
        return peer

    return start


@pytest.fixture
def go_asker(programs: Path, stack: ExitStack) -> Callable[[str], LinePeer]:
    """Starts a client of go-cluster's gRPC, in JSON, of the node at an address."""

    def start(address: str) -> LinePeer:
        peer = LinePeer("asker", programs / "asker", "-addr", address)
        stack.callback(peer.close)
        return peer

    return start


@pytest.fixture
def go_leader(programs: Path, stack: ExitStack) -> Callable[..., LinePeer]:
    """Starts a node that gossips and serves gRPC as a leader of go-cluster does; further arguments are its flags."""

    def start(name: str, *flags: str) -> LinePeer:
        peer = LinePeer(name, programs / "leader", "-name", name, *flags)
        stack.callback(peer.close)
        return peer

    return start


@pytest.fixture
def our_member(stack: ExitStack) -> Callable[..., GossipPeer]:
    """Starts a gossip member of ours in this process."""

    def start(name: str, meta: str = "{}", seeds: str = "", security: Security | None = None) -> GossipPeer:
        peer = GossipPeer(name, meta, seeds, security)
        stack.callback(peer.close)
        return peer

    return start


@pytest.fixture
def our_member_process(stack: ExitStack) -> Callable[..., LinePeer]:
    """Starts a gossip member of ours that can be killed."""

    def start(name: str, meta: str = "{}", seeds: str = "") -> LinePeer:
        peer = LinePeer(name, sys.executable, "-m", "tests.interop.our_gossip", name, meta, seeds)
        stack.callback(peer.close)
        return peer

    return start
