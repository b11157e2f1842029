"""A future that costs nothing until somebody waits for it.

pykka's own future makes a condition and a lock when it is born (9 µs); an `ask` of ours is often answered before anybody waits, or is
waited for by a callback. So this one is an object with two fields, and a lock is made by the thread that really has to block.

How the race between `set` and a late waiter is closed: a waiter first puts itself on the list and then looks whether the value is there;
the setter first stores the value and then looks whether somebody is on the list. Whoever sees the other wakes the list, and the list is
taken away under a lock, so every waiter is called exactly once.
"""

from __future__ import annotations

import _thread
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import pykka

from coterie.transport.logs import Log

LOG = Log("coterie.future")
_waiting = threading.Lock()  # guards the waiter lists of all futures; held for a few instructions


def _after_fork() -> None:
    global _waiting  # noqa: PLW0603 - a thread of the parent may have held it, and is not there to let it go
    _waiting = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class LightFuture(pykka.Future[Any]):
    """A `pykka.Future` (get, map, join, await…) that can also call back: see `on_done`."""

    __slots__ = ("_done", "_error", "_value", "_waiters")

    # pykka keeps its get-hook in instance attributes; as class attributes they cost nothing until one is set.
    _get_hook: Callable[[float | None], Any] | None = None
    _get_hook_result: Any = None

    def __init__(self) -> None:
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: tuple[Callable[[], Any], ...] = ()

    @property
    def done(self) -> bool:
        return self._done

    def set(self, value: Any = None) -> None:
        """Resolve. Raises queue.Full when it was resolved before (as pykka's does)."""
        if self._done or self._get_hook is not None:
            raise queue.Full
        self._value = value
        self._done = True
        if self._waiters:
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Resolve with an error, which `get` will raise."""
        if self._done or self._get_hook is not None:
            raise queue.Full
        self._error = error
        self._done = True
        if self._waiters:
            self._wake()

    def set_exception(self, exc_info: Any = None) -> None:
        error = (exc_info or sys.exc_info())[1]
        self.fail(error if error is not None else RuntimeError("set_exception was called without an exception"))

    def set_get_hook(self, func: Any) -> None:
        if self._done:
            raise queue.Full
        self._get_hook = func

    def on_done(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` once this is resolved: in the resolving thread, or here and now if it is already. It must not block or raise."""
        with _waiting:
            self._waiters = (*self._waiters, callback)
        if self._done:
            self._wake()

    def get(self, *, timeout: float | None = None) -> Any:
        """The value, or raises the error; `pykka.Timeout` after `timeout` seconds."""
        if not self._done:
            if self._get_hook is not None:
                self._value = self._get_hook(timeout)
                self._done = True
                return self._value
            lock = _thread.allocate_lock()
            lock.acquire()
            self.on_done(lock.release)
            if not lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
                raise pykka.Timeout(f"{timeout} seconds")
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._value

    @property
    def error(self) -> BaseException | None:
        """The error it was resolved with; None while open or when it has a value."""
        return self._error

    def _wake(self) -> None:
        with _waiting:
            waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            try:
                waiter()
            except Exception:
                LOG.exception("a callback of a future raised; the future is resolved all the same")


def gather(futures: list[LightFuture], then: Callable[[], Any]) -> None:
    """Call `then()` once, when all of `futures` are resolved (at once if there are none)."""
    if not futures:
        then()
        return
    countdown = iter(range(len(futures) - 1, -1, -1))  # next() on it is atomic: exactly one caller sees 0

    def one_more() -> None:
        if next(countdown) == 0:
            then()

    for future in futures:
        future.on_done(one_more)
