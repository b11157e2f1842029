"""The handler's state in the buffer: when a snapshot of it is due, how one is kept, and what it gives back.

The handler writes its chunks into a file, in its own thread; the buffer's writer takes them from there, behind the rows of the sessions, and puts them in the
place of the snapshot before, in one transaction. Until that is done nothing is trimmed that the older one needs. Runs in the thread of the commands' delivery.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from coterie.actors.dead_letters import describe
from coterie.actors.errors import StorageError
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import SnapshotCommands, WrittenState
from coterie.actors.replication.buffer import NewState, ReplicationBuffer, StateHead
from coterie.actors.replication.messages import KeepState
from coterie.actors.replication.session_rows import row_of, values_of
from coterie.actors.replication.sessions import Row, Sessions
from coterie.proto.command_state import CHUNKS, ROWS, decode_block, row_blocks
from coterie.proto.errors import WireError

_LENGTH = struct.Struct(">I")


class Replaced(Exception):
    """Another state has taken the place of the one that is being read."""


class HandlerState:
    """head: of what is kept, None for nothing. every, most_bytes: so many commands, or bytes of them, are given to the handler between two snapshots. directory: for
    files; None: the system's place."""

    def __init__(self, buffer: ReplicationBuffer, writer: Any, directory: Path | None, every: int, most_bytes: int) -> None:
        self._buffer, self._writer, self._directory, self._every, self._most_bytes = buffer, writer, directory, every, most_bytes
        self.head = buffer.state_head()
        self.trouble = ""
        self.keeping = False
        self._tried = 0
        self._bytes = 0

    @property
    def index(self) -> int:
        """The last command in what is kept."""
        return self.head.index if self.head is not None else 0

    def look(self) -> None:
        """The buffer may hold another one now."""
        head = self._buffer.state_head()
        if head is not None and head.index >= self.index:
            self.head = head

    def given(self, size: int) -> None:
        """The handler has had so many bytes of commands."""
        self._bytes += size

    def due(self, position: int) -> SnapshotCommands | None:
        """What to ask the handler for, now that it has had the commands up to `position`."""
        behind = position - max(self.index, self._tried)
        if self.keeping or behind <= 0 or (behind < self._every and self._bytes < self._most_bytes):
            return None
        self._tried, self._bytes = position, 0
        return SnapshotCommands(self._directory)

    def ahead(self, position: int) -> bool:
        """Whether what is kept, which then came from another node, spares a handler at `position` more commands than lie between two snapshots."""
        return self.index - position >= self._every

    def failed(self, error: BaseException) -> str:
        """The handler could not, or the disk. -> what to say."""
        self.trouble = f"handle_snapshot fails, so that all commands after number {self.index} are kept: {describe(error)}"
        return self.trouble

    def keep(self, written: WrittenState, position: int, log_index: int, sessions: Sessions, then: Callable[[LightFuture], object]) -> None:
        """Have what the handler has written stored. then: as `kept`, called in any thread with the writer's answer."""
        rows = list(row_blocks(map(values_of, sessions.rows())))
        head = StateHead(position, log_index, len(rows) + written.blocks, sum(map(len, rows)) + written.size)
        self._store(NewState(head, _Blocks(rows, written.content)), written.content, then)

    def keep_other(self, head: StateHead, written: WrittenState, then: Callable[[LightFuture], object]) -> None:
        """Have what another node gave stored, as `keep`."""
        self._store(NewState(head, _Blocks([], written.content)), written.content, then)

    def _store(self, new: NewState, content: IO[bytes], then: Callable[[LightFuture], object]) -> None:
        self.keeping = True
        asked: LightFuture = self._writer.ask(KeepState(new), block=False)

        def done() -> None:
            content.close()
            then(asked)

        asked.on_done(done)

    def kept(self, asked: LightFuture) -> None:
        """The writer has answered."""
        self.keeping = False
        if asked.error is None:
            self.trouble = ""
            self.look()

    def sessions(self) -> Sessions:
        """What was remembered as of the state. Raises Replaced, StorageError."""
        assert self.head is not None
        rows: list[Row] = []
        for kind, items in self._blocks(self.head):
            if kind != ROWS:
                break
            rows += map(row_of, items)
        return Sessions(rows, self.index)

    def chunks(self) -> Iterator[bytes]:
        """What `handle_snapshot` gave. Raises Replaced, StorageError."""
        assert self.head is not None
        for kind, items in self._blocks(self.head):
            if kind == CHUNKS:
                yield from items

    def _blocks(self, head: StateHead) -> Iterator[tuple[int, list[Any]]]:
        """One short read for each, so that a handler may take its time."""
        for number in range(head.blocks):
            block = self._buffer.block(head.index, number)
            if block is None:
                raise Replaced(f"the state as of command {head.index} was replaced while it was read")
            try:
                yield decode_block(block)
            except WireError as error:  # it was valid when it was stored
                raise StorageError(f"block {number} of the handler's state in the buffer is not readable: {error}") from None


class _Blocks:
    """Rows, then what a handler has written; as often as they are asked for."""

    def __init__(self, rows: list[bytes], content: IO[bytes]) -> None:
        self._rows, self._content = rows, content

    def __iter__(self) -> Iterator[bytes]:
        yield from self._rows
        self._content.seek(0)
        while head := self._content.read(_LENGTH.size):
            yield self._content.read(_LENGTH.unpack(head)[0])
