"""What the delivery of commands tells the others, once for each burst: proposers their results, the leader how far this node is, the buffer where the handler
stands.

Whoever waits until commands are handled (`AwaitCommands`) waits here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coterie.actors.errors import CoterieError, HandlerFailed
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import CommandSupport
from coterie.actors.replication.commands import Commands
from coterie.actors.replication.handler_state import HandlerState
from coterie.actors.replication.messages import CommandsDone, CommandsHandled, CommandsMoved
from coterie.actors.replication.metrics import ReplicationMetrics
from coterie.actors.replication.session_rows import changes, everything, forget_changes
from coterie.actors.room_messages import COMMANDS_TOPIC


class CommandNews:
    """writer: the buffer writer's reference. to_publisher: tells this node's publisher; moved: tells delivery."""

    def __init__(
        self,
        commands: Commands,
        state: HandlerState,
        writer: Any,
        to_publisher: Callable[[Any], object],
        moved: Callable[[CommandsMoved], object],
        metrics: ReplicationMetrics,
    ) -> None:
        self._commands, self._state, self._metrics = commands, state, metrics
        self._writer, self._to_publisher, self._moved = writer, to_publisher, moved
        self._waiters: list[tuple[int, LightFuture]] = []
        self._told = (-1, -1)  # position and hold, as the buffer's writer has heard them
        self.anew = False  # the rows that the buffer has are not those of these sessions

    def wait(self, until: int, reply: LightFuture) -> None:
        """Answer `reply` when the handler has had the commands up to `until`."""
        self._waiters.append((until, reply))

    def tell(self, last: int, support: CommandSupport | None, running: bool, trouble: CoterieError | None) -> None:
        """last: the last command that this node has. support: of the handler in force, None without one; running: it has said where it stands. trouble: why it
        gets no more."""
        commands, position = self._commands, self._commands.position
        if commands.answers:
            answers, commands.answers = commands.answers, []
            self._to_publisher(CommandsHandled(answers))
        if support is not None and running:
            self._tell_writer(position, support)
        self._metrics.position(COMMANDS_TOPIC, position if support is not None else None)
        takes = support is not None and trouble is None
        warnings = (f"the handler gets no more commands: {trouble}" if trouble is not None else "", self._state.trouble)
        self._moved(CommandsMoved(position if takes else last, position, tuple(filter(None, warnings)), dict(commands.counters)))
        waiting, self._waiters = self._waiters, []
        for until, reply in waiting:
            if reply.done:
                continue
            if trouble is not None:
                reply.fail(trouble)
            elif support is None or (running and position >= until):
                reply.set(True)
            else:
                self._waiters.append((until, reply))

    def close(self) -> None:
        for _, reply in self._waiters:
            if not reply.done:
                reply.fail(HandlerFailed("the node is stopping"))

    def _tell_writer(self, position: int, support: CommandSupport) -> None:
        commands = self._commands
        settled, commands.rows = commands.rows, []
        hold = min(self._state.index, position) + 1 if support.snapshots else position + 1
        rows: dict[int, bytes | None] = {}
        anew, self.anew = self.anew, False
        if not support.keeps:
            forget_changes(commands.sessions)
        else:
            rows = everything(commands.sessions) if anew else changes(commands.sessions, settled)
        if anew or rows or (position, hold) != self._told:
            self._told = (position, hold)
            self._writer.send(CommandsDone(position + 1, hold, rows, anew))
