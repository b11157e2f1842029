"""`clusterctl run` exports its spans: as lines of its log with --trace, by OTLP as the standard variables say; and a collector that is away harms nothing."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.product.commands import CLUSTERCTL, Program
from tests.product.nodes import free_port
from tests.product.wait import wait_for

DEADLINE = 30.0
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes OTLP over HTTP, as a collector does."""

    def __init__(self) -> None:
        self.resources: list[dict[str, str]] = []
        self.spans: dict[str, Any] = {}
        self.paths: list[str] = []
        self.headers: list[str | None] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    raise AssertionError("not asked for")
                collector.take(self.path, self.headers.get("x-token"), ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, token: str | None, request: ExportTraceServiceRequest) -> None:
        self.paths.append(path)
        self.headers.append(token)
        for group in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
            for scope in group.scope_spans:
                self.spans.update((span.name, span) for span in scope.spans)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


class Running:
    def __init__(self, *flags: str) -> None:
        self.mgmt = f"127.0.0.1:{free_port()}"
        self.program = Program(
            *(CLUSTERCTL, "run", "--id", "n1", "--bootstrap", "--raft-addr", "127.0.0.1:0", "--mem-bind", "127.0.0.1:0"),
            *("--mgmt-addr", self.mgmt, *flags),
        )
        wait_for(self.ready, DEADLINE, "the node is ready", every=0.1)

    def ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.mgmt}/readyz", timeout=DEADLINE) as answer:
            return bool(answer.status == 200)
        return False

    def publish(self) -> None:
        body = json.dumps({"topic": "orders", "data": "eA=="}).encode()
        request = urllib.request.Request(f"http://{self.mgmt}/appsync", body, {"traceparent": PARENT})
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            assert answer.status == 200


def test_spans_go_to_the_collector_that_the_environment_names(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret-token")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    node = Running()
    node.publish()
    assert node.program.stop() == 0  # what waited is exported before the end
    assert {"POST /appsync", "publish orders", "propose", "commit", "apply"} <= set(collector.spans)
    assert {span.trace_id.hex() for span in collector.spans.values()} == {PARENT.split("-")[1]}
    assert collector.spans["POST /appsync"].parent_span_id.hex() == PARENT.split("-")[2]
    resource = collector.resources[-1]
    assert (resource["service.name"], resource["service.instance.id"], resource["deployment.environment"]) == ("shop", "n1", "test")
    assert set(collector.paths) == {"/v1/traces"}
    assert set(collector.headers) == {"secret-token"}
    assert "secret-token" not in node.program.text


def test_a_span_is_a_line_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    node = Running("--trace", "--log-format", "json", "--log-level", "warning")
    node.publish()
    node.program.wait_line('"span": "POST /appsync"')
    assert node.program.stop() == 0
    spans = {line["span"]: line for line in map(json.loads, node.program.lines) if "span" in line}
    assert {"POST /appsync", "publish orders", "propose", "commit", "apply"} <= set(spans)
    publish = spans["publish orders"]
    assert (publish["logger"], publish["node"], publish["trace_id"]) == ("coterie.n1.trace", "n1", PARENT.split("-")[1])
    assert publish["parent_id"] == spans["POST /appsync"]["span_id"]
    assert publish["messaging.destination.name"] == "orders"
    assert publish["milliseconds"] > 0


def test_a_collector_that_is_away_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    node = Running()
    for _ in range(20):
        node.publish()
    wait_for(lambda: "trace_exporter" in node.program.text, DEADLINE, "the exporter complains")
    node.publish()
    began = time.monotonic()
    assert node.program.stop(deadline=DEADLINE) == 0
    assert time.monotonic() - began < 20  # what waits is tried for five seconds
    assert len([line for line in node.program.lines if "trace_exporter" in line]) <= 3
