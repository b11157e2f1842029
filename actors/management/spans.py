"""Server spans: a request over HTTP or gRPC belongs to the trace that its caller names, and what it becomes belongs to the request.

HTTP carries the context in the headers `traceparent` and `tracestate`, gRPC in metadata of the same names. While nobody traces here, the context of a publish
goes into its record as it came (`keep_trace`), so that a handler that traces by other means finds it there; all else costs one attribute test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from coterie.actors.messages import Publish
from coterie.actors.tracing import TRACING, SpanKind, carried, context_of
from coterie.transport.grpc_server import Call, Method

__all__ = ["keep_trace", "traced_endpoint", "traced_services"]

Endpoint = Callable[[Request], Awaitable[Response]]


def traced_endpoint(node: str, path: str, serve: Endpoint) -> Endpoint:
    """`serve` for POST on `path`, in a span while somebody traces."""

    async def traced(request: Request) -> Response:
        if not TRACING.on:
            return await serve(request)
        attributes = {"http.request.method": "POST", "http.route": path, "url.path": path, "coterie.node": node}
        with TRACING.current(TRACING.start(f"POST {path}", SpanKind.SERVER, _parents(request.headers), attributes)) as span:
            response = await serve(request)
            span.set_attribute("http.response.status_code", response.status_code)
            return response

    return traced


def traced_services(node: str, services: Mapping[str, Mapping[str, Method]]) -> dict[str, dict[str, Method]]:
    """The services with a span around each unary call that does work; questions and streams go without."""
    return {
        service: {
            name: method._replace(serve=_traced_call(node, f"{service}/{name}", method.serve)) if method.kind == "work" else method
            for name, method in methods.items()
        }
        for service, methods in services.items()
    }


def _traced_call(node: str, name: str, serve: Callable[[Any, Call], Any]) -> Callable[[Any, Call], Any]:
    def traced(body: Any, call: Call) -> Any:
        if not TRACING.on:
            return serve(body, call)
        attributes = {"rpc.system.name": "grpc", "rpc.method": name, "coterie.node": node}
        with TRACING.current(TRACING.start(name, SpanKind.SERVER, _parents(call.metadata), attributes)):
            return serve(body, call)

    return traced


def _parents(headers: Mapping[str, Any]) -> list[Any]:
    context = context_of(headers)
    return [context] if context is not None else []


def keep_trace(message: Any, headers: Mapping[str, Any]) -> Any:
    """A publish with the context of its caller, while nobody traces here; any other message as it is."""
    if TRACING.on or message.__class__ is not Publish or "traceparent" not in headers:
        return message
    context = carried(headers)
    if context is not None:
        message.headers = {**(message.headers or {}), **context}
    return message
