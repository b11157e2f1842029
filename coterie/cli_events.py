"""`clusterctl events`: what happens in the cluster, as it happens.

The node's lines of JSON come through as they are, where no terminal is; on one they become a line for people each. Heartbeats are not shown: they tell that the
node is there, and their absence ends the command.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from coterie import cli_http
from coterie.cli_ask import as_table, say
from coterie.cli_errors import CommandError, NoAnswer
from coterie.cli_target import Target, duration, shown

SILENCE: Final = 30.0  # seconds without even a heartbeat, of which one comes every ten


def listen(target: Target, output: str | None, count: int | None, time_limit: str | None) -> None:
    """Until `count` events have come, the time is over, or Ctrl-C. Raises CommandError when the node ends it, or nobody answers."""
    if target.grpc:
        raise CommandError("--mgmt-proto grpc: events come over HTTP; give the node's HTTP address, and leave --mgmt-proto out")
    until = None if time_limit is None else time.monotonic() + duration("--for", time_limit)
    show = _tell if as_table(output) else say
    came = 0
    try:
        for event in _events(target, until):
            show(event)
            came += 1
            if came == count:
                return
    except KeyboardInterrupt:
        sys.stderr.write("\n")


def _events(target: Target, until: float | None) -> Iterator[dict[str, Any]]:
    """Events, and where some were missed a word of it, until the time is over."""
    where, answer, connection = target.in_turn(lambda addr: _open(target, addr), repeatable=True)
    sock, heard = connection.sock, False
    try:
        while True:
            if sock is not None:  # it is none once the node has sent all
                left = SILENCE if until is None else min(SILENCE, until - time.monotonic())
                if left <= 0:
                    return
                sock.settimeout(left)
            line = answer.readline()
            if not line:
                raise CommandError(f"{shown(where)} has ended it: the node is stopping")
            event = cli_http.as_object(line)
            if event is None:
                raise CommandError(f"{shown(where)}: {line[:80]!r} is no event; is this the management address of a node?")
            if event.get("event") != "heartbeat":
                yield event
            elif not heard:
                heard = True
                sys.stderr.write(f"clusterctl: listening at {shown(where)}; Ctrl-C ends it\n")
    except TimeoutError:
        if until is None or time.monotonic() < until:
            raise CommandError(f"{shown(where)}: nothing was heard for {SILENCE:g} s, not even a heartbeat") from None
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"{shown(where)}: the connection was lost: {error or type(error).__name__}") from None
    finally:
        connection.close()


def _open(target: Target, addr: tuple[str, int]) -> tuple[tuple[str, int], http.client.HTTPResponse, http.client.HTTPConnection]:
    connection = cli_http.connect(target, addr)
    try:
        connection.request("GET", "/events")
        answer = connection.getresponse()
        if answer.status != 200:
            refused = cli_http.as_object(answer.read(cli_http.MOST)) or {}
            raise NoAnswer(f"{shown(addr)}: {refused.get('error') or f'it answered with {answer.status}'}", sent=True)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise NoAnswer(f"{shown(addr)} cannot be asked: {error or type(error).__name__}; does it speak HTTP?", sent=True) from None
    except BaseException:
        connection.close()
        raise
    return addr, answer, connection


def _tell(event: dict[str, Any]) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(event.get("time", 0)))
    rest = "  ".join(f"{name} {value if isinstance(value, (str, int)) else json.dumps(value)}" for name, value in _fields(event))
    sys.stdout.write(f"{at}  {event.get('event')}  {rest}\n")
    sys.stdout.flush()


def _fields(event: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in event.items() if name not in ("event", "time") and value != "")
