"""Logging that never blocks who logs.

A log sink can block: a full pipe, a disk that hangs, a collector that is away. An actor that writes to it would stand still while holding a vote, a
lease or a window, and the cluster would stop with it while every health check answers (etcd issue 22214). So an actor, or a thread that reads a
socket, only makes the record; one daemon thread of the process hands records to the loggers they were made for. The application's configuration of
`logging` stays as it is: its levels are asked before a record is made, its handlers and filters get it afterwards.

At most `MOST_WAITING` records wait; what comes beyond that is counted by `dropped`, and the count is logged when the sink takes records again. The
text is formatted at once, since what it shows may change before its turn comes. At the interpreter's end the thread gets `LAST_WORDS` seconds.

Beside its text a record carries fields: `node` and `concern` always, `trace_id` and `span_id` inside a span, and what the line gives as `extra`. A
formatter may show them (`coterie.logs.JsonFormatter` does).

`logging.handlers.QueueHandler` lost: it must be the application's own choice for each of its handlers, and the default one blocks.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace

from coterie.transport.background import Background

MOST_WAITING: Final = 10_000
LAST_WORDS: Final = 1.0  # seconds

Item = tuple[logging.Logger, logging.LogRecord]


class Backlog:
    """The records that wait for their sink, and the thread that brings them there. elsewhere: what handlers of ours dropped behind it, which counts too."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._queue: Background[Item] = Background("coterie/log", self._hand_over, most, self._lost)
        self._last: logging.Logger | None = None
        self.elsewhere = 0
        self.put = self._queue.put
        self.drain = self._queue.drain

    @property
    def dropped(self) -> int:
        return self._queue.dropped + self.elsewhere

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    def _hand_over(self, item: Item) -> None:
        """What a handler raises, beyond what logging reports by itself, is lost: there is nowhere left to say it."""
        self._last, record = item
        self._last.handle(record)

    def _lost(self, count: int) -> None:
        assert self._last is not None
        self._last.warning("%d log records were dropped while the log sink did not take them", count)


class Log:
    """The methods of a `logging.Logger` that this library uses; each returns at once. node, concern: whose it is; without a node it is the node of the
    thread that logs, and goes to that node's logger."""

    __slots__ = ("_concern", "_logger", "_node")

    def __init__(self, name: str, node: str = "", concern: str = "") -> None:
        self._logger = logging.getLogger(name)
        self._node, self._concern = node, concern or name.rpartition(".")[2]

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

    def _log(self, level: int, message: str, args: tuple[Any, ...], exc_info: Any = None, extra: Mapping[str, Any] | None = None) -> None:
        logger, node = self._logger, self._node
        if not node and (node := _node_of_thread()):
            logger = logging.getLogger(f"coterie.{node}.{self._concern}")
        if not logger.isEnabledFor(level):
            return
        file, line, function, _ = logger.findCaller(stacklevel=3)  # beside this one, the method that was called
        fields = {**(extra or {}), "node": node, "concern": self._concern, **span_fields()}
        record = logger.makeRecord(logger.name, level, file, line, message, args, _exception(exc_info), function, fields)
        try:
            record.msg = record.getMessage()
        except Exception as error:  # noqa: BLE001 - what shows itself badly, such as an application's exception, must not end who logs it, as nowhere in logging
            record.msg = f"{message} (what belongs here cannot be shown: {type(error).__name__})"
        record.args = None
        backlog.put((logger, record))


def span_fields() -> dict[str, str]:
    """trace_id and span_id of the current span, in hexadecimal; empty without one."""
    context = trace.get_current_span().get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"} if context.is_valid else {}


def _node_of_thread() -> str:
    """The threads of a node are named `<node>/<concern>`; those of the process `coterie/…`."""
    node, slash, _ = threading.current_thread().name.partition("/")
    return node if slash and node != "coterie" else ""


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
