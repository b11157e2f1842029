"""A command on its way through the log: the data of one record of the topic `coterie.commands` (docs/formats.md, "Command").

    command = [1, op, data, origin, ticket]                              without a session
            | [1, op, data, origin, ticket, session, number]             msgpack, new family; 1 is the format

origin: eight bytes by which the node that proposed it knows its own again, new with each start of it; ticket: which of its proposals it is. So the proposer gets
its result from its own handler, whatever became of the answer of a leader that died meanwhile.

A command of a later format is an `UnknownCommand`: a node that skipped it would go on with another state than the others.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgpack

from coterie.proto.errors import WireError
from coterie.proto.record_batch import MAX_NAME

FORMAT: Final = 1
ORIGIN_BYTES: Final = 8
MAX_NUMBER: Final = (1 << 63) - 1
OVERHEAD: Final = 2 * MAX_NAME + 64  # bytes that a command has beyond its data, at most


class UnknownCommand(WireError):
    """Of a format that this version does not know."""


class Command(NamedTuple):
    op: str
    data: bytes
    origin: bytes = b""
    ticket: int = 0
    session: str | None = None
    number: int = 0


def encode_command(op: str, data: bytes, origin: bytes, ticket: int, session: str | None = None, number: int = 0) -> bytes:
    """The caller has checked them."""
    values: list[Any] = [FORMAT, op, data, origin, ticket]
    if session is not None:
        values += (session, number)
    packed: bytes = msgpack.packb(values, use_bin_type=True)
    return packed


def decode_command(data: bytes) -> Command:
    """WireError for what is no command; the verdict depends on the bytes alone, so it is every node's."""
    try:
        values = msgpack.unpackb(data, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"command: {error or type(error).__name__}") from None
    if values.__class__ is not list or not values:
        raise WireError("command: an array is wanted")
    if values[0] != FORMAT or values[0].__class__ is not int:
        if values[0].__class__ is int and values[0] > FORMAT:
            raise UnknownCommand(f"command: format {values[0]}; this version knows {FORMAT}")
        raise WireError(f"command: format {values[0]!r:.40}")
    shape = [value.__class__ for value in values[1:]]
    if shape not in ([str, bytes, bytes, int], [str, bytes, bytes, int, str, int]):
        raise WireError("command: it is [format, op, data, origin, ticket] and perhaps session and number")
    command = Command(*values[1:])
    if not 1 <= len(command.op.encode()) <= MAX_NAME or len(command.origin) != ORIGIN_BYTES or command.ticket < 0:
        raise WireError("command: op, origin or ticket is out of range")
    if command.session is not None and not (1 <= len(command.session.encode()) <= MAX_NAME and 1 <= command.number <= MAX_NUMBER):
        raise WireError("command: session or number is out of range")
    return command
