"""The commands of the log, on their way through one node's handler: which of them it gets, and what came of each.

    records ──decide──► steps ──given──► the handler ──settle──► answers, for those that were proposed here

A pure function of the log and of what the handler makes of its commands. Each record is decided once, in log order: a command without a session is given to
the handler; one of a session is given when it is new (`sessions`); one that was applied before has the outcome of its first try; an expired one has none. What
is no command at all is passed over. All of them count: a command's index is the place of its record among all, and `position` is the index up to which
everything is behind us.

had: the handler says that its own state goes up to there. Commands up to it are decided, since later ones rest on that, and not given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from coterie.actors.replication.messages import APPLIED, EXPIRED, FAILED, FORGOTTEN
from coterie.actors.replication.sessions import Outcome, Row, Sessions
from coterie.proto.command import Command, UnknownCommand, decode_command
from coterie.proto.errors import WireError

Answer = tuple[int, int, int, bytes]  # ticket, index, code, result or text


class Step(NamedTuple):
    """A record that was decided. command: None for what is none; row: its session's, None without one; again: it was applied before; given: it is for the
    handler."""

    index: int  # type: ignore[assignment]  # the command's; tuple.index() is never wanted here
    command: Command | None
    row: Row | None
    again: bool
    given: bool


class Commands:
    """origin: what this node's own commands carry. counters: shown in the status."""

    def __init__(self, origin: bytes) -> None:
        self._origin = origin
        self.position = 0
        self.sessions = Sessions()
        self.answers: list[Answer] = []  # since the last look at them
        self.rows: list[Row] = []  # rows that were settled since then
        self.counters = {"commands_failed": 0, "commands_repeated": 0, "commands_expired": 0, "commands_malformed": 0}
        self._had = 0
        self._steps: deque[Step] = deque()

    def begin(self, position: int, sessions: Sessions, had: int) -> None:
        """Go on behind `position`, where `sessions` is what was remembered there."""
        self.position, self.sessions, self._had = position, sessions, had
        self._steps.clear()

    @property
    def undecided(self) -> bool:
        """Whether everything that was decided is settled, and more may be."""
        return not self._steps

    def decide(self, records: Iterable[tuple[int, bytes, object]]) -> None:
        """The next records, (index, data, headers) in order. Raises UnknownCommand at one of a later version: what was before it is decided."""
        for index, data, _ in records:
            try:
                command = decode_command(data)
            except UnknownCommand:
                if not self._steps:
                    raise
                return
            except WireError:
                self.counters["commands_malformed"] += 1
                self._steps.append(Step(index, None, None, False, False))
                continue
            self._steps.append(self._decided(index, command))

    def given(self) -> list[tuple[int, str, bytes]]:
        """What the handler is to apply now, (index, op, data); what is before it and not for the handler is passed."""
        self._pass_over()
        return [(step.index, step.command.op, step.command.data) for step in self._steps if step.given and step.command is not None]

    def settle(self, outcomes: Iterable[tuple[bool, bytes]]) -> None:
        """What came of as many of the given commands, in order."""
        for outcome in outcomes:
            self._pass_over()
            self._pass(Outcome(*outcome))
        self._pass_over()

    def _decided(self, index: int, command: Command) -> Step:
        given = index > self._had
        if command.session is None:
            return Step(index, command, None, False, given)
        row, again = self.sessions.decide(index, command.session, command.number)
        self.counters["commands_repeated"] += again
        self.counters["commands_expired"] += row is None
        return Step(index, command, row, again, given and row is not None and not again)

    def _pass_over(self) -> None:
        while self._steps and not self._steps[0].given:
            self._pass(None)

    def _pass(self, outcome: Outcome | None) -> None:
        step = self._steps.popleft()
        self.position = step.index
        if step.row is not None and not step.again:
            step.row.settle(outcome)
            self.rows.append(step.row)
        if outcome is not None and not outcome.done:
            self.counters["commands_failed"] += 1
        command = step.command
        if command is not None and command.origin == self._origin:
            self.answers.append((command.ticket, *_answer(step, command, outcome)))


def _answer(step: Step, command: Command, outcome: Outcome | None) -> tuple[int, int, bytes]:
    """(index, code, result or text)."""
    index, row = step.index, step.row
    if command.session is not None and row is None:
        return (
            index,
            EXPIRED,
            (
                f"number {command.number} of session {command.session!r} is not remembered, nor may it begin the session: the command was not applied now"
            ).encode(),
        )
    if step.again and row is not None:
        index, outcome = row.index, row.outcome
    if outcome is None:
        return index, FORGOTTEN, f"the command {command.op!r} was applied before, as number {index}; its result is not known here".encode()
    return index, APPLIED if outcome.done else FAILED, outcome.result
