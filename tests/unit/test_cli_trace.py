"""Which exporters the flag and the environment ask for, and that a provider that is there already is left in place."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from coterie.cli_errors import CommandError
from coterie.cli_trace import exporters_wanted, resource_of, start_tracing


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """-> the providers that were set."""
    found: list[Any] = []
    monkeypatch.setattr(trace, "set_tracer_provider", found.append)
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    return found


@pytest.mark.parametrize(
    ("console", "environ", "wanted"),
    [
        (False, {}, []),
        (True, {}, ["console"]),
        (False, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp"]),
        (False, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, ["otlp"]),
        (True, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp", "console"]),
        (False, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, []),
        (True, {"OTEL_TRACES_EXPORTER": "none"}, ["console"]),
        (True, {"OTEL_TRACES_EXPORTER": " console , otlp "}, ["console", "otlp"]),
        (True, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, []),
    ],
)
def test_what_is_asked_for(console: bool, environ: dict[str, str], wanted: list[str]) -> None:
    assert exporters_wanted(console, environ) == wanted


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER='zipkin': give otlp, console or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier pigeon"}, "OTEL_EXPORTER_OTLP_PROTOCOL='carrier pigeon'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "opentelemetry-exporter-otlp-proto-grpc"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_variable(environ: dict[str, str], said: str) -> None:
    with pytest.raises(CommandError) as refused:
        start_tracing("n1", False, environ)
    assert said in str(refused.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, nothing_set: list[Any]) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(CommandError, match=r"pip install 'coterie\[otlp\]'"):
        start_tracing("n1", False, {"OTEL_TRACES_EXPORTER": "otlp"})
    assert nothing_set == []


def test_nothing_asked_for_is_nothing_set(nothing_set: list[Any]) -> None:
    start_tracing("n1", False, {})()
    assert nothing_set == []


def test_a_provider_that_is_there_is_left_in_place(monkeypatch: pytest.MonkeyPatch, nothing_set: list[Any]) -> None:
    present = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: present)
    start_tracing("n1", True, {"OTEL_TRACES_EXPORTER": "otlp"})()
    assert nothing_set == []
    assert len(present._active_span_processor._span_processors) == 1  # the log's; its own exporters are its owner's


def test_the_environment_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resource_of("n1").attributes["service.name"] == "coterie"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7")
    found = resource_of("n1").attributes
    assert (found["service.name"], found["service.instance.id"]) == ("shop", "pod-7")


def test_a_provider_that_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise StopIteration

    monkeypatch.setattr(trace, "get_tracer_provider", broken)
    with pytest.raises(CommandError, match="OTEL_PYTHON_TRACER_PROVIDER='bogus'"):
        start_tracing("n1", False, {"OTEL_PYTHON_TRACER_PROVIDER": "bogus"})
