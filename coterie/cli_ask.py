"""`status`, `join`, `leave`: one question to a node's management API, and its answer shown.

Over HTTP nothing but the standard library is imported. The answer is the node's JSON document as it came, so that scripts see what `curl` shows; on a
terminal it becomes a table (`cli_tables`).
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from coterie.cli_errors import REFUSED, UNUSABLE, CommandError

Document = dict[str, Any]

MOST: Final = 64 << 20
TLS_FLAGS: Final = ("tls_enable", "tls_ca", "tls_cert", "tls_key", "tls_skip_verify", "tls_server_name")


def refuse_tls(flags: Mapping[str, Any]) -> None:
    """Raises CommandError when a flag of TLS is given, which this version does not have."""
    for name in TLS_FLAGS:
        if flags.get(name):
            raise CommandError(f"--{name.replace('_', '-')}: TLS is not in this version; leave it out")


def ask_status(addr: str, timeout: str, output: str, proto: str) -> int:
    """Print the status; the exit code that it means."""
    wait, table = _timeout(timeout), _as_table(output)
    document = _grpc_status(addr, wait) if _is_grpc(proto) else _http(addr, "GET", "/status", None, wait)
    if not isinstance(document.get("Healthy"), bool):
        raise CommandError(f"{addr}: {document.get('error') or 'the answer is no status; is this a management address?'}")
    if table:
        from coterie.cli_tables import show_status

        show_status(document)
    else:
        _print(document)
    return status_code(document)


def status_code(document: Document) -> int:
    """0 well; 1 degraded: a quorum lives, but something is missing; 2 no leader, or no quorum."""
    if not document.get("LeaderID"):
        return UNUSABLE
    voters = [m for m in document.get("Members") or () if m.get("Suffrage") == "voter"]
    living = [m for m in voters if m.get("State", "alive") in ("alive", "suspect")]
    if voters and len(living) < len(voters) // 2 + 1:
        return UNUSABLE
    return 0 if document["Healthy"] and not document.get("Warnings") and len(living) == len(voters) else REFUSED


def ask_change(operation: str, body: Document, addr: str, proto: str, timeout: str, output: str) -> None:
    """Join or leave; a node that does not lead names the leader, which is then asked, once."""
    wait, table = _timeout(timeout), _as_table(output)
    ask = _grpc_change if _is_grpc(proto) else _http_change
    answer = ask(addr, operation, body, wait)
    leader = answer.get("leader")
    if not answer.get("accepted") and leader and leader != addr:
        answer = ask(leader, operation, body, wait)
    if table and answer.get("accepted"):
        sys.stdout.write(f"{operation}: {body['id']} accepted\n")
    elif not table:
        _print(answer)
    if not answer.get("accepted"):
        unanswered = answer.get("kind") in ("NoQuorum", "Unreachable", "Indeterminate", "DeadlineExceeded")
        raise CommandError(f"{operation} {body['id']}: {answer.get('error') or answer}", UNUSABLE if unanswered else REFUSED)


def _print(document: Document) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _as_table(output: str) -> bool:
    if output not in ("", "table", "json"):
        raise CommandError(f"--output {output!r}: give table or json")
    return output == "table" or (not output and sys.stdout.isatty())


def _is_grpc(proto: str) -> bool:
    if proto not in ("http", "grpc"):
        raise CommandError(f"--mgmt-proto {proto!r}: give http or grpc")
    return proto == "grpc"


def _timeout(text: str) -> float:
    from coterie.actors.durations import seconds

    try:
        number = float(text) if text.replace(".", "", 1).isdigit() else seconds(text)
    except ValueError as error:
        raise CommandError(f"--timeout {text!r}: {error}") from None
    if number <= 0:
        raise CommandError(f"--timeout {text!r}: give a duration above zero")
    return number


def _host_port(addr: str) -> tuple[str, int]:
    host, _, port = addr.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535) or any(c.isspace() or c in "/@" for c in host):
        raise CommandError(f"--addr {addr!r}: give a management address, host:port")
    return host, int(port)


# -- HTTP -----------------------------------------------------------------------------------------------------------------------------


def _http_change(addr: str, operation: str, body: Document, timeout: float) -> Document:
    return _http(addr, "POST", f"/{operation}", body, timeout)


def _http(addr: str, method: str, path: str, body: Document | None, timeout: float) -> Document:
    host, port = _host_port(addr)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        text = connection.getresponse().read(MOST)
    except TimeoutError:
        raise CommandError(f"{addr}: no answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise CommandError(f"{addr} cannot be asked: {error or type(error).__name__}; is a node up there?") from None
    finally:
        connection.close()
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise CommandError(f"{addr}: the answer is no JSON object; is this the management address of a node, and does it speak HTTP?")
    return document


# -- gRPC -----------------------------------------------------------------------------------------------------------------------------


def _grpc_status(addr: str, timeout: float) -> Document:
    from coterie.actors.errors import CoterieError
    from coterie.actors.management.client import NodeClient
    from coterie.actors.management.requests import status_document
    from coterie.transport.grpc_client import ChannelPool

    host, port = _host_port(addr)
    pool = ChannelPool()
    try:
        status = NodeClient(pool, forwarded=False).status(f"{host}:{port}", timeout).get(timeout=timeout + 1)
    except CoterieError as error:
        raise CommandError(str(error)) from None
    finally:
        pool.close()
    return status_document(status)


def _grpc_change(addr: str, operation: str, body: Document, timeout: float) -> Document:
    from coterie.actors.errors import CoterieError, NotLeader
    from coterie.actors.management.client import NodeClient
    from coterie.actors.management.failures import kind_of
    from coterie.transport.grpc_client import ChannelPool

    host, port = _host_port(addr)
    pool = ChannelPool()
    client = NodeClient(pool, forwarded=False)
    try:
        if operation == "join":
            client.join(f"{host}:{port}", body["id"], body["raftAddr"], timeout).get(timeout=timeout + 1)
        else:
            client.leave(f"{host}:{port}", body["id"], timeout).get(timeout=timeout + 1)
    except NotLeader as error:
        return {"accepted": False, "leader": _grpc_address(client, f"{host}:{port}", error, timeout), "error": "not leader"}
    except CoterieError as error:
        return {"accepted": False, "error": str(error), "kind": kind_of(error)}
    finally:
        pool.close()
    return {"accepted": True}


def _grpc_address(client: Any, asked: str, refused: Any, timeout: float) -> str:
    """Where the leader speaks gRPC: the address in the refusal is its management address, which may be the one of its HTTP server."""
    from coterie.actors.errors import CoterieError

    try:
        status = client.status(asked, timeout).get(timeout=timeout + 1)
    except CoterieError:
        return str(refused.leader_addr)
    return str(next((m.meta["grpc"] for m in status.members if m.id == refused.leader_id and "grpc" in m.meta), refused.leader_addr))
