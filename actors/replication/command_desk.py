"""The proposers of commands on this node, from the request to the result.

    Apply ──► a record of the topic `coterie.commands` ──► log ──► this node's handler ──► outcome, by the ticket in the record ──► proposer

The result of a command is what the proposer's own node's handler returned, so no result travels; and since the record says whose it is, it arrives also when the
answer of the log is lost: a leader dies, the next one has the entry, and the handler here applies it. Only what no outcome comes of by its deadline is
Indeterminate. A command with a session, which is applied once however often it is proposed, is proposed again meanwhile.

Runs in the publisher's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coterie.actors.errors import (
    AlreadyApplied,
    CoterieError,
    HandlerFailed,
    Indeterminate,
    InvalidRequest,
    Overloaded,
    SessionExpired,
)
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import CommandSupport, SetHandler
from coterie.actors.messages import Applied, Apply, Published
from coterie.actors.replication.messages import APPLIED, EXPIRED, FAILED, CommandsHandled, CommandsUnable
from coterie.actors.replication.packing import record_size
from coterie.actors.replication.requests import check_command, check_timeout, too_large
from coterie.actors.replication.waiting import Waiting
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.proto.command import encode_command
from coterie.proto.record_batch import Record

MARGIN: Final = 0.1  # seconds: what is left of a deadline below this is not worth another try


class Asked:
    """A command of this node under way; stands for its proposer's future in the queue. deadline: monotonic; placed: its entry is committed."""

    __slots__ = ("deadline", "desk", "future", "placed", "record", "session", "ticket", "trouble")

    def __init__(self, desk: CommandDesk, ticket: int, future: LightFuture, deadline: float, record: Record, session: str | None) -> None:
        self.desk, self.ticket, self.future, self.deadline, self.record, self.session = desk, ticket, future, deadline, record, session
        self.placed = 0
        self.trouble: CoterieError | None = None

    @property
    def done(self) -> bool:
        return self.future.done

    def set(self, published: Published) -> None:
        """The log has it; its outcome comes from the handler."""
        self.placed = published.index

    def fail(self, error: CoterieError) -> None:
        self.desk.failed(self, error)


class CommandDesk:
    """origin: what tells this node's proposals of this life from all others. timeout: of a command that names none, seconds."""

    def __init__(self, waiting: Waiting, origin: bytes, timeout: float, max_payload: int, clock: Callable[[], float]) -> None:
        self._waiting, self._origin, self._timeout, self._max_payload, self._clock = waiting, origin, timeout, max_payload, clock
        self._asked: dict[int, Asked] = {}
        self._ticket = 0
        self._next_deadline: float | None = None
        self._closed = False
        self._support: CommandSupport | None = None
        self._trouble: CoterieError | None = None

    @property
    def origin(self) -> bytes:
        return self._origin

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def set_handler(self, message: SetHandler) -> None:
        """What the handler in force does about commands."""
        self._support = message.commands if message.ref is not None else None

    def ask(self, message: Apply, reply: LightFuture | None, headers: dict[str, str] | None = None) -> None:
        """Take a command in. headers: of its record, for its trace. Raises InvalidRequest, PayloadTooLarge, HandlerFailed (no handler here gives it a result),
        Overloaded."""
        data = check_command(message)
        if len(data) > self._max_payload:
            raise too_large(COMMANDS_TOPIC, len(data), self._max_payload)
        if self._support is None:
            raise InvalidRequest(
                f"op={message.op!r}: no handler is registered on this node, which gives a command its result; register one"
            )
        if not self._support.applies:
            raise HandlerFailed(f"op={message.op!r}: the handler on this node does not override handle_apply; the command was not applied")
        if self._trouble is not None:
            raise HandlerFailed(f"op={message.op!r}: the command was not applied, for this node's handler takes none: {self._trouble}")
        timeout = check_timeout(message.timeout, self._timeout)
        self._ticket += 1
        record: Record = encode_command(message.op, data, self._origin, self._ticket, message.session, message.number or 0)
        if headers is not None:
            record = [record, None, headers]
        if reply is None:
            self._waiting.add_command(record, record_size(record), timeout, None)
            return
        asked = Asked(self, self._ticket, reply, self._clock() + timeout, record, message.session)
        self._waiting.add_command(record, record_size(record), timeout, asked)
        self._asked[self._ticket] = asked
        if self._next_deadline is None or asked.deadline < self._next_deadline:
            self._next_deadline = asked.deadline

    def handled(self, message: CommandsHandled) -> None:
        """This node's handler has had commands of this node."""
        for ticket, index, code, result in message.outcomes:
            asked = self._asked.pop(ticket, None)
            if asked is None or asked.future.done:
                continue
            if code == APPLIED:
                asked.future.set(Applied(index, result))
            else:
                asked.future.fail(_error(code, result))

    def unable(self, message: CommandsUnable) -> None:
        """Whether the handler here gives results."""
        self._trouble = message.error
        if message.error is not None:
            self._give_up(message.error)

    def _give_up(self, reason: CoterieError) -> None:
        asked, self._asked = self._asked, {}
        for one in asked.values():
            _fail(one, Indeterminate(f"the command may be applied, and its result is not known here: {reason}"))

    def failed(self, asked: Asked, error: CoterieError) -> None:
        """The log did not take it, or nobody knows whether it did."""
        left = asked.deadline - self._clock()
        if not isinstance(error, Indeterminate):
            if self._asked.pop(asked.ticket, None) is not None:
                _fail(asked, asked.trouble or error)
            return
        asked.trouble = error
        if asked.session is not None and left > MARGIN and not self._closed:
            try:
                self._waiting.add_command(asked.record, record_size(asked.record), left, asked)
            except Overloaded:
                return  # the first try may still come through

    def expire(self, now: float) -> None:
        """End what is past its deadline."""
        if self._next_deadline is None or now < self._next_deadline:
            return
        for asked in [asked for asked in self._asked.values() if asked.deadline <= now]:
            del self._asked[asked.ticket]
            _fail(asked, _late(asked))
        self._next_deadline = min((asked.deadline for asked in self._asked.values()), default=None)

    def stop(self) -> None:
        self._closed = True
        self._give_up(Indeterminate("the node stopped before the outcome was known"))


def _late(asked: Asked) -> CoterieError:
    if asked.placed:
        return Indeterminate(
            f"the command is committed (entry {asked.placed}) and takes effect; this node's handler has not come to it within the deadline"
        )
    return asked.trouble or Indeterminate("no outcome within the deadline: the command may or may not take effect")


def _error(code: int, result: bytes) -> CoterieError:
    text = result.decode(errors="replace")
    if code == FAILED:
        return HandlerFailed(text)
    return SessionExpired(text) if code == EXPIRED else AlreadyApplied(text)


def _fail(asked: Asked, error: CoterieError) -> None:
    if not asked.future.done:
        asked.future.fail(error)
