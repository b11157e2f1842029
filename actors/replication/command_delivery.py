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

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import pykka

from coterie.actors.base import LATER, Actor, Crash
from coterie.actors.dead_letters import describe
from coterie.actors.errors import CoterieError, HandlerFailed
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import (
    ApplyCommands,
    AwaitCommands,
    BeginCommands,
    CommandSupport,
    RestoreCommands,
    SetHandler,
    WrittenState,
)
from coterie.actors.messages import ReplicationGap
from coterie.actors.replication.buffer import BufferState, Gap, ReplicationBuffer, StateHead
from coterie.actors.replication.command_news import CommandNews
from coterie.actors.replication.command_start import where_to_begin
from coterie.actors.replication.commands import Commands
from coterie.actors.replication.delivery_queue import TopicQueue
from coterie.actors.replication.handler_state import HandlerState, Replaced
from coterie.actors.replication.messages import (
    CommandsMoved,
    CommandsUnable,
    HandlerAnswered,
    NewBatch,
    NewBatches,
    Restored,
    StateFetched,
    Stored,
    WriterAnswered,
)
from coterie.actors.replication.metrics import NoMetrics, ReplicationMetrics
from coterie.actors.replication.refill import READ_BATCHES, READ_BYTES, opened
from coterie.actors.replication.session_rows import recalled
from coterie.actors.replication.sessions import Sessions
from coterie.actors.room_messages import COMMANDS_TOPIC, Topology
from coterie.proto.command import UnknownCommand

MOST: Final = 1024  # commands at a time
STOP_PATIENCE: Final = 2.0  # seconds
FETCH_PAUSE: Final = 5.0  # seconds until the other nodes are asked for a state again

FetchState = Callable[[int, Callable[[StateHead | None, WrittenState | None], object]], object]  # (at least, fetched), from any thread


class CommandDelivery(Actor):
    """origin: what this node's own commands carry. to_publisher: tells this node's publisher; moved: tells delivery. directory, every, every_bytes: as in
    `HandlerState`. retry: pause, in seconds, before a handler that could not say where it stands is asked again."""

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
        fetch_state: FetchState | None = None,
        directory: Path | None = None,
        every: int = 10_000,
        every_bytes: int = 64 << 20,
        retry: float = 1.5,
        memory: int = 64 << 20,
        metrics: ReplicationMetrics | None = None,
        on_crash: Callable[[Crash], None] | None = None,
    ) -> None:
        super().__init__(node, on_crash)
        self._buffer, self._to_publisher, self._emit = buffer, to_publisher, emit
        self._fetch_state = fetch_state
        self._retry, self._memory = retry, memory
        self._metrics = metrics or NoMetrics()
        stored = state.topics.get(COMMANDS_TOPIC)
        self._queue = TopicQueue(COMMANDS_TOPIC, 1, stored.next_seq - 1 if stored is not None and stored.next_seq else 0)
        self._commands = Commands(origin)
        self._state = HandlerState(buffer, writer, directory, every, every_bytes)
        self._news = CommandNews(self._commands, self._state, writer, to_publisher, moved, metrics or NoMetrics())
        position = max(0, stored.cursor - 1) if stored is not None else 0
        sessions = recalled(buffer.results(), position)
        self._known = sessions is not None  # this node knows what is remembered where commands stand
        if sessions is not None:
            self._commands.begin(position, sessions, position)
            self._queue.cursor = position + 1
        self._log_index = 0  # of the entry of the last command decided
        self._support = CommandSupport()
        self._handler: Any = None
        self._running = False  # the handler has said where it stands
        self._outstanding: LightFuture | None = None
        self._ask_at: float | None = None  # when a handler that could not say it is asked again
        self._trace: Any = None
        self._trouble: CoterieError | None = None
        self._term = 0
        self._missing: tuple[int, int] | None = None  # the first and last command that the handler lacks
        self._fetch_at: float | None = None  # when the others are asked again for a state that makes up for them
        self._dirty = self._queue.last > 0

    # -- inbox ----------------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        kind = message.__class__
        if kind is NewBatches:
            self._arrived(message.batches)
        elif kind is HandlerAnswered:
            self._answered(message)
        elif kind is Stored:
            pass  # what is behind may be readable now: the flush looks
        elif kind is Restored:
            self._queue.last = max(self._queue.last, message.next_seqs.get(COMMANDS_TOPIC, 1) - 1)
            self._came()
        elif kind is StateFetched:
            self._fetched(message.head, message.written)
        elif kind is WriterAnswered:
            self._kept(message.future)
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
            self._dirty = False
            self._tell()
        self.wake_at(min((when for when in (self._ask_at, self._fetch_at) if when is not None and when < math.inf), default=None))

    def on_wake(self, now: float) -> None:
        if self._ask_at is not None and self._ask_at <= now:
            self._ask_at = None
        if self._fetch_at is not None and self._fetch_at <= now:
            self._fetch_at = None
            if self._missing is not None and self._handler is not None:
                self._fetch()

    def on_stop(self) -> None:
        """Let the handler finish what it has, within `STOP_PATIENCE`: who proposed it hears the result."""
        if self._outstanding is not None and self._running:
            try:
                answer = self._outstanding.get(timeout=STOP_PATIENCE)
                if isinstance(answer, WrittenState):
                    answer.content.close()  # a snapshot: it is taken again in the next life
                else:
                    self._commands.settle(answer)
            except Exception as error:  # noqa: BLE001 - it died, or does not return: what it has had is asked of the next one
                self.log.warning("the handler did not finish its commands before the stop: %s", describe(error))
        self._tell()
        self._news.close()

    def on_restart(self) -> None:
        raise RuntimeError("the delivery of commands lost its place; the node stops rather than apply them in another order")

    def _tell(self) -> None:
        self._news.tell(self._queue.last, self._support if self._handler is not None else None, self._running, self._trouble)

    # -- what arrives ---------------------------------------------------------------------------------------------------------

    def _arrived(self, batches: list[NewBatch]) -> None:
        for batch in batches:
            self._queue.arrived(batch, self._handler is not None and self._queue.held < self._memory)
        self._dirty = True

    def _set_handler(self, handler: Any, support: CommandSupport) -> None:
        self._handler, self._support = handler, support
        self._running, self._outstanding, self._ask_at, self._missing = False, None, None, None
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
            self._news.wait(commands, self.reply_to)
        return LATER

    # -- towards the handler --------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Give the handler what is next, if there is anything."""
        if not self._running:
            self._ask(BeginCommands(self.node), self._begun)
            return
        if self._support.restores and not self._support.keeps and self._state.ahead(self._commands.position):
            self._restore()
        while self._trouble is None and self._running:
            if self._commands.undecided:
                due = self._state.due(self._commands.position) if self._support.snapshots else None
                if due is not None:
                    self._ask(due, self._written)
                    return
                if not self._decide():
                    return
            given = self._commands.given()
            self._advance()
            if given:
                self._state.given(sum(len(data) for _, _, data in given))
                self._ask(ApplyCommands(self.node, given, self._trace), self._applied)
                return

    def _ask(self, message: Any, then: Callable[[LightFuture], None]) -> None:
        me = self.ref
        self._outstanding = future = self._handler.ask(message, block=False)
        future.on_done(lambda: me.send(HandlerAnswered(future, then)))

    def _answered(self, message: HandlerAnswered) -> None:
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
        commands = self._commands
        sessions = commands.sessions.at if self._known else None
        start = where_to_begin(future.get(), self._support, commands.position, sessions, self._state.index)
        if start.restore:
            self._restore()
        else:
            self._begin(start.position, start.sessions if start.sessions is not None else self._state.sessions(), start.had)

    def _begin(self, position: int, sessions: Sessions, had: int) -> None:
        """Go on behind `position`."""
        self._commands.begin(position, sessions, had)
        self._queue.forget()
        self._queue.cursor = position + 1
        self._known = self._news.anew = self._running = self._dirty = True

    def _restore(self) -> None:
        """Have the handler become what the buffer keeps of its like."""
        assert self._state.head is not None
        self._running = False
        self.log.info("the handler is restored from the snapshot as of command %d", self._state.index)
        sessions = self._state.sessions()
        message = RestoreCommands(self.node, self._state.index, self._state.chunks())
        self._ask(message, partial(self._restored, message.index, sessions))

    def _restored(self, index: int, sessions: Sessions, future: LightFuture) -> None:
        if future.error is None:
            self._begin(index, sessions, index)
            return
        if not isinstance(future.error, Replaced):
            self.log.error(
                "the handler could not be restored; again in %g s: %s", self._retry, describe(future.error), exc_info=future.error
            )
        self._state.trouble = f"handle_restore fails: {describe(future.error)}"
        self._state.look()
        self._ask_at = time.monotonic() + self._retry

    def _written(self, future: LightFuture) -> None:
        """The handler has written its state, or could not."""
        if future.error is not None:
            self.log.error("%s", self._state.failed(future.error), exc_info=future.error)
            self._dirty = True
            return
        me = self.ref
        self._state.keep(
            future.get(), self._commands.position, self._log_index, self._commands.sessions, lambda asked: me.send(WriterAnswered(asked))
        )

    def _kept(self, asked: LightFuture) -> None:
        self._state.kept(asked)
        self._dirty = True
        if self._missing is not None:
            self._ask_at = None
            self._came()
            if self._missing is not None:
                self._give_up()

    def _came(self) -> None:
        """A state of another node's may be in the buffer, which helps where commands are missing."""
        self._state.look()
        if self._missing is not None and self._state.index >= self._missing[1] and self._support.restores:
            self._missing = None
            self._stand(None)
        self._dirty = True

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
        if hole is not None and self._running and self._trouble is None:
            self._lack(*hole)
        front = self._queue.front(MOST)
        if front is None or self._trouble is not None or not self._running:
            return False
        batch, records = front
        self._trace, self._log_index = batch.trace, batch.index
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
            self._lack(self._queue.cursor, gap.first_retained - 1)
            return
        for stored in found:
            self._queue.refilled(opened(stored))

    def _lack(self, first: int, last: int) -> None:
        """Commands are missing: a snapshot of the handler's state that goes as far makes up for them, this node's or another's."""
        if self._support.restores and self._state.index >= last:
            self._restore()
            return
        self._missing = (first, last)
        self._fetch()

    def _fetch(self) -> None:
        """Ask the other nodes; meanwhile nothing goes on."""
        assert self._missing is not None
        self._ask_at = math.inf
        me = self.ref
        if self._support.restores and self._fetch_state is not None:
            self._fetch_state(self._missing[1], lambda head, written: me.send(StateFetched(head, written)))
        else:
            me.send(StateFetched(None, None))

    def _fetched(self, head: StateHead | None, written: WrittenState | None) -> None:
        self._ask_at = None
        if self._missing is None or self._handler is None:  # another handler came meanwhile
            if written is not None:
                written.content.close()
        elif head is not None and written is not None:
            me = self.ref
            self._ask_at = math.inf
            self._state.keep_other(head, written, lambda asked: me.send(WriterAnswered(asked)))
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Nobody has a snapshot that goes far enough; one may be taken later."""
        assert self._missing is not None
        first, last = self._missing
        if self._trouble is None:
            self._emit(ReplicationGap(time=time.time(), term=self._term, topic=COMMANDS_TOPIC, first_missing=first, last_missing=last))
            self._stand(
                HandlerFailed(
                    f"commands {first} to {last} were forgotten before this node's handler had them, and no node has a snapshot that makes up for them; "
                    "give the service's handlers handle_snapshot and handle_restore"
                )
            )
        self._fetch_at = time.monotonic() + FETCH_PAUSE

    def _stand(self, error: CoterieError | None) -> None:
        """The handler gets no more commands, for this reason; None: it may."""
        if error is not None:
            self.log.error("the handler gets no more commands: %s", error)
        self._trouble = error
        self._dirty = True
        self._to_publisher(CommandsUnable(error))
