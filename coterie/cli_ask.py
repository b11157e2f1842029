"""What the commands ask of a node's management API, and what the answer is worth.

Over HTTP nothing but the standard library is imported. The answer is the node's JSON document as it came, so that scripts see what `curl` shows; on a
terminal it becomes a table (`cli_tables`).
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from coterie import cli_http
from coterie.cli_errors import REFUSED, UNUSABLE, WELL, CommandError, NoAnswer
from coterie.cli_http import Document
from coterie.cli_target import Target, duration, shown

# Refusals after which the same request may succeed: nobody was there to take it, or nobody knows whether it was.
UNANSWERED: Final = ("NoQuorum", "NotLeader", "Unreachable", "Indeterminate", "DeadlineExceeded")

PAUSE: Final = 0.5  # seconds between one request and the next, of a command that waits


def as_table(output: str | None) -> bool:
    return output == "table" or (not output and sys.stdout.isatty())


def say(document: Document) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


# -- status -----------------------------------------------------------------------------------------------------------------------


def ask_status(target: Target) -> Document:
    """The document of GET /status. Raises NoAnswer."""
    return target.in_turn(lambda addr: _status_at(target, addr), repeatable=True)


def _status_at(target: Target, addr: tuple[str, int]) -> Document:
    if target.grpc:
        from coterie import cli_grpc

        return cli_grpc.status(target, addr)
    document = cli_http.ask(target, addr, "GET", "/status")
    if not isinstance(document.get("Healthy"), bool):
        raise NoAnswer(f"{shown(addr)}: {document.get('error') or 'the answer is no status; is this a management address?'}", sent=True)
    return document


def status_code(document: Document) -> int:
    """0 well; 1 degraded: a quorum lives, but something is missing; 2 no leader, or no quorum."""
    if not document.get("LeaderID"):
        return UNUSABLE
    voters = [m for m in document.get("Members") or () if m.get("Suffrage") == "voter"]
    living = [m for m in voters if m.get("State", "alive") in ("alive", "suspect")]
    if voters and len(living) < len(voters) // 2 + 1:
        return UNUSABLE
    return WELL if document["Healthy"] and not document.get("Warnings") and len(living) == len(voters) else REFUSED


def members_document(status: Document) -> Document:
    """What `clusterctl members` shows of a status."""
    return {key: status.get(key) for key in ("Healthy", "LeaderID", "AnsweredBy", "Members", "Warnings")}


def topics_document(status: Document) -> Document:
    """What `clusterctl topics` shows of a status: each topic with the records that are still kept, and how far each node is behind."""
    topics = [
        {
            **topic,
            "Retained": max(0, topic["Seq"] - topic["RetainedFrom"] + 1),
            "Lag": {node: max(0, topic["Seq"] - seq) for node, seq in (topic.get("Acked") or {}).items()},
        }
        for topic in status.get("Topics") or ()
    ]
    return {
        "LeaderID": status.get("LeaderID"),
        "AnsweredBy": status.get("AnsweredBy"),
        "Topics": topics,
        "TopicsLeftOut": status.get("TopicsLeftOut", 0),
    }


def probe(target: Target, what: str) -> None:
    """Ask GET /livez or /readyz. Raises CommandError with the node's reason, NoAnswer."""
    status, text = target.in_turn(lambda addr: cli_http.get_text(target, addr, f"/{what}z"), repeatable=True)
    if not as_table(None):
        say({what: status == 200, "reason": "" if status == 200 else text})
    if status != 200:
        raise CommandError(f"not {what}: {text}", REFUSED)
    if as_table(None):
        sys.stdout.write(f"{what}\n")


# -- join, leave and transfer ---------------------------------------------------------------------------------------------------------------


def ask_change(target: Target, operation: str, body: Document) -> Document:
    """Join, leave or transfer; a node that does not lead names the leader, which is then asked, once. Raises NoAnswer."""
    answer = target.in_turn(lambda addr: _change_at(target, addr, operation, body), repeatable=False)
    leader = answer.get("leader")
    if not answer.get("accepted") and leader and leader not in map(shown, target.addrs[:1]):
        there = target.at(leader)
        answer = there.in_turn(lambda addr: _change_at(there, addr, operation, body), repeatable=False)
    return answer


def _change_at(target: Target, addr: tuple[str, int], operation: str, body: Document) -> Document:
    if target.grpc:
        from coterie import cli_grpc

        return cli_grpc.change(target, addr, operation, body)
    return cli_http.ask(target, addr, "POST", f"/{operation}", body)


def refusal(what: str, answer: Document) -> CommandError:
    """What ends the command after such an answer."""
    return CommandError(f"{what}: {answer.get('error') or answer}", UNUSABLE if answer.get("kind") in UNANSWERED else REFUSED)


def wait_change(target: Target, operation: str, body: Document, patience: float) -> Document:
    """Ask again and again until it is done or refused for good, for `patience` seconds at most. Each reason to wait is said once."""
    until, said = time.monotonic() + patience, ""
    while True:
        try:
            answer = ask_change(target, operation, body)
            reason = "" if answer.get("accepted") else str(answer.get("error"))
            final = not reason or not (answer.get("kind") in UNANSWERED or "leader" in answer)
        except NoAnswer as error:
            if time.monotonic() + PAUSE >= until:
                raise
            reason, final = str(error), False
        if final or time.monotonic() + PAUSE >= until:
            return answer
        if reason != said:
            said = reason
            sys.stderr.write(f"clusterctl: {operation} {body['id']}: {reason}; asking again\n")
        time.sleep(PAUSE)


def change(target: Target, operation: str, body: Document, output: str | None, wait: str | None = None) -> None:
    """Ask, show the answer. wait: for how long to ask again. Raises CommandError when it is a refusal."""
    answer = ask_change(target, operation, body) if wait is None else wait_change(target, operation, body, duration("--wait", wait))
    if not as_table(output):
        say(answer)
    elif answer.get("accepted"):
        sys.stdout.write(f"{operation}: {body.get('id', 'leadership')} accepted\n")
    if not answer.get("accepted"):
        raise refusal(f"{operation} {body['id']}" if "id" in body else operation, answer)


# -- writes, reads and publishes --------------------------------------------------------------------------------------------------


def request(target: Target, operation: str, body: Document, what: str, output: str | None) -> Document:
    """Ask for a write, a read or a publish. A refusal is shown when JSON is wanted. Raises CommandError, NoAnswer."""
    answer = target.in_turn(lambda addr: _request_at(target, addr, operation, body), repeatable=operation == "read")
    if "error" in answer:
        if not as_table(output):
            say(answer)
        raise refusal(what, answer)
    return answer


def _request_at(target: Target, addr: tuple[str, int], operation: str, body: Document) -> Document:
    if target.grpc:
        from coterie import cli_grpc

        return cli_grpc.request(target, addr, operation, body)
    return cli_http.ask(target, addr, "POST", f"/{operation}", body)


def payload(data: str | None) -> str:
    """The argument DATA as base64: the text itself, `-` for standard input, `@file` for a file's bytes. Raises CommandError."""
    if data == "-":
        raw = sys.stdin.buffer.read()
    elif data is not None and data.startswith("@"):
        try:
            raw = Path(data[1:]).read_bytes()
        except OSError as error:
            raise CommandError(f"{data}: {error.strerror}; give @ and the path of a file that can be read") from None
    else:
        raw = (data or "").encode("utf-8", "surrogateescape")
    return base64.b64encode(raw).decode()


def publish(
    target: Target, topic: str, data: str | None, message_id: str | None, acks: str | None, headers: dict[str, str], output: str | None
) -> None:
    body: dict[str, Any] = {"topic": topic, "data": payload(data)}
    if message_id:
        body["messageId"] = message_id
    if acks:
        body["acks"] = acks
    if headers:
        body["headers"] = headers
    answer = request(target, "publish", body, f"publish on {topic}", output)
    if not as_table(output):
        say(answer)
    else:
        place = f", seq {answer['seq']}, log index {answer['index']}" if "seq" in answer else ""
        sys.stdout.write(f"published on {topic}{place}\n")


def apply(target: Target, op: str, data: str | None, session: str | None, number: int | None, output: str | None) -> None:
    """A command; the answer is shown as that of `call`, its result under "result"."""
    if (session is None) != (number is None):
        raise CommandError("--session and --number: give both, or none of them")
    body: dict[str, Any] = {"op": op, "data": payload(data)}
    if session is not None:
        body |= {"session": session, "number": number}
    answer = request(target, "apply", body, f"apply {op}", output)
    show_bytes(answer, "result", output)


def call(target: Target, operation: str, op: str, data: str | None, output: str | None, more: Document | None = None) -> None:
    """A write or a read; on a terminal the handler's answer as it is, else {"data": base64} with "text" beside it when it is text. more: for the request."""
    body = {"op": op, "data": payload(data), **(more or {})}
    answer = request(target, operation, body, f"{'read' if operation == 'read' else 'write'} {op}", output)
    show_bytes(answer, "data", output)


def show_bytes(answer: Document, field: str, output: str | None) -> None:
    """On a terminal what the handler answered as it is, else the document, with "text" beside it when it is text."""
    raw = base64.b64decode(answer[field])
    if output == "raw" or as_table(output):
        sys.stdout.flush()
        sys.stdout.buffer.write(raw if output == "raw" or not raw or raw.endswith(b"\n") else raw + b"\n")
        sys.stdout.buffer.flush()
        return
    try:
        say({**answer, "text": raw.decode()})
    except UnicodeDecodeError:
        say(answer)
