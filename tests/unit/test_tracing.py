"""Tracing in one process: contexts as text, spans of batches, what the handler sees, and what nobody pays for while nobody traces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from coterie import AsyncCluster, Cluster, Config, HandlerActor, HandlerFailed, InvalidRequest, Publish, PublishMany
from coterie.actors import tracing
from coterie.actors.handler_messages import Deliver
from coterie.actors.management.spans import keep_trace
from coterie.actors.node.reference import ClusterRef
from coterie.actors.replication import spans
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.proposals import Ticket
from coterie.actors.traced import TracedPublisher, traced_handler
from coterie.actors.tracing import TRACING, context_of, from_text, headers_of, to_text
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.proto.record_batch import encode_batch
from tests.product.wait import wait_for

WAIT = 20.0
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traces:
    """An application's provider, and the spans that were exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.set = False

    @property
    def all(self) -> list[ReadableSpan]:
        assert TRACING.ends.drain(WAIT)
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def wait(self, name: str, count: int = 1) -> list[ReadableSpan]:
        wait_for(lambda: len(self.named(name)) >= count, WAIT, f"{count} × {name}")
        return self.named(name)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """A provider that is there once `set` is True."""
    traces, nobody = Traces(), trace.ProxyTracerProvider()
    with monkeypatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", lambda: traces.provider if traces.set else nobody)
        patch.setattr(TRACING, "ends", tracing._Ends())
        TRACING.look()
        yield traces
        TRACING.ends.drain(WAIT)
    TRACING.look()


@pytest.fixture
def traces(later: Traces) -> Traces:
    later.set = True
    TRACING.look()
    return later


class Handler(HandlerActor):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes, Any, dict[str, str] | None]] = []
        self.fail = 0

    def handle_sync(self, topic: str, data: bytes, record: Any = None) -> None:
        self.seen.append((data, trace.get_current_span().get_span_context(), record.headers))
        if self.fail:
            self.fail -= 1
            raise ValueError("not today")

    def handle_write(self, op: str, request: bytes) -> bytes:
        if op == "fail":
            raise ValueError("not today")
        return f"{trace.get_current_span().get_span_context().span_id}".encode()


class World:
    def __init__(self, **config: Any) -> None:
        anywhere = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")
        ref = Handler.start()
        self.handler: Handler = ref._actor_weakref()  # type: ignore[assignment]
        self.cluster = Cluster(Config(node_id="n1", bootstrap=True, **{**anywhere, **config}), ref)
        self.stop = lambda: (self.cluster.stop(), ref.stop())

    def delivered(self, count: int) -> list[Any]:
        wait_for(lambda: len(self.handler.seen) >= count, WAIT, f"{count} deliveries")
        return self.handler.seen


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(**getattr(request, "param", {"repl_retry": 0.05}))
    yield world
    world.stop()


# -- contexts as text -------------------------------------------------------------------------------------------------------------

contexts = st.builds(
    lambda t, s, flags, state: SpanContext(t, s, True, TraceFlags(flags), TraceState(list(state.items()))),
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    st.integers(0, 255),
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), st.from_regex(r"[!-+\--<>-~]{1,20}", fullmatch=True), max_size=5),
)


@given(contexts)
def test_a_context_survives_the_way_as_text(context: SpanContext) -> None:
    assert from_text(to_text(context)) == context
    assert context_of(headers_of(context)) == context


@pytest.mark.parametrize(
    "text", ["", " ", "x", PARENT[:-1], PARENT + "x", PARENT.replace("00-", "ff-", 1), "00-" + "0" * 32 + PARENT[35:], PARENT * 20]
)
def test_what_is_no_context_is_none(text: str) -> None:
    assert from_text(text) is None
    assert context_of({"traceparent": text}) is None


def test_headers_that_are_no_text_are_no_context() -> None:
    assert context_of({"traceparent": b"x"}) is None  # type: ignore[dict-item]
    assert context_of({"traceparent": PARENT, "tracestate": 1}) is None  # type: ignore[dict-item]
    assert context_of(None) is None


# -- spans of batches -------------------------------------------------------------------------------------------------------------


def record(trace_id: int, span_id: int, sampled: bool = True) -> list[Any]:
    return [b"x", None, headers_of(SpanContext(trace_id, span_id, True, TraceFlags(int(sampled))))]


def chunk(*records: Any, ticket: Any = None) -> Chunk:
    made = Chunk("t", 0, 0.0, False, ticket)
    made.records = list(records)
    return made


def forwarded(span: Any) -> ReadableSpan:
    assert span is not None
    return span  # type: ignore[no-any-return]


def test_a_batch_of_one_trace_is_a_child_and_links_its_other_spans(traces: Traces) -> None:
    span = forwarded(spans.forward("n2", "n1", "t", [chunk(record(7, 1), b"plain", record(7, 2)), chunk(record(7, 1))]))
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (7, 1)
    assert [link.context.span_id for link in span.links] == [2]
    assert (span.attributes or {})["messaging.batch.message_count"] == 4


def test_a_batch_of_several_traces_begins_its_own_and_links_all(traces: Traces) -> None:
    span = forwarded(spans.forward("n2", "n1", "t", [chunk(record(7, 1), record(8, 2), record(9, 3, sampled=False))]))
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [1, 2]


def test_a_huge_batch_of_many_traces_has_as_many_links_as_are_kept(traces: Traces) -> None:
    span = forwarded(spans.forward("n2", "n1", "t", [chunk(*(record(n, n) for n in range(1, 1000)))]))
    assert len(span.links) == spans.MOST_PARENTS


def test_nothing_sampled_is_no_span(traces: Traces) -> None:
    assert spans.forward("n2", "n1", "t", [chunk(b"plain", record(7, 1, sampled=False))]) is None
    batch = encode_batch("t", 1, [b"plain"])
    assert spans.entry("n1", [batch], [[chunk(b"plain")]], 1) is None


def test_an_entry_s_applications_on_all_nodes_are_children_of_its_commit(traces: Traces) -> None:
    text = to_text(SpanContext(7, 5, True, TraceFlags(1)))
    batch = encode_batch("t", 1, [record(7, 1)])
    entry = spans.entry("n1", [batch], [[chunk(record(7, 1), ticket=Ticket("s", 1, 1, lambda *_: None, text))]], 3)
    assert entry is not None
    committed = Entry(9, 3, COMMAND, b"", entry.extensions)
    applied = [spans.apply(node, committed) for node in ("n1", "n2")]
    entry.ended(None)  # the quorum had it before the leader's own disk
    entry.appended(9)
    (commit,), (propose,) = traces.wait("commit"), traces.wait("propose")
    assert (propose.parent.span_id, propose.kind.name) == (5, "SERVER")  # type: ignore[union-attr]
    assert commit.parent.span_id == propose.context.span_id  # type: ignore[union-attr]
    assert {span.parent.span_id for span in applied if span is not None} == {commit.context.span_id}  # type: ignore[attr-defined]


@pytest.mark.parametrize("extensions", [b"", b"\xff\xfe", b"chunk", PARENT[:-2].encode() + b"00"])
def test_extensions_of_others_are_no_trace(traces: Traces, extensions: bytes) -> None:
    assert spans.apply("n1", Entry(9, 3, COMMAND, b"", extensions)) is None


# -- a node -----------------------------------------------------------------------------------------------------------------------


def test_the_handler_works_inside_the_deliver_span(traces: Traces, world: World) -> None:
    with traces.provider.get_tracer("app").start_as_current_span("asking") as asking:
        place = world.cluster.publish("t", b"x", message_id="m1", headers={"a": "b"})
    ((_, current, headers),) = world.delivered(1)
    (deliver,), (publish,), (apply,) = traces.wait("deliver t"), traces.wait("publish t"), traces.wait("apply")
    assert current == deliver.context
    assert headers == {"a": "b", **headers_of(publish.context)}
    assert publish.parent == asking.get_span_context()
    assert deliver.parent == apply.context
    found = dict(publish.attributes or {})
    assert (found["messaging.message.id"], found["coterie.seq"], found["coterie.index"]) == ("m1", place.seq, place.index)
    assert found["messaging.operation.type"] == "send"
    assert dict(deliver.attributes or {})["messaging.operation.type"] == "process"


def test_a_call_with_many_records_is_one_span_and_the_first_record_takes_it_along(traces: Traces, world: World) -> None:
    with traces.provider.get_tracer("app").start_as_current_span("asking") as asking:
        place = world.cluster.publish_many("t", [b"a", b"b"])
    seen = world.delivered(2)
    (publish,), delivers, (apply,) = traces.wait("publish t"), traces.wait("deliver t", 2), traces.wait("apply")
    assert publish.parent == asking.get_span_context()
    found = dict(publish.attributes or {})
    assert (found["messaging.batch.message_count"], found["coterie.seq"], found["coterie.index"]) == (2, place.first_seq, place.index)
    assert [headers for _, _, headers in seen] == [headers_of(publish.context), None]
    assert [deliver.parent for deliver in delivers] == [apply.context] * 2
    world.cluster.ref.tell(PublishMany("t", [b"c"]))
    assert world.delivered(3)[2][0] == b"c"


def test_a_provider_that_is_set_after_the_start_is_found(later: Traces, world: World) -> None:
    world.cluster.publish("t", b"before")
    assert world.delivered(1)[0][2] is None
    later.set = True
    wait_for(lambda: TRACING.on and isinstance(world.cluster.ref.publisher, TracedPublisher), WAIT, "the provider is found")
    world.cluster.publish("t", b"after")
    later.wait("deliver t")
    assert [span.name for span in later.all if span.name.startswith("publish")] == ["publish t"]


def test_a_failing_handler_is_seen_and_its_next_attempt(traces: Traces, world: World) -> None:
    world.handler.fail = 1
    world.cluster.publish("t", b"x")
    first, second = traces.wait("deliver t", 2)
    assert (first.status.status_code.name, dict(first.attributes or {})["error.type"]) == ("ERROR", "ValueError")
    assert [dict(span.attributes or {})["coterie.attempt"] for span in (first, second)] == [1, 2]
    assert second.status.status_code.name == "UNSET"


def test_what_the_caller_says_in_the_headers_comes_before_the_current_span(traces: Traces, world: World) -> None:
    message = Publish("t", b"x", headers={"traceparent": PARENT, "tracestate": "a=b"})
    with traces.provider.get_tracer("app").start_as_current_span("asking"):
        world.cluster.ref.ask(message)
    (publish,) = traces.wait("publish t")
    assert publish.parent is not None
    assert to_text(publish.parent) == f"{PARENT} a=b"
    assert message.headers == {"traceparent": PARENT, "tracestate": "a=b"}  # it is the caller's
    assert world.delivered(1)[0][2] == {**headers_of(publish.context), "tracestate": "a=b"}


def test_a_publish_that_is_told_or_refused_has_its_span(traces: Traces, world: World) -> None:
    world.cluster.ref.tell(Publish("told", b"x"))
    traces.wait("publish told")
    with pytest.raises(InvalidRequest):
        world.cluster.publish("refused", b"x", headers=["no dict"])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        world.cluster.publish(7, b"x")  # type: ignore[arg-type]
    (refused,) = traces.wait("publish refused")
    assert dict(refused.attributes or {})["error.type"] == "InvalidRequest"


@pytest.mark.parametrize("world", [{"max_payload": 4096}], indirect=True)
def test_a_record_as_large_as_may_be_is_published_without_its_context(traces: Traces, world: World) -> None:
    world.cluster.publish("t", b"x" * 4096)
    world.cluster.publish("t", b"x" * 100, headers={str(n): "" for n in range(64)})
    assert [headers and "traceparent" in headers for _, _, headers in world.delivered(2)] == [None, False]
    assert len(traces.wait("publish t", 2)) == 2


def test_a_write_and_its_failure(traces: Traces, world: World) -> None:
    inside = int(world.cluster.write("op", b""))
    (handle,), (write,) = traces.wait("handle write"), traces.wait("write")
    assert (handle.context.span_id, handle.parent) == (inside, write.context)
    with pytest.raises(HandlerFailed):
        world.cluster.write("fail", b"")
    wait_for(lambda: [s.status.status_code.name for s in traces.named("write")] == ["UNSET", "ERROR"], WAIT, "the failed write's span")


def test_a_processor_that_blocks_holds_nobody_up(traces: Traces, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    blocked = TracerProvider()
    exporter = InMemorySpanExporter()
    blocked.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(exporter, "export", lambda spans: free.wait())
    traces.provider = blocked
    TRACING.ends._queue._most = 5
    TRACING.look()
    try:
        for n in range(20):
            world.cluster.publish("t", b"%d" % n)
        world.delivered(20)
        assert TRACING.ends.dropped > 0
        assert any("spans were dropped" in warning for warning in world.cluster.status().warnings)
    finally:
        free.set()
    assert TRACING.ends.drain(WAIT)


def test_a_node_stops_though_the_exporter_hangs(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    free, asked, stopped = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(traces.exporter, "export", lambda spans: (asked.set(), free.wait()))
    world = World()
    try:
        world.cluster.publish("t", b"x")
        assert asked.wait(WAIT)
        threading.Thread(target=lambda: (world.stop(), stopped.set()), daemon=True).start()
        assert stopped.wait(3 * WAIT)
    finally:
        free.set()


def test_where_nothing_is_sampled_the_exporter_is_not_asked_and_the_record_says_so(
    traces: Traces, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    traces.provider = TracerProvider(sampler=ALWAYS_OFF)
    traces.provider.add_span_processor(SimpleSpanProcessor(traces.exporter))
    monkeypatch.setattr(traces.exporter, "export", asked.append)
    TRACING.look()
    for n in range(3):
        world.cluster.publish("t", b"%d" % n)
    seen = world.delivered(3)
    assert TRACING.ends.drain(WAIT)
    assert (asked, TRACING.ends.dropped) == ([], 0)
    flags = [int((headers or {})["traceparent"][-2:], 16) for _, _, headers in seen]
    assert [flag & TraceFlags.SAMPLED for flag in flags] == [0, 0, 0]


def test_a_processor_that_raises_is_survived(traces: Traces, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleSpanProcessor, "on_end", lambda *_: 1 / 0)
    world.cluster.publish("t", b"x")
    assert TRACING.ends.drain(WAIT)
    monkeypatch.undo()
    world.cluster.publish("t", b"y")
    world.delivered(2)


def test_a_processor_or_sampler_that_raises_as_spans_begin_is_survived(
    traces: Traces, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimpleSpanProcessor, "on_start", lambda *_, **__: 1 / 0)
    world.cluster.publish("t", b"x")
    world.delivered(1)
    monkeypatch.undo()
    span_of_the_publish_only = traces.provider.get_tracer("app").start_as_current_span("asking")
    with span_of_the_publish_only, monkeypatch.context() as patch:
        begin = traces.provider.sampler.should_sample

        def odd(context: Any, trace_id: int, name: str, *more: Any, **options: Any) -> Any:
            return begin(context, trace_id, name, *more, **options) if name.startswith("publish") else 1 / 0

        patch.setattr(traces.provider.sampler, "should_sample", odd)
        world.cluster.publish("t", b"y")
        world.delivered(2)
    world.cluster.publish("t", b"z")
    world.delivered(3)
    assert not world.cluster.status().warnings


# -- nobody traces ----------------------------------------------------------------------------------------------------------------


def test_while_nobody_traces_nothing_stands_in_the_way_and_no_span_is_asked_for(later: Traces, world: World, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a span was asked for")

    monkeypatch.setattr(trace.NoOpTracer, "start_span", refuse)
    monkeypatch.setattr(type(TRACING), "start", refuse)
    assert isinstance(world.cluster.ref, ClusterRef)
    assert type(world.cluster.ref.publisher).__name__ == "Ref"
    world.cluster.publish("t", b"x")
    world.cluster.write("op", b"")
    assert world.delivered(1) == [(b"x", trace.INVALID_SPAN_CONTEXT, None)]


def test_a_caller_s_trace_is_passed_on_while_nobody_traces(later: Traces, world: World) -> None:
    world.cluster.publish("t", b"x", headers={"traceparent": PARENT})
    assert world.delivered(1)[0][2] == {"traceparent": PARENT}
    found = keep_trace(Publish("t", b"x"), {"traceparent": PARENT, "tracestate": "a=b", "cookie": "secret"})
    assert found.headers == {"traceparent": PARENT, "tracestate": "a=b"}
    assert keep_trace(Publish("t", b"x"), {"traceparent": "garbage"}).headers is None
    assert keep_trace(Publish("t", b"x"), {}).headers is None


# -- the handler's span where an apply span is missing, and other ways in -----------------------------------------------------------


def test_a_record_that_came_without_its_entry_is_delivered_as_a_child_of_its_publish(traces: Traces) -> None:
    """By a stream to a member outside of the quorum, or from the buffer after a restart."""
    seen = []
    batch = Deliver("t", [(1, b"x", record(7, 1)[2]), (2, b"y", None)], 9, 0.0, 3, "n4")
    handle = traced_handler(batch, lambda topic, data: seen.append(trace.get_current_span().get_span_context()))
    handle("t", b"x")
    handle("t", b"y")
    first, second = traces.wait("deliver t", 2)
    assert first.parent is not None
    assert (first.parent.trace_id, first.parent.span_id) == (7, 1)
    assert second.parent is None
    assert [span.context for span in (first, second)] == seen
    assert [dict(span.attributes or {})["coterie.attempt"] for span in (first, second)] == [3, 1]


def test_a_record_of_another_trace_than_its_entry_s_stays_in_its_own_and_links(traces: Traces) -> None:
    applied = SpanContext(8, 5, False, TraceFlags(1))
    traced_handler(Deliver("t", [(1, b"x", record(7, 1)[2])], 9, 0.0, 1, "n1", applied), lambda topic, data: None)("t", b"x")
    (span,) = traces.wait("deliver t")
    assert span.parent is not None
    assert (span.parent.trace_id, [link.context.span_id for link in span.links]) == (7, [5])


def test_publishes_with_await_belong_to_the_task_that_awaits(traces: Traces) -> None:
    async def publish() -> None:
        anywhere = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")
        async with AsyncCluster(Config(node_id="n1", bootstrap=True, **anywhere)) as cluster:

            async def one(name: str) -> None:
                with traces.provider.get_tracer("app").start_as_current_span(f"asking {name}"):
                    await cluster.publish(name, b"x")

            await asyncio.gather(one("a"), one("b"))

    asyncio.run(publish())
    for name in ("a", "b"):
        (publish_span,), (asking,) = traces.wait(f"publish {name}"), traces.wait(f"asking {name}")
        assert publish_span.parent == asking.context


@pytest.mark.parametrize("world", [{"repl_retry": 0.01, "repl_attempts": 2}], indirect=True)
def test_a_dead_letter_is_in_the_trace_of_its_record(traces: Traces, world: World) -> None:
    seen = []
    world.handler.handle_dead_letter = lambda letter: seen.append(trace.get_current_span().get_span_context())  # type: ignore[method-assign]
    world.handler.fail = 2
    world.cluster.publish("t", b"x")
    wait_for(lambda: bool(seen), WAIT, "the dead letter is handled")
    (publish,) = traces.wait("publish t")
    assert seen[0].trace_id == publish.context.trace_id
    assert seen[0].span_id in {span.context.span_id for span in traces.all if span.name.startswith("deliver")}


def test_a_provider_that_cannot_be_loaded_is_said_once_and_the_node_goes_on(later: Traces, monkeypatch: Any, caplog: Any) -> None:
    asked = []

    def broken() -> Any:
        asked.append(1)
        raise RuntimeError("no such entry point")

    monkeypatch.setattr(trace, "get_tracer_provider", broken)
    monkeypatch.setattr(TRACING, "_unusable", False)
    assert [TRACING.look(), TRACING.look()] == [False, False]
    assert len(asked) == 1
    assert caplog.text.count("OTEL_PYTHON_TRACER_PROVIDER") == 1
