"""What an application, or `clusterctl run`, does with the log: one object a line for machines, one line for people, and quiet libraries.

    import coterie.logs

    coterie.logs.configure(level="info", style="json")     # the whole process, to standard error

or, in a configuration of one's own, `JsonFormatter` as any other `logging.Formatter`. The library logs under `coterie.<node id>.<concern>` (raft, membership,
publisher, delivery, …), so levels can be set for a node or a concern alone. It never logs what an application publishes, nor keys.

`configure` tames other libraries: uvicorn, gRPC, httpx and asyncio say warnings only, and of lines that repeat (an exporter whose collector is away) each
is shown once in `REPEAT_EVERY` seconds, with the number of those held back. gRPC's core writes to standard error past all logging; GRPC_VERBOSITY in the
environment is respected, and set to NONE where it is not given.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Final

from coterie.transport import logs
from coterie.transport.background import Background
from coterie.transport.logs import MOST_WAITING, span_fields

__all__ = ["LEVELS", "STYLES", "BackgroundHandler", "JsonFormatter", "QuietLibraries", "TextFormatter", "configure"]

LEVELS: Final = ("debug", "info", "warning", "error")
STYLES: Final = ("text", "json")
QUIET: Final = ("uvicorn", "grpc", "httpx", "httpcore", "asyncio", "opentelemetry", "urllib3", "pykka")
REPEAT_EVERY: Final = 60.0  # seconds
MOST_REPEATED: Final = 1000  # different lines that are remembered
LAST_WORDS: Final = 1.0  # seconds

# What every record has: all else was given by whoever logged.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "node", "concern", "trace_id", "span_id"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line.

    Always: time (ISO 8601, UTC), level, logger, message. Where known: node, concern, trace_id, span_id, exception (with its traceback), and each
    field that was given as `extra`, under its name.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = vars(record)
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        document.update((name, fields[name]) for name in ("node", "concern") if fields.get(name))
        document["message"] = record.getMessage()
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            document["exception"] = record.exc_text
        if record.stack_info:
            document["stack"] = record.stack_info
        document.update({name: fields[name] for name in ("trace_id", "span_id") if name in fields} or span_fields())
        for name, value in fields.items():
            if name not in _STANDARD and name not in document:
                document[name] = value
        return _line(document)


class TextFormatter(logging.Formatter):
    """A record as one line: time, level, logger, message; an exception's traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """A message may quote what a stranger sent: it must not begin a line of its own."""
        record.message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return super().formatMessage(record)


def _line(document: dict[str, Any]) -> str:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, a number that JSON does not have, a loop
        text = json.dumps(
            {name: value if isinstance(value, (str, int)) else str(value) for name, value in document.items()}, ensure_ascii=False
        )
    return text.encode("utf-8", "backslashreplace").decode()


class BackgroundHandler(logging.Handler):
    """Writes records to `stream` from a thread of its own: `emit` never waits for whoever reads it. What does not fit is dropped, and the number is said
    when there is room again."""

    def __init__(self, stream: IO[str], formatter: logging.Formatter | None = None, capacity: int = MOST_WAITING) -> None:
        super().__init__()
        self.setFormatter(formatter or TextFormatter())
        self._stream = stream
        self._queue: Background[str] = Background("coterie/log-writer", self._write, capacity, self._lost)

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._queue.put(self.format(record)):
                logs.backlog.elsewhere += 1
        except Exception:  # noqa: BLE001 - what cannot be shown as text; logging has a place for it
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, for a second at most."""
        self._queue.close(LAST_WORDS)
        super().close()

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    def _lost(self, count: int) -> None:
        text = f"{count} log records were dropped: the log is read too slowly"
        self._write(self.format(logging.LogRecord("coterie.log", logging.WARNING, __file__, 0, text, (), None)))


class QuietLibraries(logging.Filter):
    """A filter for handlers: a line of another library that repeats is let through once in `every` seconds, with the number of those held back."""

    def __init__(self, every: float = REPEAT_EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every, self._clock = every, clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}  # (when it was let through, how many since)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in QUIET:
            return True
        key, now = (record.name, record.lineno, str(record.msg)), self._clock()
        with self._lock:
            last, held = self._seen.get(key, (None, 0))
            if last is not None and now - last < self._every:
                self._seen[key] = (last, held + 1)
                return False
            if len(self._seen) >= MOST_REPEATED:
                self._seen.clear()
            self._seen[key] = (now, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like it were not logged)", None
        return True


def configure(level: str = "info", style: str = "text", stream: IO[str] | None = None) -> BackgroundHandler:
    """Send the log of the whole process to `stream` (standard error), in place of what was configured before. -> the handler; its `close` writes what waits.

    level: debug, info, warning or error. style: text or json. Raises ValueError.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: give one of {', '.join(LEVELS)}")
    if style not in STYLES:
        raise ValueError(f"style={style!r}: give one of {', '.join(STYLES)}")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = BackgroundHandler(stream or sys.stderr, JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(QuietLibraries())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    return handler
