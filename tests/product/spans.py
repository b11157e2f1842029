"""Spans of node processes as lines of files: a tracer provider such as an application would set, and what reads it back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

VARIABLE: Final = "COTERIE_TEST_SPANS"  # the directory for the files; without it a worker does not trace


class FileExporter(SpanExporter):
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        os.write(self._file, "".join(json.dumps(document(span)) + "\n" for span in spans).encode())
        return SpanExportResult.SUCCESS


def document(span: ReadableSpan) -> dict[str, Any]:
    assert span.instrumentation_scope is not None
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent is not None else None,
        "kind": span.kind.name,
        "attributes": dict(span.attributes or {}),
        "links": [link.context.span_id for link in span.links],
        "process": span.resource.attributes.get("service.instance.id"),
        "scope": span.instrumentation_scope.name,
        "status": span.status.status_code.name,
        "start": span.start_time,
        "end": span.end_time,
    }


def trace_to_files(node: str) -> trace.Tracer | None:
    """The application's own provider, when the variable asks for one. -> its tracer."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": "app", "service.instance.id": node}))
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(Path(directory) / f"{node}.spans")))
    trace.set_tracer_provider(provider)
    return trace.get_tracer("app")


def read(directory: Path, scope: str = "coterie") -> list[dict[str, Any]]:
    found = [json.loads(line) for path in sorted(directory.glob("*.spans")) for line in path.read_text().splitlines()]
    return [span for span in found if scope in ("", span["scope"])]


def names(spans: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(span["name"] for span in spans)
