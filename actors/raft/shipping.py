"""Snapshots in the shell: coming in from a leader, going out to a follower. What is in one is the state machine's affair; here it is bytes in a file.

**In.** The connection's own thread keeps what comes in a temporary file, once the core has said that it is wanted (until then that thread waits, and TCP with it). A
file that is whole is told to the actor, which asks the state machine to install it. At most `MOST_INCOMING` at once, none larger than the disk has room for: whoever
speaks Raft can begin one. One that has brought nothing for `SILENCE` makes room for the next.

**Out.** A thread for each follower that needs one: it asks the state machine for a snapshot, sends it over a connection of its own, and tells the actor how that
ended. A follower that needs another one while one is on its way gets the outcome of that. Which form a follower takes the gossip knows; where it does not, or is
wrong, the follower refuses the form before it stores anything, and gets the other.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Final

import attrs

from coterie.actors.disk.data_dir import room_in
from coterie.actors.errors import CoterieError
from coterie.actors.future import LightFuture
from coterie.actors.raft.log import RaftLog
from coterie.actors.raft.ready import SendSnapshot, SnapshotToken
from coterie.actors.snapshot_messages import Snapshot, TakeSnapshot
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import GO_SNAPSHOT, OTHER_FORM, OWN_SNAPSHOT, Header, Response, RpcError, SnapshotRequest
from coterie.proto.raft_stream import SnapshotData
from coterie.transport.errors import AddressError, DialError
from coterie.transport.logs import Log
from coterie.transport.raft_conversation import ReplyHandle
from coterie.transport.raft_snapshot import send_snapshot
from coterie.transport.stream import hang_up
from coterie.transport.tls import Tls

MOST_INCOMING: Final = 2
SILENCE: Final = 10.0  # seconds
DECISION_PATIENCE: Final = 10.0  # seconds until an incoming snapshot that the actor says nothing about is dropped
TAKE_PATIENCE: Final = 600.0  # seconds for the state machine to write one


@attrs.define
class _Coming:
    """lock: held while the file is written or closed; heard: when the last piece came, monotonic."""

    request: SnapshotRequest
    wanted: LightFuture
    file: IO[bytes] | None = None
    heard: float = 0.0
    lock: threading.Lock = attrs.field(factory=threading.Lock)


class Incoming:
    """tell(handle, request, file, error): a wanted snapshot is whole (`file` stands at its beginning), or could not be kept (`error` says why). directory: where
    the files are kept, None for the system's place."""

    def __init__(
        self,
        directory: Path | None,
        tell: Callable[[ReplyHandle, SnapshotRequest, IO[bytes] | None, str], object],
        count: Callable[[str], None],
        log: Log,
    ) -> None:
        self._directory, self._tell, self._count, self._log = directory, tell, count, log
        self._lock = threading.Lock()
        self._coming: dict[ReplyHandle, _Coming] = {}
        self._closed = False

    def close(self) -> None:
        """Nothing is wanted any more. Connections that wait for the actor's word wait no longer."""
        with self._lock:
            self._closed = True
            waiting = [coming.wanted for coming in self._coming.values()]
        for wanted in waiting:
            _decide(wanted, False)

    def begins(self, handle: ReplyHandle, request: SnapshotRequest) -> LightFuture:
        """In the connection's thread, before the request is told to the actor: the actor sets the future to whether the content is wanted."""
        wanted = LightFuture()
        with self._lock:
            self._coming[handle] = _Coming(request, wanted)
            closed = self._closed
        if closed:
            _decide(wanted, False)
        return wanted

    def decided(self, wanted: LightFuture, answer: bool) -> None:
        """In the actor's thread."""
        _decide(wanted, answer)

    def data(self, handle: ReplyHandle, data: SnapshotData | None) -> None:
        """In the connection's thread: the next piece; None when the connection ended before the last one."""
        coming = self._coming.get(handle)
        if coming is None:
            return
        if data is None:
            self._forget(handle)
            self._count("snapshots cut off")
            return
        try:
            if coming.file is None and not self._accept(handle, coming):
                return
            with coming.lock:
                if coming.file is None or coming.file.closed:
                    return  # it has made room for another
                coming.heard = time.monotonic()
                coming.file.write(data.chunk)
                if data.last:
                    coming.file.seek(0)
                    with self._lock:
                        self._coming.pop(handle, None)
        except OSError as error:
            self._refuse(handle, coming, f"the snapshot cannot be kept here: {error}")
            return
        if data.last:
            self._tell(handle, coming.request, coming.file, "")

    def _accept(self, handle: ReplyHandle, coming: _Coming) -> bool:
        """Wait for the actor's word; open the file. False: nobody wants it, or there is no room for it."""
        try:
            wanted = bool(coming.wanted.get(timeout=DECISION_PATIENCE))
        except Exception:  # noqa: BLE001 - the actor is stopping, or has stood still for long: then nobody wants it
            wanted = False
        if not wanted:
            self._forget(handle)
            return False
        size, room = coming.request.size, room_in(self._directory)
        if size > room:
            self._refuse(handle, coming, f"it has {size} bytes, and there is room for {room}; free space on the disk")
            return False
        self._make_room()
        with self._lock:
            if sum(other.file is not None for other in self._coming.values()) < MOST_INCOMING:
                coming.file = tempfile.TemporaryFile(dir=self._directory, prefix="snapshot-")  # noqa: SIM115 - it outlives this call
                coming.heard = time.monotonic()
                return True
        self._refuse(handle, coming, f"{MOST_INCOMING} snapshots are coming in already")
        return False

    def _make_room(self) -> None:
        """When all places are taken, one that is silent is put out: its sender was cut off, or only holds the place."""
        with self._lock:
            kept = [(handle, coming) for handle, coming in self._coming.items() if coming.file is not None]
        if len(kept) < MOST_INCOMING:
            return
        handle, coming = min(kept, key=lambda one: one[1].heard)
        if time.monotonic() - coming.heard >= SILENCE:
            self._refuse(handle, coming, "nothing more of it came, and another one came")

    def _refuse(self, handle: ReplyHandle, coming: _Coming, why: str) -> None:
        self._forget(handle)
        self._count("snapshots not kept")
        self._log.error("a snapshot of %s: %s", coming.request.header.id, why)
        self._tell(handle, coming.request, None, why)

    def _forget(self, handle: ReplyHandle) -> None:
        with self._lock:
            coming = self._coming.pop(handle, None)
        if coming is not None:
            with coming.lock:
                if coming.file is not None:
                    coming.file.close()


def _decide(wanted: LightFuture, answer: bool) -> None:
    """The first word counts: the actor's, or that of the end."""
    with contextlib.suppress(queue.Full):
        wanted.set(answer)


class Outgoing:
    """take(message) -> future: asks the state machine. tell(peer, token, index, answer): how a sending ended; None: no answer."""

    def __init__(
        self,
        name: str,
        log: RaftLog,
        take: Callable[[TakeSnapshot], LightFuture | None],
        tell: Callable[[str, SnapshotToken, int, Response | RpcError | None], object],
        notes: Log,
        tls: Tls | None,
    ) -> None:
        self._name, self._log, self._take, self._tell, self._notes, self._tls = name, log, take, tell, notes, tls
        self._lock = threading.Lock()
        self._latest: dict[str, SnapshotToken] = {}  # of each peer that one is on its way to, whose outcome is waited for
        self._sockets: dict[str, socket.socket] = {}
        self._closed = False

    def close(self) -> None:
        """Break off whatever is on its way."""
        with self._lock:
            self._closed = True
            sockets = list(self._sockets.values())
        for sock in sockets:
            hang_up(sock)

    def _opened(self, peer: str, sock: socket.socket) -> None:
        with self._lock:
            self._sockets[peer] = sock
            closed = self._closed
        if closed:
            raise ConnectionAbortedError("this server is stopping")

    @property
    def under_way(self) -> int:
        return len(self._latest)

    def send(self, wish: SendSnapshot, header: Header) -> None:
        """Begin; or take over the outcome of what is on its way to this peer already."""
        with self._lock:
            busy = wish.peer in self._latest
            self._latest[wish.peer] = wish.token
        if not busy:
            threading.Thread(target=self._run, args=(wish, header), name=f"{self._name}/raft-snapshot", daemon=True).start()

    def _run(self, wish: SendSnapshot, header: Header) -> None:
        index, answer = 0, None
        try:
            index, answer = self._send(wish, header)
        except (CoterieError, DialError, AddressError, OSError, TimeoutError) as error:
            self._notes.warning("a snapshot for %s at %s was not installed: %s", wish.peer, wish.address, error)
        except Exception:  # noqa: BLE001 - a bug here must not leave the follower waiting for ever
            self._notes.exception("a snapshot for %s at %s failed", wish.peer, wish.address)
        with self._lock:
            token = self._latest.pop(wish.peer)
            self._sockets.pop(wish.peer, None)
        self._tell(wish.peer, token, index, answer)

    def _send(self, wish: SendSnapshot, header: Header) -> tuple[int, Response | RpcError | None]:
        index, answer = self._send_form(wish, header, other=False)
        if isinstance(answer, RpcError) and answer.error.startswith(OTHER_FORM):
            self._notes.info("%s at %s takes snapshots in the other form", wish.peer, wish.address)
            index, answer = self._send_form(wish, header, other=True)
        if isinstance(answer, RpcError):
            self._notes.warning("%s at %s refused a snapshot: %s", wish.peer, wish.address, answer.error)
        return index, answer

    def _send_form(self, wish: SendSnapshot, header: Header, other: bool) -> tuple[int, Response | RpcError | None]:
        asked = self._take(TakeSnapshot(wish.peer, other))
        if asked is None:
            return 0, None
        taken: Snapshot = asked.get(timeout=TAKE_PATIENCE)
        with taken.content:
            at, configuration = self._log.configuration_before(taken.index + 1)
            request = SnapshotRequest(
                header,
                wish.token.term,
                taken.index,
                taken.term,
                encode_configuration(configuration),
                at,
                taken.size,
                tuple(server.address.encode() for server in configuration.voters()),
                GO_SNAPSHOT if taken.foreign else OWN_SNAPSHOT,
            )
            self._notes.info("sends %s a snapshot up to entry %d, %d bytes", wish.peer, taken.index, taken.size)
            opened = partial(self._opened, wish.peer)
            return taken.index, send_snapshot(wish.address, request, taken.content, tls=self._tls, opened=opened)
