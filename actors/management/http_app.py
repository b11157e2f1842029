"""The management API over HTTP: paths, methods, status codes. What a request means is the service's affair.

Every answer but `/healthz`, `/livez`, `/readyz` and `/metrics` is JSON, refusals too. The event loop never waits for the cluster: a `LightFuture` wakes
the request's task when it is resolved (`answer`), and a deadline bounds even a future that nobody resolves.

A join or leave that is not accepted because this node does not lead is answered with 200, as go-cluster does: its clients read `leader` from a 200 only. Other
refusals have a status code of their own (`failures.HTTP_STATUS`), with the same body beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coterie.actors.errors import CoterieError, DeadlineExceeded, InvalidRequest, NotLeader, PayloadTooLarge
from coterie.actors.future import LightFuture
from coterie.actors.management.backup_feed import BackupFeed
from coterie.actors.management.event_feed import EventFeed
from coterie.actors.management.failures import HTTP_STATUS, as_ours, kind_of
from coterie.actors.management.raft_document import raft_document
from coterie.actors.management.requests import OPERATIONS, Operation, letters_document, parse_letters, parse_object
from coterie.actors.management.service import ClusterService, status_json, unready
from coterie.actors.management.spans import keep_trace, traced_endpoint
from coterie.actors.raft_report import GetRaftReport
from coterie.transport.http_server import BodyTooLarge, BodyTooSlow, read_body
from coterie.transport.logs import Log

__all__ = ["answer", "http_app"]

LOG: Final = Log("coterie.management")
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
READY_TIMEOUT: Final = 2.0
HEADROOM: Final = 64 << 10  # bytes of a request beside its payload


async def answer(future: LightFuture, timeout: float) -> Any:
    """Wait for `future` without blocking the event loop. Raises what it was failed with, or DeadlineExceeded after `timeout` seconds."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped, and nobody waits any more
            loop.call_soon_threadsafe(done.set)

    future.on_done(wake)
    try:
        async with asyncio.timeout(timeout):
            await done.wait()
    except TimeoutError:
        raise DeadlineExceeded(f"no answer within {timeout:g} s; the request may or may not take effect") from None
    return future.get(timeout=0)


def http_app(service: ClusterService, feed: EventFeed | None = None) -> Starlette:
    """The ASGI application of one node. feed: the listeners to its events, which whoever stops the server closes first."""
    endpoints = _Endpoints(service, feed or EventFeed(service, answer))
    routes = [
        Route("/status", endpoints.status, methods=["GET"]),
        Route("/healthz", endpoints.healthy, methods=["GET"]),
        Route("/livez", endpoints.alive, methods=["GET"]),
        Route("/readyz", endpoints.ready, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/events", endpoints.events, methods=["GET"]),
        Route("/dead-letters", endpoints.dead_letters, methods=["GET"]),
        Route("/raft", endpoints.raft, methods=["GET"]),
        Route("/backup", endpoints.backup, methods=["GET"]),
        *(
            Route(f"/{name}", traced_endpoint(service.node_id, f"/{name}", endpoints.post(operation)), methods=["POST"])
            for name, operation in OPERATIONS.items()
        ),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _bug})


class _Endpoints:
    def __init__(self, service: ClusterService, feed: EventFeed) -> None:
        self._service, self._feed, self._backups = service, feed, BackupFeed(service, answer)
        self._limit = (service.max_payload * 4 + 2) // 3 + HEADROOM

    async def status(self, request: Request) -> Response:
        try:
            status = await answer(self._service.status(), self._service.timeout + 1.0)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it as an answer
            return _error(error)
        return Response(status_json(status), media_type="application/json")

    async def events(self, request: Request) -> Response:
        try:
            return await self._feed.answer(request)
        except Exception as error:  # noqa: BLE001 - as above
            return _error(error)

    async def healthy(self, request: Request) -> Response:
        """Of go-cluster: the process serves."""
        return PlainTextResponse("ok")

    async def alive(self, request: Request) -> Response:
        """Whether a new start would be of no use."""
        condition = self._service.condition()
        failed = condition.state == "failed"
        return PlainTextResponse(condition.reason if failed else "ok", status_code=503 if failed else 200)

    async def ready(self, request: Request) -> Response:
        """Whether requests should come here."""
        condition = self._service.condition()
        if condition.reason:
            return PlainTextResponse(condition.reason, status_code=503)
        try:
            reason = unready(await answer(self._service.readiness(), READY_TIMEOUT))
        except Exception as error:  # noqa: BLE001 - as above
            reason = unready(as_ours(error))
        return PlainTextResponse(reason or "ok", status_code=503 if reason else 200)

    async def metrics(self, request: Request) -> Response:
        text = await asyncio.to_thread(self._service.metrics)  # with many topics it takes its time, and others ask whether this node lives
        return Response(text, headers={"content-type": METRICS_TYPE})

    async def dead_letters(self, request: Request) -> Response:
        try:
            message = parse_letters(request.query_params)
            page = await answer(self._service.request(message), self._service.patience(message))
        except Exception as error:  # noqa: BLE001 - as above
            return _error(error)
        return _json(letters_document(page))

    async def raft(self, request: Request) -> Response:
        try:
            report = await answer(self._service.request(GetRaftReport()), self._service.timeout + 1.0)
        except Exception as error:  # noqa: BLE001 - as above
            return _error(error)
        return _json(raft_document(report))

    async def backup(self, request: Request) -> Response:
        try:
            return await self._backups.answer()
        except Exception as error:  # noqa: BLE001 - as above
            return _error(error)

    def post(self, operation: Operation) -> Any:
        async def serve(request: Request) -> Response:
            try:
                body = await read_body(request.receive, request.headers.get("content-length"), self._limit)
            except BodyTooLarge as error:
                return _json(operation.refuse(PayloadTooLarge(str(error))), 413)
            except BodyTooSlow as error:
                return _json(operation.refuse(InvalidRequest(str(error))), 408, close=True)
            try:
                message = keep_trace(operation.parse(_with_query(parse_object(body), request)), request.headers)
                reply = await answer(self._service.request(message), self._service.patience(message))
            except Exception as error:  # noqa: BLE001 - as above
                ours = as_ours(error)
                known = 200 if isinstance(ours, NotLeader) and "accepted" in operation.refuse(ours) else _status(ours)
                return _json(operation.refuse(ours), known)
            return _json(operation.answer(reply))

        return serve


def _status(error: CoterieError) -> int:
    return HTTP_STATUS.get(kind_of(error), 500)


def _error(error: BaseException) -> Response:
    ours = as_ours(error)
    return _json({"error": str(ours), "kind": kind_of(ours)}, _status(ours))


def _json(document: dict[str, Any], status: int = 200, close: bool = False) -> Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return Response(body, status_code=status, media_type="application/json", headers={"connection": "close"} if close else None)


async def _http_error(request: Request, error: Exception) -> Response:
    """No such path, or not with that method."""
    assert isinstance(error, HTTPException)
    response = _json({"error": f"{request.method} {request.url.path}: {error.detail.lower()}"}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _error(error)


def _with_query(document: dict[str, Any], request: Request) -> dict[str, Any]:
    """What may stand in the query string as well: it is only looked at where the body has no word about it."""
    consistency = request.query_params.get("consistency")
    return document if consistency is None else {"consistency": consistency, **document}
