"""The whole replicated state, from one node of ours to another: for a node whose leader is of go-cluster and sends a snapshot that tells only the roster.

`StateOfOthers` asks, in a thread of its own for each question, one node after the other, until one has a state that goes far enough; `numbering` says whom, and what
it means when nobody has. What comes is kept in a file, and looked at by whoever installs it. `StateForOthers` answers, from what is on this node's disk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from coterie.actors.disk.data_dir import room_in
from coterie.actors.errors import CoterieError
from coterie.actors.future import LightFuture
from coterie.actors.management.client import NodeClient
from coterie.actors.node.numbering import may_number, verdict
from coterie.actors.raft.log import RaftLog
from coterie.actors.replication.buffer import ReplicationBuffer
from coterie.actors.room_messages import Topology
from coterie.actors.snapshot_messages import (
    MakeDurable,
    NobodyNumbers,
    NoState,
    RosterSnapshot,
    StateEnd,
    StateFound,
    StateReach,
    TakeSnapshot,
    WholeState,
)
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import OTHER_FORM
from coterie.proto.roster import decode_document
from coterie.transport.logs import Log

REACH_PATIENCE: Final = 10.0  # seconds for the other node to say how far it is
SILENCE: Final = 120.0  # seconds without a further piece: the other node first writes all of its state to a file
LOOK: Final = 0.5  # seconds

Outcome = StateFound | NobodyNumbers | NoState


class StateOfOthers:
    """topology: the latest. directory: for the file; None: the system's place."""

    def __init__(self, node: str, client: NodeClient, topology: Callable[[], Topology], directory: Path | None) -> None:
        self._node, self._client, self._topology, self._directory = node, client, topology, directory
        self._log = Log(f"coterie.{node}.raft", node, "raft")

    def __call__(self, snapshot: RosterSnapshot, then: Callable[[Outcome], object]) -> None:
        """then: called once, in another thread."""
        threading.Thread(target=lambda: then(self._outcome(snapshot)), name=f"{self._node}/state-of-others", daemon=True).start()

    def _outcome(self, snapshot: RosterSnapshot) -> Outcome:
        try:
            return self._ask(snapshot)
        except WireError as problem:
            return NoState(f"the snapshot of {snapshot.sender} is no roster of go-cluster: {problem}", waits=False)
        except OSError as problem:
            return NoState(f"there is no file for it: {problem}")
        except Exception as error:  # noqa: BLE001 - a bug here must not leave the server without an answer
            self._log.exception("the state of the other nodes could not be asked for")
            return NoState(f"it could not be asked for: {error}")

    def _ask(self, snapshot: RosterSnapshot) -> Outcome:
        topology = self._topology()
        if topology.makes.get(snapshot.sender):
            return NoState(f"{OTHER_FORM} 1: {snapshot.sender} is a node of coterie, and has the other form", waits=False)
        heard: dict[str, StateReach | str] = {}
        for name in may_number(self._node, snapshot.servers, decode_document(snapshot.document), topology.makes):
            address = topology.grpc_addr.get(name, "")
            said = self._from(name, address, snapshot.index) if address else "is not there"
            if isinstance(said, StateFound):
                return said
            heard[name] = said
        return verdict(snapshot.index, heard)

    def _from(self, name: str, address: str, at_least: int) -> StateFound | StateReach | str:
        content = tempfile.TemporaryFile(dir=self._directory, prefix="state-")  # noqa: SIM115 - a state that is whole is the asker's to close
        coming = _Coming(content, room_in(self._directory))
        ended = threading.Event()

        def closed(error: Exception | None) -> None:
            coming.trouble = coming.trouble or (str(error) if error is not None else "")
            ended.set()

        try:
            stream = self._client.state(address, at_least, coming.take, closed)
            while not ended.wait(LOOK):
                if time.monotonic() - coming.heard > (SILENCE if coming.reach is not None else REACH_PATIENCE) or coming.trouble:
                    stream.close()
                    coming.trouble = coming.trouble or "fell silent"
                    break
        except CoterieError as error:
            coming.trouble = str(error)
        end = coming.whole()
        if end is not None:
            return StateFound(name, content, end.index, end.term, end.configuration_index, end.configuration)
        content.close()
        if coming.reach is not None and coming.reach.applied < at_least:
            return coming.reach
        return f"at {address} did not give it: {coming.trouble or 'it broke off'}"


class _Coming:
    """What has come of one state. room: bytes that there are for it."""

    def __init__(self, content: IO[bytes], room: int) -> None:
        self.heard = time.monotonic()
        self.reach: StateReach | None = None
        self.trouble = ""
        self._content, self._room, self._size = content, room, 0
        self._end: StateEnd | None = None

    def take(self, part: StateReach | StateEnd | bytes) -> None:
        """In the stream's thread."""
        self.heard = time.monotonic()
        if self.trouble:
            return
        if isinstance(part, StateReach):
            self.reach = part
        elif isinstance(part, StateEnd):
            self._end = part
            if part.size > self._room:
                self.trouble = f"it has {part.size} bytes, and there is room for {self._room}; free space on the disk"
        else:
            self._size += len(part)
            try:
                self._content.write(part)
            except (OSError, ValueError) as error:  # ValueError: it was given up, and the file is closed
                self.trouble = str(error)

    def whole(self) -> StateEnd | None:
        """None where it is not all of it."""
        if self._end is None or self.trouble or self._size != self._end.size:
            return None
        self._content.seek(0)
        return self._end


class StateForOthers:
    """ask: asks the publisher, None while there is none."""

    def __init__(self, node: str, log: RaftLog, buffer: ReplicationBuffer, ask: Callable[[Any], LightFuture | None]) -> None:
        self._node, self._log, self._buffer, self._ask = node, log, buffer, ask

    def reach(self) -> LightFuture:
        """-> StateReach."""
        return self._then(MakeDurable(), self._reach)

    def _reach(self, applied: int) -> StateReach:
        return StateReach(applied, not applied and not self._log.last_index and not self._buffer.load().topics)

    def whole(self) -> LightFuture:
        """-> WholeState."""
        return self._then(TakeSnapshot(self._node), self._whole)

    def _whole(self, taken: Any) -> WholeState:
        index, configuration = self._log.configuration_before(taken.index + 1)
        return WholeState(taken, index, encode_configuration(configuration))

    def _then(self, question: Any, made: Callable[[Any], Any]) -> LightFuture:
        reply, asked = LightFuture(), self._ask(question)

        def answered(asked: LightFuture) -> None:
            try:
                reply.set(made(asked.get(timeout=0)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the asker hears it
                reply.fail(error)

        if asked is None:
            reply.fail(CoterieError("this node is still starting, and has no state to give yet"))
        else:
            asked.on_done(lambda: answered(asked))
        return reply
