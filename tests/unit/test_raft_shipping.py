"""Snapshots over real sockets: in both forms, over TLS, from senders that stall, lie or go, and at the end of a node."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from coterie.actors.future import LightFuture
from coterie.actors.raft import shipping
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.ready import SendSnapshot, SnapshotToken
from coterie.actors.raft.shipping import Incoming, Outgoing
from coterie.actors.snapshot_messages import Snapshot, TakeSnapshot
from coterie.proto.raft_codec import encode_configuration, encode_request
from coterie.proto.raft_messages import (
    COMMAND,
    CONFIGURATION,
    GO_SNAPSHOT,
    OTHER_FORM,
    OWN_SNAPSHOT,
    Configuration,
    Entry,
    Header,
    RpcError,
    Server,
    SnapshotRequest,
    SnapshotResponse,
)
from coterie.transport.errors import DialError
from coterie.transport.limits import Counters
from coterie.transport.logs import Log
from coterie.transport.raft_conversation import ReplyHandle
from coterie.transport.raft_server import RaftServer
from coterie.transport.raft_snapshot import send_snapshot
from coterie.transport.tls import Tls
from tests.authority import Authority, Files
from tests.product.wait import wait_for

WAIT = 20.0
ME, YOU = Header("n1", "127.0.0.1:1"), Header("n2", "127.0.0.1:2")
CONFIG = encode_configuration(Configuration((Server("n1", "127.0.0.1:1"),)))


def request(size: int, version: int = OWN_SNAPSHOT) -> SnapshotRequest:
    return SnapshotRequest(ME, 3, 7, 1, CONFIG, 1, size, snapshot_version=version)


class Receiver:
    """A server that wants every snapshot (`wants` may say otherwise) and answers when it is whole."""

    def __init__(self, tls: Tls | None = None, wants: Callable[[SnapshotRequest], bool | RpcError | None] = lambda request: True) -> None:
        self.counts = Counters()
        self.got: list[bytes] = []
        self.refused: list[str] = []
        self.wants = wants
        self.incoming = Incoming(None, self._arrived, self.counts.add, Log("test"))
        self.server = RaftServer("127.0.0.1:0", self._on_request, on_snapshot_data=self.incoming.data, tls=tls)
        self.address = f"127.0.0.1:{self.server.port}"

    def _on_request(self, handle: ReplyHandle, message: Any) -> None:
        wanted = self.incoming.begins(handle, message)
        answer = self.wants(message)
        if isinstance(answer, RpcError):
            handle.reply(answer)
        if answer is not None:
            self.incoming.decided(wanted, answer is True)

    def _arrived(self, handle: ReplyHandle, request: SnapshotRequest, content: IO[bytes] | None, why: str) -> None:
        if content is None:
            self.refused.append(why)
            handle.reply(RpcError(why, SnapshotResponse(YOU, 3, False)))
            return
        with content:
            self.got.append(content.read())
        handle.reply(SnapshotResponse(YOU, 3, True))

    def close(self) -> None:
        self.incoming.close()
        self.server.close()


@contextmanager
def receiver(*arguments: Any, **more: Any) -> Iterator[Receiver]:
    one = Receiver(*arguments, **more)
    try:
        yield one
    finally:
        one.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- coming in --------------------------------------------------------------------------------------------------------------------


def test_a_snapshot_comes_whole_over_mutual_tls_and_strangers_bring_none(tmp_path: Path) -> None:
    authority, other = Authority(), Authority("other")
    sides = {
        name: Tls(Files(tmp_path / name, ca.pem, ca.issue(name)).settings, name, watch=False)
        for name, ca in (("n1", authority), ("n2", authority), ("stranger", other))
    }
    content = os.urandom(3 << 20)
    with receiver(sides["n2"]) as to:
        assert send_snapshot(to.address, request(len(content)), io.BytesIO(content), tls=sides["n1"]) == SnapshotResponse(YOU, 3, True)
        assert to.got == [content]
        with pytest.raises(DialError):
            send_snapshot(to.address, request(9), io.BytesIO(b"123456789"), 2.0, tls=sides["stranger"])
        with pytest.raises(DialError):
            send_snapshot(to.address, request(9), io.BytesIO(b"123456789"), 2.0)
        assert to.got == [content]


def test_a_silent_sender_makes_room_and_its_place_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "SILENCE", 0.0)
    with receiver() as to:
        before = open_files()
        silent = [socket.create_connection(("127.0.0.1", to.server.port), WAIT) for _ in range(shipping.MOST_INCOMING)]
        for sock in silent:
            sock.sendall(encode_request(request(100)) + b"begun")
        wait_for(
            lambda: sum(coming.file is not None for coming in to.incoming._coming.values()) == shipping.MOST_INCOMING, WAIT, "both begin"
        )
        assert send_snapshot(to.address, request(9), io.BytesIO(b"123456789")) == SnapshotResponse(YOU, 3, True)
        assert to.refused == ["nothing more of it came, and another one came"]
        assert to.counts.snapshot()["snapshots not kept"] == 1
        for sock in silent:
            sock.sendall(b"more" * 20 if sock is silent[0] else b"x")  # it is read to the end, and not kept
            sock.close()
        wait_for(lambda: not to.incoming._coming, WAIT, "nothing is kept of them")
        wait_for(lambda: open_files() <= before, WAIT, "no file stays open")


def test_those_that_go_on_keep_their_places() -> None:
    with receiver() as to:
        busy = [socket.create_connection(("127.0.0.1", to.server.port), WAIT) for _ in range(shipping.MOST_INCOMING)]
        for sock in busy:
            sock.sendall(encode_request(request(6)) + b"one")
        wait_for(
            lambda: sum(coming.file is not None for coming in to.incoming._coming.values()) == shipping.MOST_INCOMING, WAIT, "both begin"
        )
        answer = send_snapshot(to.address, request(9), io.BytesIO(b"123456789"))
        assert isinstance(answer, RpcError) and answer.error == f"{shipping.MOST_INCOMING} snapshots are coming in already"
        for sock in busy:
            sock.sendall(b"two")
        wait_for(lambda: to.got == [b"onetwo"] * shipping.MOST_INCOMING, WAIT, "both are whole")
        for sock in busy:
            sock.close()


def test_one_that_the_disk_has_no_room_for_is_refused_before_it_is_kept() -> None:
    with receiver() as to, socket.create_connection(("127.0.0.1", to.server.port), WAIT) as sock:
        sock.sendall(encode_request(request(1 << 60)) + b"begun")
        wait_for(lambda: to.refused, WAIT, "it is refused")
        assert f"it has {1 << 60} bytes" in to.refused[0]
        assert not to.incoming._coming


def test_a_connection_that_waits_for_the_actor_does_not_hold_up_the_end() -> None:
    """The end of the actor waits for the connections' threads, and they for its word."""
    to = Receiver(wants=lambda request: None)
    with socket.create_connection(("127.0.0.1", to.server.port), WAIT) as sock:
        sock.sendall(encode_request(request(100)) + b"begun")
        wait_for(lambda: to.incoming._coming, WAIT, "it has begun")
        began = time.monotonic()
        to.close()
        assert time.monotonic() - began < shipping.DECISION_PATIENCE / 2
    assert not to.incoming._coming


# -- going out --------------------------------------------------------------------------------------------------------------------


class Sender:
    """foreign: in which form its state machine gives snapshots first."""

    def __init__(self, foreign: bool = False) -> None:
        log = MemoryLog()
        log.append([Entry(1, 1, CONFIGURATION, CONFIG), *(Entry(index, 1, COMMAND, b"x") for index in range(2, 8))])
        self.foreign = foreign
        self.taken: list[IO[bytes]] = []
        self.told: list[tuple[str, SnapshotToken, int, Any]] = []
        self.ended = threading.Event()
        self.outgoing = Outgoing("n1", log, self._take, self._tell, Log("test"), None)

    def _take(self, question: TakeSnapshot) -> LightFuture:
        foreign = self.foreign is not question.other
        self.taken.append(io.BytesIO(b"{}" if foreign else b"frames"))
        future = LightFuture()
        future.set(Snapshot(7, 1, self.taken[-1], 2 if foreign else 6, foreign))
        return future

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        self.ended.set()

    def send(self, address: str) -> Any:
        self.outgoing.send(SendSnapshot("n2", address, SnapshotToken(1, 3)), ME)
        return self

    def outcome(self) -> tuple[str, SnapshotToken, int, Any]:
        assert self.ended.wait(WAIT)
        assert all(content.closed for content in self.taken)
        assert self.outgoing.under_way == 0
        return self.told[0]


@pytest.mark.parametrize("takes", [GO_SNAPSHOT, OWN_SNAPSHOT])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_follower_gets_the_form_that_it_takes_whatever_gossip_says(takes: int, foreign: bool) -> None:
    def wants(request: SnapshotRequest) -> bool | RpcError:
        version = request.snapshot_version
        return version == takes or RpcError(f"{OTHER_FORM} {version}", SnapshotResponse(YOU, 3, False))

    with receiver(wants=wants) as to:
        sender = Sender(foreign).send(to.address)
        assert sender.outcome() == ("n2", SnapshotToken(1, 3), 7, SnapshotResponse(YOU, 3, True))
        assert to.got == [b"{}" if takes == GO_SNAPSHOT else b"frames"]


def test_a_follower_that_answers_nothing_is_given_up() -> None:
    with receiver(wants=lambda request: None) as to:
        began = time.monotonic()
        with pytest.raises(DialError, match="gave no answer"):
            send_snapshot(to.address, request(9), io.BytesIO(b"123456789"), timeout=0.3)
        assert time.monotonic() - began < 5.0


def test_a_sender_that_is_cut_off_leaves_nothing_behind() -> None:
    with receiver() as to:
        before = open_files()
        with socket.create_connection(("127.0.0.1", to.server.port), WAIT) as sock:
            sock.sendall(encode_request(request(1 << 20)) + b"x" * 1000)
            wait_for(lambda: any(coming.file is not None for coming in to.incoming._coming.values()), WAIT, "it has begun")
        wait_for(lambda: to.counts.snapshot().get("snapshots cut off") == 1, WAIT, "its end is counted")
        wait_for(lambda: not to.incoming._coming and open_files() <= before, WAIT, "its file is gone")
        assert send_snapshot(to.address, request(9), io.BytesIO(b"123456789")) == SnapshotResponse(YOU, 3, True)


def test_who_takes_neither_form_is_not_asked_for_ever() -> None:
    with receiver(wants=lambda request: RpcError(f"{OTHER_FORM} {request.snapshot_version}", SnapshotResponse(YOU, 3, False))) as to:
        sender = Sender().send(to.address)
        assert isinstance(sender.outcome()[3], RpcError)
        assert len(sender.taken) == 2


def test_the_end_of_a_node_breaks_off_what_it_sends() -> None:
    with receiver(wants=lambda request: None) as to:
        sender = Sender().send(to.address)
        wait_for(lambda: to.incoming._coming, WAIT, "it is on its way")
        began = time.monotonic()
        sender.outgoing.close()
        assert sender.outcome() == ("n2", SnapshotToken(1, 3), 0, None)
        assert time.monotonic() - began < 5.0


def test_a_follower_that_cannot_be_reached_or_hangs_up_ends_a_sending_with_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        address = f"127.0.0.1:{closing.getsockname()[1]}"
        threading.Thread(target=lambda: socket.socket.close(closing.accept()[0]), daemon=True).start()
        assert Sender().send(address).outcome()[2:] == (0, None)
    assert Sender().send(address).outcome()[2:] == (0, None)
