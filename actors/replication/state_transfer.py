"""The state machine as a whole: taken as a snapshot, replaced by one, and how much of it is sure to survive. The publisher's side of `snapshots`.

A snapshot is taken in a thread of its own, from the buffer, as of what the buffer's writer has stored. It may be behind what is applied by some
milliseconds; Raft is told where it ends.

An installation is the buffer writer's work, in its one thread: whatever it was given before is stored first, then the snapshot takes the place of it all in one
transaction, and is synced. Meanwhile the publisher keeps what is committed (`held`). When it is done the state machine becomes that of the snapshot, in place,
and delivery hears how far each topic is now.

Of a snapshot of go-cluster only the roster is installed (`roster_snapshot`), and delivery hears of which entries nothing else is known.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from coterie.actors.disk.data_dir import room_in
from coterie.actors.errors import CoterieError, InvalidRequest
from coterie.actors.future import LightFuture
from coterie.actors.replication.buffer import ReplicationBuffer
from coterie.actors.replication.messages import MakeSafe, Restore, RestoreRoster
from coterie.actors.replication.snapshots import Content, document, dump
from coterie.actors.room_messages import Committed
from coterie.actors.snapshot_messages import InstallRoster, InstallSnapshot, Snapshot

BUSY: Final = "another snapshot is being installed"


class Installed:
    """The publisher tells itself that the buffer's writer is done with a snapshot."""

    __slots__ = ("settle",)

    def __init__(self, settle: Callable[[], None]) -> None:
        self.settle = settle


class StateTransfer:
    """writer: the buffer writer's reference. directory: for the files of snapshots that are taken; None: the system's place. post: into the publisher's inbox.
    settled(content, unknown): called in its thread when an installation has ended; None: nothing was changed.
    unknown: (first, last) of the entries whose records the snapshot did not tell."""

    def __init__(
        self,
        node: str,
        buffer: ReplicationBuffer,
        writer: Any,
        directory: Path | None,
        post: Callable[[Installed], object],
        settled: Callable[[Content | None, tuple[int, int] | None], None],
    ) -> None:
        self._node, self._buffer, self._writer, self._directory, self._post, self._settled = node, buffer, writer, directory, post, settled
        self.installing = False
        self.held: list[Committed] = []

    def take(self, foreign: bool, reply: LightFuture) -> None:
        """Resolve `reply` with a Snapshot, some time later. foreign: for a node of go-cluster, whose state is the roster's document and nothing else."""
        threading.Thread(target=self._take, args=(foreign, reply), name=f"{self._node}/snapshot", daemon=True).start()

    def _take(self, foreign: bool, reply: LightFuture) -> None:
        content = None
        try:
            content = tempfile.TemporaryFile(dir=self._directory, prefix="snapshot-")  # noqa: SIM115 - it is the taker's to close
            index, term = document(self._buffer, content) if foreign else dump(self._buffer, content, room_in(self._directory))
            size = content.tell()
            content.seek(0)
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker hears it
            if content is not None:
                content.close()
            reply.fail(error)
            return
        reply.set(Snapshot(index, term, content, size, foreign))

    def make_durable(self, reply: LightFuture) -> None:
        """Resolve `reply` with the applied index that is sure to survive."""
        asked: LightFuture = self._writer.ask(MakeSafe(), block=False)
        asked.on_done(lambda: reply.fail(asked.error) if asked.error is not None else reply.set(asked.get()))

    def install(self, request: InstallSnapshot, applied: int, reply: LightFuture) -> None:
        """applied: where the state machine is; what it has already is not installed, and is no failure."""
        if request.index <= applied:
            request.content.close()
            reply.set(True)
            return
        if self.installing:
            request.content.close()
            reply.fail(InvalidRequest(BUSY))
            return
        reply.on_done(request.content.close)
        self._ask_writer(Restore(request.content, (request.index, request.term), request.mark), None, reply)

    def install_roster(self, request: InstallRoster, applied: int, reply: LightFuture) -> None:
        """applied: as for `install`."""
        if request.index <= applied:
            reply.set(True)
        elif self.installing:
            reply.fail(InvalidRequest(BUSY))
        elif applied < request.after:
            reply.fail(
                InvalidRequest(f"entries up to {request.after} are in the log here, and applied up to {applied}: again when they are")
            )
        else:
            unknown = (applied + 1, request.index)
            self._ask_writer(RestoreRoster(request.document, (request.index, request.term), request.mark), unknown, reply)

    def _ask_writer(self, question: Restore | RestoreRoster, unknown: tuple[int, int] | None, reply: LightFuture) -> None:
        self.installing = True
        asked: LightFuture = self._writer.ask(question, block=False)
        asked.on_done(lambda: self._post(Installed(partial(self._installed, unknown, reply, asked))))

    def _installed(self, unknown: tuple[int, int] | None, reply: LightFuture, asked: LightFuture) -> None:
        self.installing = False
        self._settled(None if asked.error is not None else asked.get(), unknown)
        if asked.error is not None:
            reply.fail(asked.error if isinstance(asked.error, CoterieError) else InvalidRequest(str(asked.error)))
        else:
            reply.set(True)
