"""Tracing: what the rooms know of OpenTelemetry. Its API alone; who sets an SDK is the application, or `clusterctl run --trace`.

    publish ─► forward ─► propose ─► commit ─► apply (each node) ─► deliver (each node's handler)

**The switch.** `TRACING.on` says whether anybody traces: whether the process has a tracer provider that is more than the API's stand-in. It is looked up when a node
starts and twice a second (`look`), so that a provider set later is found too, and asked on the hot path as one attribute, per batch and never per record.
While it is off no span, no context and no header is made.

**The way of a context** from thread to thread and node to node: what lies in a message's own slot (`SpanContext`), in gRPC metadata and HTTP headers
(W3C `traceparent`), in each published record's headers (its publish span), in a forwarded batch and in the extensions of its Raft entry (`to_text`).

**Batches.** One entry may carry records of many traces. A span of a batch is the child of the first of them when all are of one trace; else it begins a trace of its
own and has links to all. What is not sampled is no reason for a span.

**Ending a span** runs the provider's processors, and a simple one exports in that very call: it would hold up the actor that ends it, for as long as the
collector does not answer. So one daemon thread ends them, with the time at which they were finished. At most `MOST_WAITING` wait; what comes beyond is counted
by `dropped`.

The context API of OpenTelemetry rests on contextvars, which do not cross threads: context is attached only where the application's code runs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coterie.actors.errors import loggable
from coterie.transport.background import Background
from coterie.transport.logs import Log

__all__ = [
    "COUNT",
    "TRACING",
    "Span",
    "SpanContext",
    "SpanKind",
    "Tracing",
    "attributes_of",
    "carried",
    "context_of",
    "from_text",
    "headers_of",
    "mark_failed",
    "to_text",
]

LOG: Final = Log("coterie.tracing")
SYSTEM: Final = "coterie"  # messaging.system
COUNT: Final = "messaging.batch.message_count"
MOST_LINKS: Final = 128  # what SDKs keep of a span's links by default
MOST_WAITING: Final = 10_000
MOST_TEXT: Final = 700  # characters of a context from outside: traceparent and the 512 of tracestate, with some room
LAST_WORDS: Final = 1.0  # seconds

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_STAND_INS: Final = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)


class Tracing:
    """See the module's text. One for the process: `TRACING`."""

    def __init__(self) -> None:
        self.on = False
        self.ends = _Ends()
        self._provider: Any = None
        self._unusable = False
        self._tracer: trace.Tracer = trace.NoOpTracer()

    def look(self) -> bool:
        """Find out whether somebody traces now."""
        if self._unusable:
            return False
        try:
            provider = trace.get_tracer_provider()
        except Exception as error:  # noqa: BLE001 - of any kind: OTEL_PYTHON_TRACER_PROVIDER names what cannot be loaded. Each further try would log it again
            self._unusable = True
            LOG.warning("nothing is traced: there is no tracer provider to be had: %r; look at OTEL_PYTHON_TRACER_PROVIDER", error)
            return False
        if provider is not self._provider:
            self._provider = provider
            self._tracer = provider.get_tracer("coterie")
            self.on = not isinstance(provider, _STAND_INS)
        return self.on

    def start(
        self,
        name: str,
        kind: SpanKind,
        parents: Iterable[SpanContext] | None,
        attributes: Mapping[str, Any],
        links: Iterable[SpanContext] = (),
    ) -> Span:
        """A span that is not the current one. parents: one, or those of a batch; none: it begins a trace; None: the child of the current span.

        It runs the application's sampler and processors. What they raise must not reach an actor: then it is a span that records nothing, and counted.
        """
        context, more = (None, []) if parents is None else _parent(list(parents))
        try:
            return self._tracer.start_span(name, context, kind, dict(attributes), [Link(c) for c in [*more, *links]][:MOST_LINKS])
        except Exception as error:  # noqa: BLE001 - of any kind
            self.ends.failed(error)
            return trace.INVALID_SPAN

    def finish(self, span: Span, error: BaseException | None = None) -> None:
        """End it, now, with the error it came to. Never blocks."""
        if error is not None:
            mark_failed(span, error)
        self.ends.put(span, time.time_ns())

    @contextlib.contextmanager
    def current(self, span: Span) -> Iterator[Span]:
        """Make `span` the current one of this thread (or task) until the block ends, and finish it with what the block raises."""
        token = context_api.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            self.finish(span, error)
            raise
        else:
            self.finish(span)
        finally:
            context_api.detach(token)


def mark_failed(span: Span, error: BaseException) -> None:
    """In the words of the messaging conventions: error.type, and a status with the text."""
    if span.is_recording():
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR, loggable(error)))


def attributes_of(node: str, operation: str, topic: str = "", kind: str = "", more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What spans carry by the messaging conventions, and the node. topic: "" where there are several. kind: messaging.operation.type."""
    found: dict[str, Any] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.client.id": node,
        "coterie.node": node,
    }
    if topic:
        found["messaging.destination.name"] = topic
    if kind:
        found["messaging.operation.type"] = kind
    return {**found, **(more or {})}


def _parent(contexts: list[SpanContext]) -> tuple[Any, list[SpanContext]]:
    """(context to start in, contexts to link): see the module's text on batches."""
    if not contexts or any(c.trace_id != contexts[0].trace_id for c in contexts):
        return context_api.Context(), contexts
    return trace.set_span_in_context(trace.NonRecordingSpan(contexts[0]), context_api.Context()), contexts[1:]


# -- contexts as text -------------------------------------------------------------------------------------------------------------


def context_of(headers: Mapping[str, str] | None) -> SpanContext | None:
    """The context in HTTP headers, metadata or a record's headers; None when there is none, or none that is valid."""
    if headers is None or "traceparent" not in headers:
        return None
    parent, state = headers["traceparent"], headers.get("tracestate") or ""
    if parent.__class__ is not str or state.__class__ is not str or len(parent) + len(state) > MOST_TEXT:
        return None
    found = trace.get_current_span(_PROPAGATOR.extract({"traceparent": parent, "tracestate": state})).get_span_context()
    return found if found.is_valid else None


def headers_of(context: SpanContext) -> dict[str, str]:
    """`traceparent`, and `tracestate` when there is something in it."""
    found = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        found["tracestate"] = context.trace_state.to_header()
    return found


def to_text(context: SpanContext) -> str:
    """traceparent; behind a space, tracestate when there is something in it."""
    return " ".join(headers_of(context).values())


def from_text(text: str) -> SpanContext | None:
    """What `to_text` made; None of anything else."""
    parent, _, state = text.partition(" ")
    return context_of({"traceparent": parent, "tracestate": state})


def carried(headers: Mapping[str, str]) -> dict[str, str] | None:
    """What of a caller's trace goes into the record that it publishes while nobody traces here: it is passed on as it came. None: nothing that is valid."""
    context = context_of(headers)
    return headers_of(context) if context is not None else None


# -- ends -------------------------------------------------------------------------------------------------------------------------


class _Ends:
    """The finished spans that wait for their end."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._queue: Background[tuple[Span, int]] = Background("coterie/trace", _end, most, self._lost, self.failed)
        self.drain = self._queue.drain
        self._failures = 0
        self._at_exit = False

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def put(self, span: Span, when: int) -> None:
        if not span.is_recording():
            return
        self._queue.put((span, when))
        if not self._at_exit:  # after the provider's own shutdown was registered, and therefore called before it
            self._at_exit = True
            atexit.register(lambda: self.drain(LAST_WORDS))

    def _lost(self, count: int) -> None:
        LOG.warning("%d spans were dropped: the span processors do not take them fast enough", count)

    def failed(self, error: Exception) -> None:
        """A processor of the application's raised: its trace is incomplete, the node goes on."""
        self._failures += 1
        if self._failures in (1, 1000) or self._failures % 100_000 == 0:
            LOG.warning("%d spans could not be begun or ended so far: %r", self._failures, error)


def _end(item: tuple[Span, int]) -> None:
    span, when = item
    span.end(when)


TRACING: Final = Tracing()


def _after_fork() -> None:
    TRACING.ends = _Ends()  # the thread stayed in the parent


os.register_at_fork(after_in_child=_after_fork)
