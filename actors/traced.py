"""Tracing at the two ends of the house: where an application's request comes in, and where its handler is called.

The request's span begins in the thread that asks, since only there the caller's context can be seen, and ends with the answer. A publish takes its
span's context along in its record's headers. Any other request goes to the supervisor in an envelope, `Traced`, whose context is attached while the
supervisor looks at it.

Nothing here runs while nobody traces: the reference then holds the publisher itself and not `TracedPublisher`, and the handler calls the application's method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry import trace

from coterie.actors.base import Ref
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import ApplyCommands, Deliver
from coterie.actors.messages import Apply, Here, Join, Leave, Publish, Published, PublishMany, Read, TransferLeadership, Write
from coterie.actors.tracing import COUNT, TRACING, Span, SpanContext, SpanKind, attributes_of, context_of, headers_of

__all__ = ["Traced", "TracedPublisher", "ask_traced", "current_context", "traced_apply", "traced_call", "traced_handler"]

HEADER_ROOM: Final = 1024  # bytes: a record closer than this to max_payload goes without the context, instead of being too large for it
MOST_HEADERS: Final = 62  # with traceparent and tracestate, what a publish may have
_NAMES: Final[dict[type, str]] = {Write: "write", Read: "read", Join: "join", Leave: "leave", TransferLeadership: "transfer"}


def current_context() -> SpanContext | None:
    """Of this thread's current span, when there is one and somebody traces."""
    if not TRACING.on:
        return None
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


# -- requests ---------------------------------------------------------------------------------------------------------------------


class TracedPublisher:
    """Stands in the reference for the publisher while somebody traces."""

    def __init__(self, publisher: Ref, node: str, max_payload: int) -> None:
        self.publisher, self._node, self._fits = publisher, node, max_payload - HEADER_ROOM
        self.actor_stopped = publisher.actor_stopped

    def tell(self, message: Publish | PublishMany | Apply) -> None:
        if isinstance(message, Apply):
            span = self._begun_apply(message)
            self.publisher.tell(Traced(message, span.get_span_context()))
            TRACING.finish(span)
            return
        span, message = self._begun(message) if isinstance(message, Publish) else self._begun_many(message)
        try:
            self.publisher.tell(message)
        except BaseException as error:
            TRACING.finish(span, error)
            raise
        TRACING.finish(span)

    def ask(self, message: Publish | PublishMany | Apply, *, block: bool = False) -> LightFuture:
        future: LightFuture
        if isinstance(message, Apply):
            applying = self._begun_apply(message)
            future = self.publisher.ask(Traced(message, applying.get_span_context()), block=False)
            future.on_done(lambda: TRACING.finish(applying, future.error))
            return future
        span, message = self._begun(message) if isinstance(message, Publish) else self._begun_many(message)
        future = self.publisher.ask(message, block=False)
        future.on_done(lambda: _published(span, future))
        return future

    def _begun_apply(self, message: Any) -> Span:
        op = message.op if isinstance(message.op, str) else ""
        return TRACING.start("apply", SpanKind.CLIENT, None, {"coterie.node": self._node, "coterie.op": op})

    def _begun(self, message: Publish) -> tuple[Span, Publish]:
        """The span, and the publish with its context. What is wrong with the publish is left for the publisher to say."""
        headers = message.headers if isinstance(message.headers, dict) else None
        given = context_of(headers)
        topic = message.topic if isinstance(message.topic, str) else ""
        named = {"messaging.message.id": message.message_id} if isinstance(message.message_id, str) else {}
        attributes = attributes_of(self._node, "publish", topic, "send", named)
        span = TRACING.start(f"publish {topic}", SpanKind.PRODUCER, [given] if given is not None else None, attributes)
        context = span.get_span_context()
        fits = isinstance(message.data, bytes) and len(message.data) + _size(headers) <= self._fits and len(headers or ()) <= MOST_HEADERS
        if context.is_valid and fits and (headers is not None or message.headers is None):
            kept = {name: value for name, value in (headers or {}).items() if name not in ("traceparent", "tracestate")}
            message = Publish(
                message.topic, message.data, message.acks, message.message_id, {**kept, **headers_of(context)}, message.timeout
            )
        return span, message

    def _begun_many(self, message: PublishMany) -> tuple[Span, PublishMany]:
        """As `_begun`, one span for all records; the first one takes its context along."""
        records = message.data if isinstance(message.data, list) else []
        topic = message.topic if isinstance(message.topic, str) else ""
        span = TRACING.start(
            f"publish {topic}", SpanKind.PRODUCER, None, attributes_of(self._node, "publish", topic, "send", {COUNT: len(records)})
        )
        context = span.get_span_context()
        if context.is_valid and records and isinstance(records[0], bytes) and len(records[0]) <= self._fits:
            message = PublishMany(message.topic, records, message.acks, message.timeout, headers_of(context))
        return span, message


def _size(headers: dict[Any, Any] | None) -> int:
    return sum(len(str(name)) + len(str(value)) for name, value in headers.items()) * 4 if headers else 0


def _published(span: Span, future: LightFuture) -> None:
    if future.error is None and span.is_recording():
        done = future.get(timeout=0)
        seq = done.seq if isinstance(done, Published) else done.first_seq
        span.set_attributes({"coterie.seq": seq, "coterie.index": done.index})
    TRACING.finish(span, future.error)


class Traced:
    """The supervisor's envelope: a message, and the context that it belongs to."""

    __slots__ = ("context", "message")

    def __init__(self, message: Any, context: SpanContext) -> None:
        self.message, self.context = message, context

    @contextmanager
    def attached(self) -> Iterator[Any]:
        """The message, with its context as the current one of this thread."""
        token = context_api.attach(trace.set_span_in_context(trace.NonRecordingSpan(self.context)))
        try:
            yield self.message
        finally:
            context_api.detach(token)


def ask_traced(ask: Callable[[Any], LightFuture], message: Any, node: str) -> LightFuture:
    """Ask the supervisor; what another node has passed on goes on in the span that brought it."""
    name = _NAMES.get(message.__class__)
    if name is None:
        context = current_context() if message.__class__ is Here else None
        return ask(Traced(message, context) if context is not None else message)
    detail = {"coterie.op": message.op} if isinstance(message, (Write, Read)) else {"coterie.member": str(message.id or "")}
    span = TRACING.start(name, SpanKind.CLIENT, None, {"coterie.node": node, **detail})
    future = ask(Traced(message, span.get_span_context()))
    future.on_done(lambda: TRACING.finish(span, future.error))
    return future


# -- the handler ------------------------------------------------------------------------------------------------------------------


def traced_handler(batch: Deliver, handle: Callable[..., Any]) -> Callable[..., Any]:
    """`handle_sync` for the records of `batch`, in order, each in a span of its own that is current meanwhile.

    Its parent is the span in which this node applied the batch, where that is of the record's trace; else the publish itself.
    """
    records = iter(batch.records)
    applied, attempt = batch.trace, batch.attempt

    def call(topic: str, data: bytes, **more: Any) -> None:
        nonlocal attempt
        seq, _, headers = next(records)
        published = context_of(headers)
        related = [c for c in (applied, published) if c is not None]
        near = applied if published is None or (applied is not None and applied.trace_id == published.trace_id) else published
        place = {"coterie.seq": seq, "coterie.index": batch.index, "coterie.attempt": attempt}
        attributes = attributes_of(batch.node, "deliver", topic, "process", place)
        attempt = 1
        span = TRACING.start(
            f"deliver {topic}", SpanKind.CONSUMER, [near] if near is not None else [], attributes, [c for c in related if c is not near]
        )
        with TRACING.current(span):
            handle(topic, data, **more)

    return call


def traced_apply(batch: ApplyCommands, handle: Callable[..., Any]) -> Callable[..., Any]:
    """`handle_apply` in a span for each command, below the one in which this node applied their entry."""

    def call(index: int, op: str, data: bytes) -> Any:
        attributes = {"coterie.node": batch.node, "coterie.op": op, "coterie.command": index}
        span = TRACING.start("handle apply", SpanKind.INTERNAL, [batch.trace], attributes)
        with TRACING.current(span):
            return handle(index, op, data)

    return call


def traced_call(method: Callable[[str, bytes], Any], name: str, node: str, parent: SpanContext) -> Callable[[str, bytes], Any]:
    """`handle_write` or `handle_read` in a span that is current meanwhile."""

    def call(op: str, data: bytes) -> Any:
        span = TRACING.start(name, SpanKind.INTERNAL, [parent], {"coterie.node": node, "coterie.op": op})
        with TRACING.current(span):
            return method(op, data)

    return call
