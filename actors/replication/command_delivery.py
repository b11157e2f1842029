"""Delivery of commands: each one goes to the handler's `handle_apply` in log order, and its outcome to whoever proposed it here.

What differs from `delivery`, and why it is an actor of its own: commands are the handler's *state*. A handler that keeps it in memory begins without it, and
must get all commands once more, or a snapshot and those after it; one that keeps it elsewhere says how far it is (`applied_index`). So not the cursor says
where delivery goes on, but the handler, when it is registered. A command on which it fails is done, with an error for a result: trying it again would make
this node's state another one. And where commands are missing none can be skipped: the handler gets no more, Apply is refused here, and the status says so
(*standing*).

    off ──a handler that applies──► beginning ──its index──► running ◄──► standing (commands are missing)

While no handler takes commands, or it stands, the node acknowledges what it stores, as for every topic: it holds nobody up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

import pykka

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.dead_letters import describe
from coterie.actors.errors import CoterieError, HandlerFailed
from coterie.actors.future import LightFuture
from coterie.actors.messages import ReplicationGap
from coterie.actors.replication.buffer import BufferState, Gap, ReplicationBuffer
from coterie.actors.replication.commands import Commands
from coterie.actors.replication.delivery_queue import TopicQueue
from coterie.actors.replication.messages import (
    CommandsHandled,
    CommandsMoved,
    CommandsUnable,
    CursorsMoved,
    NewBatch,
    NewBatches,
    Restored,
    Stored,
)
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.replication.refill import READ_BATCHES, READ_BYTES, opened
from coterie.actors.replication.sessions import Sessions
from coterie.actors.room_messages import COMMANDS_TOPIC, ApplyCommands, AwaitCommands, BeginCommands, CommandSupport, SetHandler, Topology
from coterie.proto.command import UnknownCommand

MOST: Final = 1024  # commands at a time
STOP_PATIENCE: Final = 2.0  # seconds


class _Answered:
    """The handler actor has answered; told by the future's callback."""

    __slots__ = ("future", "then")

    def __init__(self, future: LightFuture, then: Callable[[LightFuture], None]) -> None:
        self.future, self.then = future, then


class CommandDelivery(Actor):
    """origin: what this node's own commands carry. to_publisher: tells this node's publisher; moved: tells delivery. retry: pause, in seconds, before a
    handler that could not say where it stands is asked again."""

    concern: ClassVar[str] = "commands"

    def __init__(
        self,
        node: str,
        buffer: ReplicationBuffer,
        state: BufferState,
        writer: Any,
        origin: bytes,
        to_publisher: Callable[[Any], object],
        moved: Callable[[CommandsMoved], object],
        emit: Callable[[Any], object],
        *,
        retry: float = 1.5,
        memory: int = 64 << 20,
        metrics: ReplicationMetrics | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._buffer, self._writer, self._to_publisher, self._moved, self._emit = buffer, writer, to_publisher, moved, emit
        self._retry, self._memory = retry, memory
        self._metrics = metrics or NoMetrics()
        stored = state.topics.get(COMMANDS_TOPIC)
        self._queue = TopicQueue(COMMANDS_TOPIC, 1, stored.next_seq - 1 if stored is not None and stored.next_seq else 0)
        self._commands = Commands(origin)
        self._handler: Any = None
        self._running = False  # the handler has said where it stands
        self._outstanding: LightFuture | None = None
        self._ask_at: float | None = None  # when a handler that could not say it is asked again
        self._trace: Any = None
        self._trouble: CoterieError | None = None
        self._waiters: list[tuple[int, LightFuture]] = []
        self._term = 0
        self._told = 0  # the cursor that the buffer's writer has been told
        self._dirty = self._queue.last > 0

    # -- inbox ----------------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is NewBatches:
            self._arrived(message.batches)
        elif kind is _Answered:
            self._answered(message)
        elif kind is Stored:
            pass  # what is behind may be readable now: the flush looks
        elif kind is Restored:
            self._queue.last = max(self._queue.last, message.next_seqs.get(COMMANDS_TOPIC, 1) - 1)
            self._dirty = True
        elif kind is SetHandler:
            self._set_handler(message.ref if message.commands.applies else None, message.commands)
        elif kind is Topology:
            self._term = message.term
        elif kind is AwaitCommands:
            return self._await(message.commands)
        else:
            self.log.warning("unexpected message: a %s", type(message).__name__)
        return None

    def flush(self) -> None:
        if self._handler is not None and self._outstanding is None and self._trouble is None and self._ask_at is None:
            self._go_on()
        if self._dirty or self._commands.answers:
            self._tell()
        self.wake_at(self._ask_at)

    def on_wake(self, now: float) -> None:
        self._ask_at = None

    def on_stop(self) -> None:
        """Let the handler finish what it has, within `STOP_PATIENCE`: who proposed it hears the result."""
        if self._outstanding is not None and self._running:
            try:
                self._commands.settle(self._outstanding.get(timeout=STOP_PATIENCE))
            except Exception as error:  # noqa: BLE001 - it died, or does not return: what it has had is asked of the next one
                self.log.warning("the handler did not finish its commands before the stop: %s", describe(error))
        self._tell()
        for _, reply in self._waiters:
            if not reply.done:
                reply.fail(HandlerFailed("the node is stopping"))

    def on_restart(self) -> None:
        raise RuntimeError("the delivery of commands lost its place; the node stops rather than apply them in another order")

    # -- what arrives ---------------------------------------------------------------------------------------------------------

    def _arrived(self, batches: list[NewBatch]) -> None:
        for batch in batches:
            self._queue.arrived(batch, self._handler is not None and self._queue.held < self._memory)
        self._dirty = True

    def _set_handler(self, handler: Any, support: CommandSupport) -> None:
        self._handler = handler
        self._running, self._outstanding, self._ask_at = False, None, None
        self._queue.forget()
        self._stand(None)

    def _await(self, commands: int) -> Any:
        if self._handler is None:
            return True
        if self._trouble is not None:
            raise self._trouble
        if self._running and self._commands.position >= commands:
            return True
        if self.reply_to is not None:
            self._waiters.append((commands, self.reply_to))
        return LATER

    # -- towards the handler --------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Give the handler what is next, if there is anything."""
        if not self._running:
            self._ask(BeginCommands(self.node), self._begun)
            return
        while self._trouble is None:
            if self._commands.undecided and not self._decide():
                return
            given = self._commands.given()
            self._advance()
            if given:
                self._ask(ApplyCommands(self.node, given, self._trace), self._applied)
                return

    def _ask(self, message: Any, then: Callable[[LightFuture], None]) -> None:
        me = self.ref
        self._outstanding = future = self._handler.ask(message, block=False)
        future.on_done(lambda: me.send(_Answered(future, then)))

    def _answered(self, message: _Answered) -> None:
        if self._outstanding is not message.future:
            return  # of a handler that was replaced
        self._outstanding = None
        if isinstance(message.future.error, pykka.ActorDeadError):
            self.log.warning("the handler actor is dead; commands wait for a new one")
            self._set_handler(None, CommandSupport())
            return
        message.then(message.future)

    def _begun(self, future: LightFuture) -> None:
        if future.error is not None:
            self.log.error(
                "the handler cannot say where its state stands; it is asked again in %g s: %s", self._retry, describe(future.error)
            )
            self._ask_at = time.monotonic() + self._retry
            return
        index = future.get()
        if index != self._commands.position or not self._commands.undecided:
            self._commands.begin(0, Sessions(), index)
            self._queue.forget()
            self._queue.cursor = 1
        self._running = True

    def _applied(self, future: LightFuture) -> None:
        if future.error is not None:
            self._stand(HandlerFailed(f"the handler actor does not take commands: {describe(future.error)}"))
            return
        self._commands.settle(future.get())
        self._advance()

    def _advance(self) -> None:
        """What the handler has had is behind us."""
        count = self._commands.position + 1 - self._queue.cursor
        if count:
            self._queue.advance(count)
            self._metrics.delivered(COMMANDS_TOPIC, count)
            self._dirty = True

    # -- from the queue -------------------------------------------------------------------------------------------------------

    def _decide(self) -> bool:
        """Take the next commands from the queue. False: there are none now."""
        if not self._queue.batches and self._queue.behind:
            self._refill()
        hole = self._queue.hole()
        if hole is not None:
            self._missing(*hole)
        front = self._queue.front(MOST)
        if front is None or self._trouble is not None:
            return False
        batch, records = front
        self._trace = batch.trace
        try:
            self._commands.decide(records)
        except UnknownCommand as error:
            self._stand(HandlerFailed(f"command {self._queue.cursor} is of a later version ({error}): upgrade this node"))
            return False
        return True

    def _refill(self) -> None:
        try:
            found = self._buffer.read(COMMANDS_TOPIC, self._queue.cursor, READ_BYTES, READ_BATCHES)
        except Gap as gap:
            self._missing(self._queue.cursor, gap.first_retained - 1)
            return
        for stored in found:
            self._queue.refilled(opened(stored))

    def _missing(self, first: int, last: int) -> None:
        self._emit(ReplicationGap(time=time.time(), term=self._term, topic=COMMANDS_TOPIC, first_missing=first, last_missing=last))
        self._stand(
            HandlerFailed(
                f"commands {first} to {last} were forgotten before this node's handler had them, so that its state cannot be told; give the service's handlers "
                "handle_snapshot and handle_restore"
            )
        )

    def _stand(self, error: CoterieError | None) -> None:
        """The handler gets no more commands, for this reason; None: it may."""
        if error is not None:
            self.log.error("the handler gets no more commands: %s", error)
        self._trouble = error
        self._dirty = True
        self._to_publisher(CommandsUnable(error))

    # -- what is told ---------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._dirty = False
        if self._commands.answers:
            answers, self._commands.answers = self._commands.answers, []
            self._to_publisher(CommandsHandled(answers))
        position, last = self._commands.position, self._queue.last
        takes = self._handler is not None and self._trouble is None
        if self._running and self._told != position + 1:
            self._told = position + 1
            self._writer.send(CursorsMoved({COMMANDS_TOPIC: position + 1}))
        self._metrics.position(COMMANDS_TOPIC, position if self._handler is not None else None)
        warnings = (f"the handler gets no more commands: {self._trouble}",) if self._trouble is not None else ()
        self._moved(CommandsMoved(position if takes else last, position, warnings, dict(self._commands.counters)))
        self._release()

    def _release(self) -> None:
        """Answer who waits for commands to be handled."""
        waiting, self._waiters = self._waiters, []
        for until, reply in waiting:
            if reply.done:
                continue
            if self._trouble is not None:
                reply.fail(self._trouble)
            elif self._handler is None or (self._running and self._commands.position >= until):
                reply.set(True)
            else:
                self._waiters.append((until, reply))
