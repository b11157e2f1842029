"""Handler actors: where the application's code runs.

A user subclasses `HandlerActor`, starts it, and registers its reference. It has a thread and a state of its own, so a slow or crashing handler
never delays Raft or gossip. Deliveries come in batches of one topic, in order; the handler sees them one by one.

The three methods are the contract of the model; each is optional. `handle_sync` may take a third parameter named `record`, and then gets a `Record`
beside topic and data: with `record.seq` a handler can skip what it has already handled before a crash.

A fourth one is ours: `handle_dead_letter`. Records of the dead-letter topic go there and not to `handle_sync`, so that a handler that knows nothing of
dead letters is not surprised by a topic it has never heard of; without that method they count as delivered.

Replicated commands (docs/replicated-commands.md) have four more: `handle_apply`, `handle_snapshot`, `handle_restore` and `applied_index`.

Whatever the application's code raises is its failure and an answer to who asked, `SystemExit` and `asyncio.CancelledError` too, which are no
`Exception`s: it runs in a thread of its own, where neither means that the process ends. Methods that Python would not run when they are called
(`async def`) are refused at the start.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import attrs

from coterie.actors.base import Actor
from coterie.actors.dead_letters import describe, read_letter
from coterie.actors.errors import HandlerFailed, InvalidRequest
from coterie.actors.handler_commands import apply_commands, support_of, write_state
from coterie.actors.handler_messages import (
    ApplyCommands,
    BeginCommands,
    Deliver,
    Delivered,
    HandleRead,
    HandleReads,
    HandleWrite,
    RestoreCommands,
    SnapshotCommands,
)
from coterie.actors.messages import DeadLetter
from coterie.actors.traced import traced_apply, traced_call, traced_handler
from coterie.actors.tracing import TRACING

METHODS = (
    "handle_write",
    "handle_read",
    "handle_sync",
    "handle_dead_letter",
    "handle_apply",
    "handle_snapshot",
    "handle_restore",
    "applied_index",
)


@attrs.define(slots=True)
class Record:
    """A published record as a handler may ask to see it.

    seq: place in the topic, from 1; index: Raft index of its entry; time: when its batch was packed, seconds since the epoch; attempt: 1, or more when
    the handler raised on it before; headers: what the publisher gave beside the data.
    """

    topic: str
    seq: int
    index: int
    time: float
    attempt: int = 1
    headers: dict[str, str] | None = None


class HandlerActor(Actor):
    """Subclass it, override what you need, `start()` it, and send the reference in a `RegisterHandler`."""

    concern = "handler"

    def __init__(self) -> None:
        super().__init__()
        _refuse_coroutines(self)
        parameters = inspect.signature(self.handle_sync).parameters
        self._wants_record = "record" in parameters
        self.command_support = support_of(self, HandlerActor)
        self.__applied: dict[str, int] = {}  # by node: the last command that this handler has had, in its own life

    def handle_write(self, op: str, request: bytes) -> bytes:
        """Runs on the leader only, whichever node was asked."""
        raise HandlerFailed(f"no handler for writes: {type(self).__name__} does not override handle_write (op {op!r})")

    def handle_read(self, op: str, request: bytes) -> bytes:
        """Runs on the leader, or, for a read with a `consistency`, on the node that was asked."""
        raise HandlerFailed(f"no handler for reads: {type(self).__name__} does not override handle_read (op {op!r})")

    def handle_sync(self, topic: str, data: bytes) -> None:
        """Runs on every node, the leader included, for every publish; in order, once, unless the node crashes between its return and the cursor's write."""

    def handle_dead_letter(self, letter: DeadLetter) -> None:
        """Runs on every node for every dead letter, whichever node's handler had failed. One that fails here too often is skipped, and counted."""

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes | None:
        """Runs on every node for every command, in one order; `index` counts the commands from 1, also those that are not given again (the retries of a
        session), so it may skip. It must be deterministic: the same state and the same commands, the same result. What it raises is the command's outcome
        (HandlerFailed, for the proposer), and no reason to try it again."""
        raise HandlerFailed(f"no handler for commands: {type(self).__name__} does not override handle_apply (op {op!r})")

    def handle_snapshot(self) -> Iterator[bytes]:
        """The state as of the last command, in chunks of any number and size up to 16 MiB. Commands wait until the last chunk is out."""
        raise HandlerFailed(f"no snapshots: {type(self).__name__} does not override handle_snapshot")

    def handle_restore(self, chunks: Iterator[bytes]) -> None:
        """Be what a `handle_snapshot` was, here or on another node; what was before is void. The chunks come as that one gave them."""
        raise HandlerFailed(f"no snapshots: {type(self).__name__} does not override handle_restore")

    def applied_index(self) -> int | None:
        """For a handler that keeps its state itself (a file, a database): the index of the last command in it, 0 for none. It is asked when the handler is
        registered, and gets the commands after that one. Not overridden: the state is in memory, and begins with a snapshot or with the first command."""
        return None

    def on_receive(self, message: Any) -> Any:
        try:
            return self._receive(message)
        except Exception:
            raise
        except BaseException as error:
            raise HandlerFailed(f"{type(self).__name__} raised {describe(error)}") from error

    def _receive(self, message: Any) -> Any:
        if isinstance(message, Deliver):
            return self._deliver_letters(message) if message.letters else self._deliver(message)
        if isinstance(message, ApplyCommands):
            return self._apply(message)
        if isinstance(message, HandleReads):
            return self._handle_reads(message)
        if isinstance(message, HandleWrite):
            return self._call(self.handle_write, "handle write", message)
        if isinstance(message, HandleRead):
            return self._call(self.handle_read, "handle read", message)
        if isinstance(message, BeginCommands):
            return self._begin(message)
        if isinstance(message, SnapshotCommands):
            return write_state(self.handle_snapshot(), message)
        if isinstance(message, RestoreCommands):
            return self._restore(message)
        return self.on_message(message)

    def on_message(self, message: Any) -> Any:
        """Any other message of the application's own."""
        self.log.warning("unexpected message: a %s", type(message).__name__)
        return None

    def _deliver(self, batch: Deliver) -> Delivered:
        topic, handle, done = batch.topic, self.handle_sync, 0
        if TRACING.on:
            handle = traced_handler(batch, handle)
        try:
            if self._wants_record:
                for seq, data, headers in batch.records:
                    attempt = batch.attempt if done == 0 else 1
                    handle(topic, data, record=Record(topic, seq, batch.index, batch.time, attempt, headers))  # type: ignore[call-arg]
                    done += 1
            else:
                for _, data, _ in batch.records:
                    handle(topic, data)
                    done += 1
        except BaseException as error:  # noqa: BLE001 - the application's code: the delivery actor counts, logs and retries it
            return Delivered(done, error)
        return Delivered(done)

    def _apply(self, message: ApplyCommands) -> list[tuple[bool, bytes]]:
        handle = self.handle_apply
        if TRACING.on and message.trace is not None:
            handle = traced_apply(message, handle)
        outcomes = apply_commands(handle, message.commands)
        self.__applied[message.node] = message.commands[len(outcomes) - 1][0]
        return outcomes

    def _begin(self, message: BeginCommands) -> int:
        index = self.applied_index()
        if index is None:
            return self.__applied.get(message.node, 0)
        if index.__class__ is not int or index < 0:
            raise HandlerFailed(f"applied_index() returned {index!r:.80}; give the index of the last command in the state, or 0")
        return index

    def _restore(self, message: RestoreCommands) -> bool:
        self.handle_restore(message.chunks)
        self.__applied[message.node] = message.index
        return True

    def _deliver_letters(self, batch: Deliver) -> Delivered:
        done = 0
        for seq, data, headers in batch.records:
            attempt = batch.attempt if done == 0 else 1
            one = Deliver(batch.topic, [(seq, data, headers)], batch.index, batch.time, attempt, batch.node, batch.trace)
            letter = read_letter(seq, batch.time, data, headers)
            if letter is None:  # the application publishes on that topic itself: a record like others
                handled = self._deliver(one)
                if handled.error is not None:
                    return Delivered(done, handled.error)
            else:
                try:
                    self._handle_letter(one, letter)
                except BaseException as error:  # noqa: BLE001 - the application's code, as above
                    return Delivered(done, error)
            done += 1
        return Delivered(done)

    def _handle_letter(self, record: Deliver, letter: DeadLetter) -> None:
        if TRACING.on:
            traced_handler(record, lambda topic, data: self.handle_dead_letter(letter))(record.topic, letter.data)
        else:
            self.handle_dead_letter(letter)

    def _handle_reads(self, message: HandleReads) -> list[bytes | HandlerFailed]:
        answers: list[bytes | HandlerFailed] = []
        for op, data, trace in message.reads:
            try:
                answers.append(self._call(self.handle_read, "handle read", HandleRead(op, data, trace, message.node)))
            except HandlerFailed as error:
                answers.append(error)
        return answers

    def _call(self, method: Any, name: str, message: HandleWrite | HandleRead) -> bytes:
        op, call = message.op, method
        if message.trace is not None:
            call = traced_call(method, name, message.node, message.trace)
        try:
            answer = call(op, message.data)
        except HandlerFailed:
            raise
        except BaseException as error:
            raise HandlerFailed(f"{name.replace(' ', '_')}({op!r}) raised {describe(error)}") from error
        if not isinstance(answer, (bytes, bytearray, memoryview)):
            raise HandlerFailed(f"{name.replace(' ', '_')}({op!r}) returned {type(answer).__name__}; it must return bytes")
        return bytes(answer)


class ObjectHandler(HandlerActor):
    """A plain object with some of the methods, run as a handler actor (`Config.app_handlers`)."""

    def __init__(self, target: Any) -> None:
        for name in METHODS:
            if callable(getattr(target, name, None)):
                setattr(self, name, getattr(target, name))
        super().__init__()


def _refuse_coroutines(handler: HandlerActor) -> None:
    """Raises InvalidRequest. What such a method was called for would count as done, and nothing would ever run it."""
    for name in METHODS:
        method = getattr(handler, name)
        waits = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
        if waits or (inspect.isgeneratorfunction(method) and name != "handle_snapshot"):
            raise InvalidRequest(
                f"{name}: it is {'async' if waits else 'a generator'}, and calling it runs nothing; remedy: a plain method, in which "
                "asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout) runs what is to be awaited on a loop of the application's"
            )
