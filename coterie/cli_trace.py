"""Tracing of `clusterctl run`: the only place that sets a tracer provider, and only where the process has none.

`--trace` shows spans in the log, one line each. The standard environment variables of OpenTelemetry ask for OTLP, and say where to, as whom and how much
(OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SDK_DISABLED). An exporter that does
not get through drops spans after its own time-outs, in a thread of its own; the node does not notice.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

from coterie import __version__
from coterie.cli_errors import CommandError

FLUSH: Final = 5.0  # seconds at the stop for what waits to be exported
# What the line of a span says already, in its name or its logger's.
HIDDEN: Final = {
    "milliseconds",
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.client.id",
    "coterie.node",
}
_OTLP: Final = {
    "http/protobuf": ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "coterie[otlp]"),
    "grpc": ("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "opentelemetry-exporter-otlp-proto-grpc"),
}


def start_tracing(node: str, console: bool, environ: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Trace as the flag and the environment ask for. -> what flushes and ends it. Raises CommandError."""
    names = exporters_wanted(console, environ)
    try:
        present = trace.get_tracer_provider()
    except Exception as error:  # noqa: BLE001 - of any kind: what a variable names cannot be loaded
        raise CommandError(
            f"OTEL_PYTHON_TRACER_PROVIDER={environ.get('OTEL_PYTHON_TRACER_PROVIDER')!r}: it cannot be loaded: {error!r}"
        ) from None
    if not isinstance(present, trace.ProxyTracerProvider):  # whoever started us has set it, with exporters of its own
        if console and hasattr(present, "add_span_processor"):
            present.add_span_processor(SimpleSpanProcessor(LogExporter(node)))
        return lambda: None
    if not names:
        return lambda: None
    processors = [BatchSpanProcessor(_otlp(environ)) if name == "otlp" else SimpleSpanProcessor(LogExporter(node)) for name in names]
    provider = TracerProvider(resource=resource_of(node), shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return lambda: _shut_down(provider)


def exporters_wanted(console: bool, environ: Mapping[str, str]) -> list[str]:
    """otlp, console, both or none. Raises CommandError."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    endpoint = any(environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_"))
    names = [name.strip() for name in asked.split(",") if name.strip()] if asked else ["otlp"] * endpoint
    for name in names:
        if name not in ("otlp", "console", "none"):
            raise CommandError(f"OTEL_TRACES_EXPORTER={asked!r}: give otlp, console or none")
    return list(dict.fromkeys([name for name in names if name != "none"] + ["console"] * console))


def resource_of(node: str) -> Resource:
    """Who these spans are of; what the environment says comes first."""
    said = OTELResourceDetector().detect().attributes
    ours = {"service.name": "coterie", "service.instance.id": node, "service.version": __version__}
    return Resource.create({name: value for name, value in ours.items() if name not in said})


def _otlp(environ: Mapping[str, str]) -> SpanExporter:
    variable = next((name for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") if environ.get(name)), "")
    protocol = environ.get(variable, "http/protobuf")
    if protocol not in _OTLP:
        raise CommandError(f"{variable}={protocol!r}: give http/protobuf or grpc")
    module, package = _OTLP[protocol]
    try:
        exporter: SpanExporter = importlib.import_module(module).OTLPSpanExporter()
    except ImportError:
        raise CommandError(
            f"the environment asks for traces by OTLP ({protocol}), which needs a package more: pip install '{package}'"
        ) from None
    except Exception as error:  # noqa: BLE001 - of whatever kind: a variable that the exporter does not take
        raise CommandError(f"the exporter of traces by OTLP ({protocol}) does not start: {error}; look at OTEL_EXPORTER_OTLP_*") from None
    return exporter


def _shut_down(provider: TracerProvider) -> None:
    """Export what waits. A collector that does not answer must not hold up the stop."""
    thread = threading.Thread(target=provider.shutdown, name="coterie/trace-flush", daemon=True)
    thread.start()
    thread.join(FLUSH)


class LogExporter(SpanExporter):
    """Each span a line of the log, under `coterie.<node>.trace`, whatever the log's level is."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._log = logging.getLogger(f"coterie.{node}.trace")
        self._log.setLevel(logging.INFO)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            fields = fields_of(span)
            shown = {name.removesuffix("_id"): value for name, value in fields.items() if name not in HIDDEN}
            text = " ".join([f"{span.name} {fields['milliseconds']:.2f} ms", *(f"{name}={value}" for name, value in shown.items())])
            self._log.info("%s", text, extra={"node": self._node, "concern": "trace", "span": span.name, **fields})
        return SpanExportResult.SUCCESS


def fields_of(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    fields: dict[str, Any] = {
        "milliseconds": ((span.end_time or 0) - (span.start_time or 0)) / 1e6,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
    }
    if span.parent is not None:
        fields["parent_id"] = f"{span.parent.span_id:016x}"
    if span.links:
        fields["links"] = ",".join(f"{link.context.span_id:016x}" for link in span.links)
    if not span.status.is_ok and span.status.description:
        fields["error"] = span.status.description
    return fields | dict(span.attributes or {})
