"""Logging that never blocks who logs.

A log sink can block: a full pipe, a disk that hangs, a collector that is away. An actor that writes to it would stand still while holding a vote, a
lease or a window, and the cluster would stop with it while every health check answers (etcd issue 22214). So an actor, or a thread that reads a
socket, only makes the record; one daemon thread of the process hands records to the loggers they were made for. The application's configuration of
`logging` stays as it is: its levels are asked before a record is made, its handlers and filters get it afterwards.

At most `MOST_WAITING` records wait; what comes beyond that is counted by `dropped`, and the count is logged when the sink takes records again. The
text is formatted at once, since what it shows may change before its turn comes. At the interpreter's end the thread gets `LAST_WORDS` seconds.

`logging.handlers.QueueHandler` lost: it must be the application's own choice for each of its handlers, and the default one blocks.
"""

from __future__ import annotations

import atexit
import collections
import logging
import os
import sys
import threading
import time
from typing import Any, Final

MOST_WAITING: Final = 10_000
LAST_WORDS: Final = 1.0  # seconds


class Backlog:
    """The records that wait for their sink, and the thread that brings them there; started with the first record, and anew after a fork."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._waiting: collections.deque[tuple[logging.Logger, logging.LogRecord]] = collections.deque()
        self._some = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._told = 0
        self._busy = False
        self.dropped = 0

    def put(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Never blocks."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        self._waiting.append((logger, record))
        self._some.release()
        if self._thread is None:
            self._start()

    def drain(self, timeout: float) -> bool:
        """Wait until all that was put is with its sink; False after `timeout` seconds."""
        until = time.monotonic() + timeout
        while self._waiting or self._busy:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coterie/log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._some.acquire()
            self._busy = True
            logger, record = self._waiting.popleft()
            try:
                logger.handle(record)
                if self.dropped > self._told:
                    lost, self._told = self.dropped - self._told, self.dropped
                    logger.warning("%d log records were dropped while the log sink did not take them", lost)
            except Exception:  # noqa: BLE001, S110 - a handler's own failure, beyond what logging reports by itself; there is nowhere left to say it
                pass
            finally:
                self._busy = False


class Log:
    """The methods of a `logging.Logger` that this library uses; each returns at once."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *args: Any, **more: Any) -> None:
        self._log(logging.DEBUG, message, args, **more)

    def info(self, message: str, *args: Any, **more: Any) -> None:
        self._log(logging.INFO, message, args, **more)

    def warning(self, message: str, *args: Any, **more: Any) -> None:
        self._log(logging.WARNING, message, args, **more)

    def error(self, message: str, *args: Any, **more: Any) -> None:
        self._log(logging.ERROR, message, args, **more)

    def critical(self, message: str, *args: Any, **more: Any) -> None:
        self._log(logging.CRITICAL, message, args, **more)

    def exception(self, message: str, *args: Any) -> None:
        self._log(logging.ERROR, message, args, exc_info=True)

    def _log(self, level: int, message: str, args: tuple[Any, ...], exc_info: Any = None) -> None:
        logger = self._logger
        if not logger.isEnabledFor(level):
            return
        file, line, function, _ = logger.findCaller(stacklevel=3)  # beside this one, the method that was called
        record = logger.makeRecord(logger.name, level, file, line, message, args, _exception(exc_info), function)
        record.msg, record.args = record.getMessage(), None
        backlog.put(logger, record)


def _exception(given: Any) -> Any:
    """As `logging` takes it: an exception, a triple, or True for the one being handled."""
    if isinstance(given, BaseException):
        return (type(given), given, given.__traceback__)
    if given is True:
        return sys.exc_info()
    return given or None


backlog = Backlog()


def _after_fork() -> None:
    global backlog  # noqa: PLW0603 - the thread stayed in the parent, and so do the records
    backlog = Backlog()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: backlog.drain(LAST_WORDS))
