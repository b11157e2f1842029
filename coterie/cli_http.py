"""A question over HTTP, with the standard library alone: `http.client` is imported in 17 ms where httpx takes 85."""

from __future__ import annotations

import http.client
import json
from typing import Any, Final

from coterie.cli_connect import describe, http_connection
from coterie.cli_errors import CommandError, NoAnswer
from coterie.cli_target import Target, shown

Document = dict[str, Any]

MOST: Final = 64 << 20  # bytes of an answer that are read


def connect(target: Target, addr: tuple[str, int]) -> http.client.HTTPConnection:
    """A connection that is open. Raises NoAnswer."""
    connection = http_connection(*addr, target.timeout, target.tls)
    try:
        connection.connect()
    except TimeoutError:
        raise NoAnswer(f"{shown(addr)}: no answer within {target.timeout:g} s", sent=False) from None
    except (OSError, UnicodeError) as error:
        connection.close()
        raise NoAnswer(f"{shown(addr)} cannot be asked: {describe(error, target.tls)}", sent=False) from None
    return connection


def ask(target: Target, addr: tuple[str, int], method: str, path: str, body: Document | None = None) -> Document:
    """The JSON object that is the answer, refusals too. Raises NoAnswer, CommandError."""
    status, text = _exchange(target, addr, method, path, body)
    document = as_object(text)
    if document is None:
        raise NoAnswer(
            f"{shown(addr)}: the answer is no JSON object; is this the management address of a node, and does it speak HTTP?", sent=True
        )
    if status in (404, 405):
        raise CommandError(f"{shown(addr)} does not know {method} {path}: does it run this version?")
    return document


def get_text(target: Target, addr: tuple[str, int], path: str) -> tuple[int, str]:
    """(status, text) of a path that answers with text. Raises NoAnswer."""
    status, text = _exchange(target, addr, "GET", path, None)
    return status, text.decode(errors="replace").strip()


def _exchange(target: Target, addr: tuple[str, int], method: str, path: str, body: Document | None) -> tuple[int, bytes]:
    connection = connect(target, addr)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        answer = connection.getresponse()
        return answer.status, answer.read(MOST)
    except TimeoutError:
        raise NoAnswer(f"{shown(addr)}: no answer within {target.timeout:g} s", sent=True) from None
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"{shown(addr)} cannot be asked: {describe(error, target.tls)}", sent=True) from None
    finally:
        connection.close()


def as_object(text: bytes) -> Document | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
