"""The actor all of ours are made of: pykka's, with what a cluster node needs on top.

What differs from `pykka.ThreadingActor`, and why:

- **Inbox**: `queue.SimpleQueue` of plain pairs (message, future or None). `tell` is six times cheaper than over `queue.Queue`.
- **Batches**: what waits in the inbox when the actor wakes is one burst; when it is worked through, `flush` is called once. So load makes the
  batches (one transaction, one send per peer), and an idle actor never waits for company.
- **Time**: `wake_at(t)` asks for `on_wake(now)` at a monotonic time. It is driven by the time-out of the inbox, and fires only when everything
  that had arrived by then is handled: a thread that was stalled first hears the heartbeats that wait for it, and only then its election timer.
- **Later replies**: a handler returns `LATER`, keeps `self.reply_to`, and resolves it when the answer exists. Whoever keeps futures fails them in `on_stop`.
- **Failure**: pykka lets an actor whose `tell` raised die in silence. Here the exception is logged, counted and told to `on_crash` (the
  supervisor); the actor is set up again in place (`on_restart`), with a pause that grows, and keeps its inbox and its reference. More than `MAX_RESTARTS` within
  `RESTART_WINDOW` seconds, a `StorageError` or a failing set-up are fatal: the actor stops, and the supervisor decides what that means for the node.
- **Stopping**: an `ask` that races with `stop` is always answered, with `pykka.ActorDeadError`.
- **Fork**: threads do not survive a fork. A reference used in a forked child raises a clear error instead of waiting for ever.

`pykka.ActorRegistry` is never used to stop or find anything: the host application may run pykka too.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

import pykka
from pykka import messages as pykka_messages

from coterie.actors.errors import CoterieError, StorageError
from coterie.actors.future import LightFuture
from coterie.transport.logs import Log

LATER: Final = object()
MAX_RESTARTS: Final = 5
RESTART_WINDOW: Final = 10.0  # seconds

_STOP: Final = pykka_messages._ActorStop
_FOREIGN: Final = (pykka_messages.ProxyCall, pykka_messages.ProxyGetAttr, pykka_messages.ProxySetAttr)


class _Process:
    """Which process this is: the number of forks between the one that imported this and it."""

    forks = 0


def _count_fork() -> None:
    _Process.forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Ref(pykka.ActorRef[Any]):
    """A `pykka.ActorRef` whose `tell` and `ask` are cheap, and which never leaves an asker without an answer."""

    def __init__(self, actor: pykka.Actor) -> None:
        super().__init__(actor)
        self._forks = _Process.forks  # when its actor was made, and so its thread

    def tell(self, message: Any) -> None:
        self._put(message, None)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """As in pykka: the reply, or with block=False a `LightFuture`. Raises what the actor raised, or `pykka.Timeout`."""
        future = LightFuture()
        try:
            self._put(message, future)
        except pykka.ActorDeadError as error:
            future.fail(error)
        return future.get(timeout=timeout) if block else future

    def send(self, message: Any) -> bool:
        """Tell, if it still lives: False when it is stopped. For messages that nobody misses then."""
        try:
            self._put(message, None)
        except pykka.ActorDeadError:
            return False
        return True

    def _put(self, message: Any, future: LightFuture | None) -> None:
        if self._forks != _Process.forks:
            raise RuntimeError(
                f"{self} was started before this process forked; start the cluster after the fork (in the worker, not in the parent)"
            )
        if self.actor_stopped.is_set():
            raise pykka.ActorDeadError(f"{self} is stopped")
        self.actor_inbox.put((message, future))  # type: ignore[arg-type]
        if self.actor_stopped.is_set():  # it stopped between the two lines above: nobody may read the inbox again
            _drain(self.actor_inbox, str(self))


class Actor(pykka.ThreadingActor):
    """Base of every actor of a node. Subclasses implement `on_receive`, and as they need `on_start`, `flush`, `on_wake`, `on_stop`."""

    use_daemon_thread: ClassVar[bool] = True
    concern: ClassVar[str] = "actor"

    def __init__(self, node: str = "", on_crash: Callable[[Crash], None] | None = None) -> None:
        super().__init__()
        self._actor_ref = Ref(self)
        self.node = node
        self.log = Log(f"coterie.{node}.{self.concern}" if node else f"coterie.{self.concern}", node, self.concern)
        self.reply_to: LightFuture | None = None
        self.handled = 0
        self._on_crash = on_crash
        self._wake_time: float | None = None
        self._restarts: list[float] = []

    # -- for subclasses -------------------------------------------------------------------------------------------------------

    @property
    def ref(self) -> Ref:
        return self._actor_ref  # type: ignore[return-value]

    def flush(self) -> None:
        """Called once after each burst of messages, and after each `on_wake`."""

    def on_wake(self, now: float) -> None:
        """Called at the time asked for with `wake_at`, when what came before it is handled."""

    def on_restart(self) -> None:
        """After a crash: make a fresh start in place. The default releases with `on_stop` and sets up with `on_start`."""
        self.on_stop()
        self.on_start()

    def wake_at(self, when: float | None) -> None:
        """Ask for one `on_wake` at the monotonic time `when`; replaces the wish before. None: no wish."""
        self._wake_time = when

    # -- the loop -------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Any:
        return queue.SimpleQueue()

    @staticmethod
    def _create_future() -> LightFuture:
        return LightFuture()

    def _start_actor_loop(self) -> None:
        name = f"{self.node}/{self.concern}" if self.node else self.concern
        self._thread = threading.Thread(target=self._actor_loop, name=name, daemon=self.use_daemon_thread)
        self._thread.start()

    def _actor_loop(self) -> None:
        if self._guarded(self.on_start, fatal=True):
            while not self.actor_stopped.is_set():
                self._guarded(self._burst)
        _drain(self.actor_inbox, str(self))

    def _burst(self) -> None:
        """Wait for a message or for the time asked for; work through what is there; flush."""
        inbox: queue.SimpleQueue[tuple[Any, LightFuture | None]] = self.actor_inbox  # type: ignore[assignment]
        when = self._wake_time
        if when is None:
            item = inbox.get()
        else:
            try:
                wait = when - time.monotonic()
                item = inbox.get(timeout=wait) if wait > 0 else inbox.get_nowait()
            except queue.Empty:
                self._wake_time = None
                self.on_wake(time.monotonic())
                self.flush()
                return
        started = time.monotonic()
        waiting = inbox.qsize()
        self._handle(item)
        while waiting and not self.actor_stopped.is_set():
            waiting -= 1
            self._handle(inbox.get_nowait())
        if self.actor_stopped.is_set():
            return
        # Under load the inbox is never empty. What had come before `started` is worked through, so a time that had passed by then may fire.
        if self._wake_time is not None and self._wake_time <= started:
            self._wake_time = None
            self.on_wake(time.monotonic())
        self.flush()

    def _handle(self, item: tuple[Any, LightFuture | None]) -> None:
        message, reply = item
        self.handled += 1
        if message.__class__ is _STOP:
            self._stop()
            if reply is not None:
                reply.set(None)
            return
        self.reply_to = reply
        if reply is None:
            self.on_receive(message)
            return
        try:
            answer = self._handle_receive(message) if isinstance(message, _FOREIGN) else self.on_receive(message)
        except StorageError as error:
            reply.fail(error)
            raise
        except Exception as error:
            if not isinstance(error, CoterieError):
                self.log.warning("an exception goes back to the asker of %s", type(message).__name__, exc_info=True)
            if not reply.done:
                reply.fail(error)
        except BaseException as error:
            if not reply.done:
                reply.fail(CoterieError(f"{self.concern} was ended by {type(error).__name__} while it handled a {type(message).__name__}"))
            raise
        else:
            if answer is not LATER and not reply.done:
                reply.set(answer)

    # -- failure --------------------------------------------------------------------------------------------------------------

    def _guarded(self, step: Callable[[], None], fatal: bool = False) -> bool:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - a SystemExit in one actor must not stop the others
            self._crashed(error, fatal or isinstance(error, StorageError))
            return False
        return True

    def _crashed(self, error: BaseException, fatal: bool) -> None:
        now = time.monotonic()
        self._restarts = [t for t in self._restarts if now - t < RESTART_WINDOW] + [now]
        fatal = fatal or len(self._restarts) > MAX_RESTARTS
        if self.handled or not isinstance(error, CoterieError):  # a typed error of the set-up goes to whoever starts it, who says it once
            self.log.error(
                "%s crashed%s: %r",
                self.concern,
                " for good" if fatal else "; it starts afresh",
                error,
                exc_info=(type(error), error, error.__traceback__),
                extra={"fatal": fatal},
            )
        if not fatal:
            time.sleep(0.01 * 2 ** len(self._restarts))
            try:
                self.on_restart()
            except BaseException as second:
                self.log.error("%s could not start afresh: %r", self.concern, second, exc_info=True)
                error, fatal = second, True
        if fatal:
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
        # Told before anything is released: that may take long where a disk is ill, and other actors may fall over this one's end meanwhile.
        if self._on_crash is not None:
            self._on_crash(Crash(self.concern, error, fatal))
        if fatal:
            try:
                self.on_stop()
            except Exception:
                self.log.exception("%s could not release what it held", self.concern)

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """pykka's hook for a failing `on_stop`: log it; the actor is stopping anyway."""
        self.log.error("%s failed while stopping", self.concern, exc_info=(exception_type, exception_value, traceback))


class Crash:
    """An actor's exception, as its supervisor is told. `fatal`: it does not run any more."""

    __slots__ = ("concern", "error", "fatal")

    def __init__(self, concern: str, error: BaseException, fatal: bool) -> None:
        self.concern, self.error, self.fatal = concern, error, fatal


def _drain(inbox: Any, name: str) -> None:
    """Answer what a stopped actor will never read. Any thread may do this, and several at once."""
    while True:
        try:
            message, reply = inbox.get_nowait()
        except queue.Empty:
            return
        if reply is not None and not reply.done:
            if message.__class__ is _STOP:
                reply.set(None)
            else:
                reply.fail(pykka.ActorDeadError(f"{name} stopped before handling the message"))
