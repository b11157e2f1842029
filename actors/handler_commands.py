"""Commands at the handler: what it offers, and how a batch of them is applied.

Whatever `handle_apply` raises or returns is the command's outcome, the same on every node as long as the handler is deterministic; a command is never given twice
because it failed. A batch ends early after `BURST` seconds, so that deliveries, writes and reads get their turn beside slow commands.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from coterie.actors.dead_letters import describe
from coterie.actors.errors import HandlerFailed
from coterie.actors.handler_messages import CommandSupport, SnapshotCommands, WrittenState
from coterie.proto.command_state import chunk_blocks

BURST: Final = 0.05  # seconds
MOST_TEXT: Final = 1000  # characters of an error

_LENGTH = struct.Struct(">I")


def support_of(handler: Any, base: type) -> CommandSupport:
    """What `handler` overrides of `base`'s methods, in its class or in itself."""

    def overrides(name: str) -> bool:
        return getattr(getattr(handler, name), "__func__", None) is not getattr(base, name)

    return CommandSupport(*(overrides(name) for name in ("handle_apply", "handle_snapshot", "handle_restore", "applied_index")))


def apply_commands(handle: Callable[[int, str, bytes], Any], commands: list[tuple[int, str, bytes]]) -> list[tuple[bool, bytes]]:
    """Apply commands in order; the outcomes of those that it came to."""
    until = time.monotonic() + BURST
    outcomes: list[tuple[bool, bytes]] = []
    for index, op, data in commands:
        try:
            answer = handle(index, op, data)
            if answer.__class__ is not bytes:
                answer = _as_bytes(op, answer)
        except BaseException as error:  # noqa: BLE001 - the application's code: what it raises is the outcome, and goes to the proposer
            outcomes.append((False, _text(op, error).encode(errors="replace")))
        else:
            outcomes.append((True, answer))
        if time.monotonic() >= until:
            break
    return outcomes


def write_state(chunks: Iterable[bytes], message: SnapshotCommands) -> WrittenState:
    """Raises OSError, ValueError, and whatever the handler raises on its way."""
    content = tempfile.TemporaryFile(dir=message.directory, prefix="state-")  # noqa: SIM115 - it is the asker's to close
    blocks = size = 0
    try:
        for block in chunk_blocks(chunks):
            content.write(_LENGTH.pack(len(block)) + block)
            blocks += 1
            size += len(block)
        content.seek(0)
    except BaseException:
        content.close()
        raise
    return WrittenState(content, blocks, size)


def _as_bytes(op: str, answer: Any) -> bytes:
    if answer is None:
        return b""
    if isinstance(answer, (bytes, bytearray, memoryview)):
        return bytes(answer)
    raise HandlerFailed(f"handle_apply({op!r}) returned {type(answer).__name__}; it must return bytes or None")


def _text(op: str, error: BaseException) -> str:
    if isinstance(error, HandlerFailed):
        return str(error)[:MOST_TEXT]
    return f"handle_apply({op!r}) raised {describe(error)}"
