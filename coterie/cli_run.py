"""`clusterctl run`: one node as a process.

The node logs to standard error, and says there what happens in the cluster. SIGTERM and SIGINT stop it gracefully; a second one ends the process
at once. When the node gives up
by itself (its disk failed, say) the process ends with code 1 and the reason, so that whatever watches it can act. A service manager is told what
goes on (`sd_notify`).

Logging never holds an actor up: records go to a bounded queue and a thread writes them, since a standard error that nobody reads would otherwise stop the
cluster while health says ok. What does not fit is dropped, and the number is said when there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import IO, Any, Final

import attrs
import pykka

from coterie.actors.config import Config
from coterie.actors.errors import ConfigError, CoterieError
from coterie.actors.messages import Event, LeaderChanged, Subscribe
from coterie.cli_errors import REFUSED, CommandError
from coterie.sd_notify import ServiceManager

LOG: Final = logging.getLogger("coterie.node")
LEVELS: Final = ("debug", "info", "warning", "error")
LOG_QUEUE: Final = 10_000
LOOK_EVERY: Final = 1.0  # seconds between looks whether the node still serves

# Flags whose name differs from the field of Config that they set.
FIELDS: Final = {
    "id": "node_id",
    "join": "seeds_csv",
    "discovery": "discovery_kind",
    "dns_names": "dns_names_csv",
    "dns_servers": "dns_servers_csv",
    "data": "data_dir",
}


def configuration(given: Mapping[str, Any]) -> Config:
    """The Config of the flags given (by their name, with underscores). Raises ConfigError, which names the flag."""
    if "trace" in given:
        raise ConfigError("--trace", True, "this version does not have it yet; leave it out")
    try:
        return Config(**{FIELDS.get(flag, flag): value for flag, value in given.items()})
    except ConfigError as error:
        flag = next((flag for flag, field in FIELDS.items() if field == error.field), error.field)
        raise ConfigError("--" + flag.replace("_", "-"), error.value, error.remedy) from None


def run_node(given: Mapping[str, Any], log_level: str) -> None:
    """Run until a signal comes or the node gives up. Raises CommandError."""
    if log_level not in LEVELS:
        raise CommandError(f"--log-level {log_level!r}: give one of {', '.join(LEVELS)}")
    try:
        config = configuration(given)
    except ConfigError as error:
        raise CommandError(str(error)) from None
    handler = BackgroundLog(sys.stderr)
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        _run(config)
    finally:
        handler.close()


def _run(config: Config) -> None:
    from coterie.actors.supervisor import ClusterSupervisor

    over, manager = threading.Event(), ServiceManager()
    stopped_by = _on_signals(over)
    try:
        node = ClusterSupervisor.start(config)
    except CoterieError as error:
        raise CommandError(f"node {config.node_id} did not start: {error}") from None
    events = node.ask(Subscribe())
    threading.Thread(target=_tell, args=(events, over, manager), name=f"{config.node_id}/cli-events", daemon=True).start()
    LOG.info("node %s runs; SIGTERM or Ctrl+C stops it", config.node_id)
    manager.ready("runs")
    failure, pause = None, min(LOOK_EVERY, manager.look_every or LOOK_EVERY)
    while failure is None and not over.wait(pause):
        failure = _failure(node, manager)
    manager.stopping(f"gave up: {failure}" if failure is not None else "stops")
    if stopped_by:
        LOG.info("node %s stops (%s)", config.node_id, stopped_by[0])
        node.stop()
        return
    with contextlib.suppress(pykka.ActorDeadError):
        node.stop()
    raise CommandError(f"node {config.node_id} gave up: {failure or 'its supervisor stopped'}", REFUSED)


def _failure(node: Any, manager: ServiceManager) -> object:
    """Why the node serves no more; None while it does, and is said to live."""
    try:
        failure = node.ask("failed", timeout=LOOK_EVERY)
    except pykka.Timeout:  # it is busy
        return None
    except pykka.ActorDeadError as error:
        return error
    if failure is None:
        manager.alive()
    return failure


def _on_signals(over: threading.Event) -> list[str]:
    """The name of the first signal comes into the list, and `over` is set; the second one ends the process."""
    seen: list[str] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(signal.Signals(number).name)
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return seen


def _tell(events: Any, over: threading.Event, manager: ServiceManager) -> None:
    """Log what happens, until the node is closed; the service manager shows who leads."""
    for event in events:
        LOG.info("%s", describe(event))
        if isinstance(event, LeaderChanged):
            manager.status(f"runs; {event.leader_id or 'nobody'} leads in term {event.term}")
    over.set()


def describe(event: Event) -> str:
    """An event as one line of the log: its name, then its fields without the time, which the log has."""
    fields = attrs.asdict(event, filter=lambda a, _: a.name != "time")
    return " ".join([type(event).__name__, *(f"{name}={value}" for name, value in fields.items())])


class BackgroundLog(logging.Handler):
    """Writes records to `stream` from a thread of its own; `emit` never waits."""

    def __init__(self, stream: IO[str], capacity: int = LOG_QUEUE) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self.dropped = 0
        self._stream = stream
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._write, name="cli-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, for a second at most."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:  # nobody reads the stream, so its thread is stuck; it is a daemon, and ends with the process
            return
        self._thread.join(1.0)
        super().close()

    def _write(self) -> None:
        said = 0
        while (record := self._queue.get()) is not None:
            if self.dropped > said:
                said, text = self.dropped, f"{self.dropped} log records were dropped so far: the log is read too slowly\n"
                self._stream.write(text)
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()
