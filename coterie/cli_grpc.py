"""The same questions over gRPC, for `--mgmt-proto grpc`, in the JSON that nodes of go-cluster take too. Answers have the shape that HTTP gives them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from coterie.actors.errors import CoterieError, NotLeader, Unreachable, VersionMismatch
from coterie.actors.future import LightFuture
from coterie.actors.management.client import NodeClient
from coterie.actors.management.failures import kind_of
from coterie.actors.management.requests import refusal_document, status_document
from coterie.cli_errors import NoAnswer
from coterie.cli_http import Document
from coterie.cli_target import Target, shown
from coterie.transport.grpc_client import ChannelPool


@contextlib.contextmanager
def _client(target: Target) -> Iterator[NodeClient]:
    pool = ChannelPool(tls=target.tls)
    try:
        yield NodeClient(pool, forwarded=False, as_json=True)
    finally:
        pool.close()


def status(target: Target, addr: tuple[str, int]) -> Document:
    """The document of GET /status. Raises NoAnswer."""
    with _client(target) as client:
        try:
            return status_document(client.status(shown(addr), target.timeout).get(timeout=target.timeout + 1))
        except CoterieError as error:
            raise NoAnswer(str(error), sent=True) from None


def change(target: Target, addr: tuple[str, int], operation: str, body: Document) -> Document:
    """Join, leave or transfer. Raises NoAnswer when nobody listens there."""
    asks: dict[str, Callable[[NodeClient], LightFuture]] = {
        "join": lambda client: client.join(shown(addr), body["id"], body["raftAddr"], target.timeout),
        "leave": lambda client: client.leave(shown(addr), body["id"], target.timeout),
        "transfer": lambda client: client.transfer(shown(addr), body.get("id"), target.timeout),
    }
    with _client(target) as client:
        try:
            asks[operation](client).get(timeout=target.timeout + 1)
        except NotLeader as error:
            return {"accepted": False, "leader": _grpc_address(client, shown(addr), error, target.timeout), "error": "not leader"}
        except Unreachable as error:
            raise NoAnswer(str(error), sent=False) from None
        except CoterieError as error:
            return {"accepted": False, "error": str(error), "kind": kind_of(error)}
    return {"accepted": True}


def _grpc_address(client: NodeClient, asked: str, refused: NotLeader, timeout: float) -> str:
    """Where the leader speaks gRPC: the address in the refusal is its management address, which may be the one of its HTTP server."""
    try:
        status = client.status(asked, timeout).get(timeout=timeout + 1)
    except CoterieError:
        return str(refused.leader_addr)
    return str(next((m.meta["grpc"] for m in status.members if m.id == refused.leader_id and "grpc" in m.meta), refused.leader_addr))


def request(target: Target, addr: tuple[str, int], operation: str, body: Document) -> Document:
    """A write, a read, a command or a publish, as the body of its HTTP request. Raises NoAnswer."""
    data = base64.b64decode(body["data"])
    asks: dict[str, Callable[[NodeClient], Document]] = {
        "appwrite": lambda client: _data(client.write(shown(addr), body["op"], data, target.timeout), target),
        "read": lambda client: _data(client.read_at(shown(addr), body["op"], data, body.get("consistency") or "", target.timeout), target),
        "apply": lambda client: _applied(
            client.apply(shown(addr), body["op"], data, body.get("session"), body.get("number"), target.timeout), target
        ),
        "publish": lambda client: _published(client, target, addr, body, data),
    }
    with _client(target) as client:
        try:
            return asks[operation](client)
        except Unreachable as error:
            raise NoAnswer(str(error), sent=False) from None
        except CoterieError as error:
            return refusal_document(error)


def _answer(future: LightFuture, target: Target) -> Any:
    return future.get(timeout=target.timeout + 1)


def _data(future: LightFuture, target: Target) -> Document:
    return {"data": base64.b64encode(_answer(future, target)).decode()}


def _applied(future: LightFuture, target: Target) -> Document:
    applied = _answer(future, target)
    return {"index": applied.index, "result": base64.b64encode(applied.result).decode()}


def _published(client: NodeClient, target: Target, addr: tuple[str, int], body: Document, data: bytes) -> Document:
    """Of a node of go-cluster too, which knows neither message ids, headers nor levels, and tells no place."""
    name, headers, acks = body.get("messageId") or "", body.get("headers") or {}, body.get("acks") or ""
    try:
        published = _answer(client.publish_at(shown(addr), body["topic"], data, target.timeout, name, headers, acks), target)
    except VersionMismatch:
        if name or headers or acks:
            raise
        _answer(client.publish(shown(addr), body["topic"], data, target.timeout), target)
        return {"topic": body["topic"]}
    return {"topic": published.topic, "seq": published.seq, "index": published.index}
