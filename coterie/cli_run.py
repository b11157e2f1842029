"""`clusterctl run`: one node as a process.

The node logs to standard error, and says there what happens in the cluster. SIGTERM and SIGINT stop it gracefully; a second one ends the process
at once. When the node gives up
by itself (its disk failed, say) the process ends with code 1 and the reason, so that whatever watches it can act. A service manager is told what
goes on (`sd_notify`).

A standard error that nobody reads holds nobody up: see `coterie.logs`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import pykka

from coterie.actors.config import Config
from coterie.actors.errors import ConfigError, CoterieError
from coterie.actors.messages import Event, LeaderChanged, Subscribe
from coterie.cli_errors import REFUSED, CommandError
from coterie.cli_flags import TLS_NAMES, source
from coterie.cli_trace import start_tracing
from coterie.logs import LAST_WORDS, LEVELS, STYLES, configure
from coterie.sd_notify import ServiceManager
from coterie.transport import logs
from coterie.transport.logs import Log

LISTENS: Final = ("raft", "gossip", "http", "grpc")
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
NAMED: Final = {*FIELDS.values(), *TLS_NAMES, "file_path", "file_env"}  # what a remedy may name


def configuration(given: Mapping[str, Any]) -> Config:
    """The Config of the flags given (by their name, with underscores). Raises ConfigError, which names the flag."""
    try:
        return Config(**{FIELDS.get(flag, flag): value for flag, value in given.items()})
    except ConfigError as error:
        remedy = re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda word: _as_flag(word[0]) if word[0] in NAMED else word[0], error.remedy)
        flag = next((flag for flag, field in FIELDS.items() if field == error.field), error.field)
        raise ConfigError(_as_flag(error.field) + source(flag), error.value, remedy) from None


def _as_flag(field: str) -> str:
    return "--" + next((flag for flag, of in FIELDS.items() if of == field), field).replace("_", "-")


def run_node(given: Mapping[str, Any], log_level: str = "info", log_format: str = "text") -> None:
    """Run until a signal comes or the node gives up. Raises CommandError."""
    for flag, value, known in (("--log-level", log_level, LEVELS), ("--log-format", log_format, STYLES)):
        if value not in known:
            raise CommandError(f"{flag} {value!r}: give one of {', '.join(known)}")
    try:
        config = configuration({flag: value for flag, value in given.items() if flag != "trace"})
    except ConfigError as error:
        raise CommandError(str(error)) from None
    handler = configure(log_level, log_format, sys.stderr)
    try:
        end_tracing = start_tracing(config.node_id, console=bool(given.get("trace")))
        try:
            _run(config)
        finally:
            end_tracing()
    finally:
        logs.backlog.drain(LAST_WORDS)
        handler.close()


def _run(config: Config) -> None:
    from coterie.transport.crowd import raise_descriptors

    raise_descriptors()
    log = Log(f"coterie.{config.node_id}.node", config.node_id, "node")
    over, manager = threading.Event(), ServiceManager()
    with _signals(over) as stopped_by:
        _run_until(over, stopped_by, config, manager, log)


def _run_until(over: threading.Event, stopped_by: list[str], config: Config, manager: ServiceManager, log: Log) -> None:
    from coterie.actors.supervisor import ClusterSupervisor

    try:
        node = ClusterSupervisor.start(config)
    except CoterieError as error:
        raise CommandError(f"node {config.node_id} did not start: {error}") from None
    events = node.ask(Subscribe())
    threading.Thread(target=_tell, args=(events, over, manager, log), name=f"{config.node_id}/cli-events", daemon=True).start()
    where = node.addresses()
    listens = ", ".join(f"{what} {where[what]}" for what in LISTENS)
    log.info("node %s runs: %s; SIGTERM or Ctrl+C stops it", config.node_id, listens)
    manager.ready("runs")
    failure, pause = None, min(LOOK_EVERY, manager.look_every or LOOK_EVERY)
    while failure is None and not over.wait(pause):
        failure = _failure(node, manager)
    manager.stopping(f"gave up: {failure}" if failure is not None else "stops")
    if stopped_by:
        log.info("node %s stops (%s)", config.node_id, stopped_by[0])
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


@contextlib.contextmanager
def _signals(over: threading.Event) -> Iterator[list[str]]:
    """The name of the first signal comes into the list, and `over` is set; the second one ends the process.

    A handler in Python runs only when the main thread gets to its next instruction, which it may never do when the signal came just before it began to wait
    for a lock. The descriptor is written in C, whatever the main thread does, and a thread of its own reads it.
    """
    seen: list[str] = []
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while number := int.from_bytes(os.read(reading, 1)):
            if number not in (signal.SIGTERM, signal.SIGINT):  # somebody else's, which has its handler
                continue
            if seen:
                os._exit(128 + number)
            seen.append(signal.Signals(number).name)
            over.set()
        os.close(reading)

    listener = threading.Thread(target=listen, name="cli-signals", daemon=True)
    listener.start()
    handlers = {number: signal.signal(number, lambda number, frame: None) for number in (signal.SIGTERM, signal.SIGINT)}
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield seen
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writing)
        listener.join()


def _tell(events: Any, over: threading.Event, manager: ServiceManager, log: Log) -> None:
    """Log what happens, until the node is closed; the service manager shows who leads."""
    for event in events:
        log.info("%s", describe(event), extra={"event": type(event).__name__, **_fields(event)})
        if isinstance(event, LeaderChanged):
            manager.status(f"runs; {event.leader_id or 'nobody'} leads in term {event.term}")
    over.set()


def describe(event: Event) -> str:
    """An event as one line of the log: its name, then its fields without the time, which the log has."""
    return " ".join([type(event).__name__, *(f"{name}={value}" for name, value in _fields(event).items())])


def _fields(event: Event) -> dict[str, Any]:
    return attrs.asdict(event, filter=lambda a, value: a.name != "time" and not (a.name == "current" and not value))
