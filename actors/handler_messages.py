"""What a handler actor is asked: records to handle, reads and writes to answer, commands to apply, its state to write and to restore.

As in `room_messages`: data alone; what is made for every record is a slotted class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import attrs


class Deliver:
    """Ask a handler actor to handle records of one topic, in order. -> Delivered.

    records: [(seq, data, headers | None)]; index and time (seconds since the epoch) are of their batch; attempt counts from 1 for the first record.
    node: whose records they are; trace: the context in which it applied their entry, where that was traced. letters: they are dead letters, for
    `handle_dead_letter`.
    """

    __slots__ = ("attempt", "index", "letters", "node", "records", "time", "topic", "trace")

    def __init__(
        self,
        topic: str,
        records: list[tuple[int, bytes, dict[str, str] | None]],
        index: int,
        time: float,
        attempt: int = 1,
        node: str = "",
        trace: Any = None,
        letters: bool = False,
    ) -> None:
        self.topic, self.records, self.index, self.time, self.attempt = topic, records, index, time, attempt
        self.node, self.trace, self.letters = node, trace, letters


class Delivered:
    """How far a handler came: `count` records were handled; `error` is what the next one raised, None when all were."""

    __slots__ = ("count", "error")

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.count, self.error = count, error


@attrs.define(frozen=True)
class HandleWrite:
    """Ask a handler actor. trace: the context of the request, where somebody traces, and node: the node that asks."""

    op: str
    data: bytes
    trace: Any = None
    node: str = ""


@attrs.define(frozen=True)
class HandleRead:
    """As `HandleWrite`."""

    op: str
    data: bytes
    trace: Any = None
    node: str = ""


class HandleReads:
    """Ask a handler actor for many reads at once: (op, data, trace) each. -> a list with the bytes, or the HandlerFailed, of each."""

    __slots__ = ("node", "reads")

    def __init__(self, reads: list[tuple[str, bytes, Any]], node: str) -> None:
        self.reads, self.node = reads, node


@attrs.define(frozen=True)
class CommandSupport:
    """What a handler offers for commands: it overrides handle_apply, handle_snapshot, handle_restore; keeps: it has an `applied_index` of its own."""

    applies: bool = False
    snapshots: bool = False
    restores: bool = False
    keeps: bool = False


@attrs.define(frozen=True)
class BeginCommands:
    """Ask a handler actor: up to which command, of those of `node`, does your state go? -> the index, 0 for none."""

    node: str


@attrs.define(frozen=True)
class SetHandler:
    """Tell the publisher, and it the actors that deliver, which handler actor is in force (None: none), and what it does about commands."""

    ref: Any
    commands: CommandSupport = attrs.field(factory=CommandSupport)


@attrs.define(frozen=True)
class AwaitCommands:
    """Ask the publisher. -> True once this node's handler has handled the first `commands` commands of the log, at once where it handles none. Raises HandlerFailed
    where it cannot go on."""

    commands: int


class ApplyCommands:
    """Ask a handler actor to apply commands of `node`, in order: [(index, op, data)]. -> [(done, result)], one for each command that it came to: result is what
    `handle_apply` returned, or the text of what it raised. It may stop early to let its other messages through. trace: as in `Deliver`."""

    __slots__ = ("commands", "node", "trace")

    def __init__(self, node: str, commands: list[tuple[int, str, bytes]], trace: Any = None) -> None:
        self.node, self.commands, self.trace = node, commands, trace


@attrs.define(frozen=True)
class SnapshotCommands:
    """Ask a handler actor for its state as of the last command. directory: for a file of it; None: the system's place. -> WrittenState. Raises what
    `handle_snapshot` raises, OSError, ValueError."""

    directory: Path | None


@attrs.define(frozen=True)
class WrittenState:
    """Blocks of a handler's state (proto.command_state), each behind its length (4 bytes, big-endian), in `content`, which is the asker's to close. size: of
    the blocks."""

    content: IO[bytes]
    blocks: int
    size: int


@attrs.define(frozen=True)
class RestoreCommands:
    """Ask a handler actor to be what a snapshot of `node` says; it goes up to command `index`. -> True."""

    node: str
    index: int
    chunks: Iterator[bytes]
