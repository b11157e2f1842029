"""Logging that never blocks who logs: where records arrive, what waits, what is dropped; and how records look."""

import json
import logging
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from coterie.actors.errors import loggable
from coterie.logs import JsonFormatter, QuietLibraries, TextFormatter, configure
from coterie.transport import logs
from coterie.transport.limits import Complaints, Counters
from coterie.transport.logs import Backlog, Log


class Sink(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records, self.free = [], threading.Event()
        self.free.set()

    def emit(self, record):
        self.free.wait()
        self.records.append(record)


@pytest.fixture
def logged(monkeypatch):
    """(log, sink, backlog): a logger of this test's own."""
    backlog, sink = Backlog(most=5), Sink()
    monkeypatch.setattr(logs, "backlog", backlog)
    logger = logging.getLogger("coterie.test.logs")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(sink)
    yield Log("coterie.test.logs"), sink, backlog
    sink.free.set()
    assert backlog.drain(10)
    logger.removeHandler(sink)


def texts(sink):
    return [record.getMessage() for record in sink.records]


def test_a_record_arrives_as_it_was_when_it_was_made(logged):
    log, sink, backlog = logged
    sink.free.clear()
    changing = [1]
    log.warning("%s of %d", changing, 2)
    changing.append(2)
    log.debug("below the level")
    sink.free.set()
    assert backlog.drain(10)
    (record,) = sink.records
    assert (record.getMessage(), record.levelname, record.threadName) == ("[1] of 2", "WARNING", threading.current_thread().name)
    assert (record.filename, record.funcName) == ("test_logs.py", "test_a_record_arrives_as_it_was_when_it_was_made")


def test_an_exception_is_shown_in_each_of_the_ways_to_give_one(logged):
    log, sink, backlog = logged
    try:
        1 / 0  # noqa: B018 - it is to raise
    except ZeroDivisionError as error:
        log.exception("a")
        log.error("b", exc_info=error)
        log.error("c", exc_info=(type(error), error, error.__traceback__))
        log.warning("d", exc_info=True)
    assert backlog.drain(10)
    assert [record.exc_info[0] for record in sink.records] == [ZeroDivisionError] * 4


def test_a_sink_that_blocks_holds_nobody_up_and_what_is_lost_is_counted_and_told(logged):
    log, sink, backlog = logged
    sink.free.clear()
    log.info("the first")
    while backlog.waiting:  # it is with the sink
        time.sleep(0.001)
    began = time.monotonic()
    for number in range(100):
        log.info("%d", number)
    assert time.monotonic() - began < 1
    assert backlog.dropped == 95
    assert not backlog.drain(0.05)
    sink.free.set()
    assert backlog.drain(10)
    assert texts(sink) == ["the first", "95 log records were dropped while the log sink did not take them", *"01234"]


def test_a_handler_that_raises_does_not_end_the_thread(logged):
    log, sink, backlog = logged
    sink.emit = lambda record: 1 / 0
    log.info("one")
    assert backlog.drain(10)
    del sink.emit
    log.info("two")
    assert backlog.drain(10)
    assert texts(sink) == ["two"]


class Unspeakable(ValueError):
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__


def test_what_cannot_be_shown_does_not_end_who_logs_it(logged):
    log, sink, backlog = logged
    log.error("it crashed: %r", Unspeakable())
    assert backlog.drain(10)
    assert texts(sink) == ["it crashed: %r (what belongs here cannot be shown: RuntimeError)"]
    assert loggable(Unspeakable()) == "Unspeakable"


def test_a_record_carries_its_node_its_concern_its_span_and_what_is_given_beside_it(logged):
    _, sink, backlog = logged
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(0xAB, 0xCD, False))):
        Log("coterie.test.logs", "n1", "raft").info("a", extra={"term": 3})
    Log("coterie.test.logs").info("b")
    assert backlog.drain(10)
    first, second = sink.records
    assert (first.node, first.concern, first.term) == ("n1", "raft", 3)
    assert (first.trace_id, first.span_id) == (f"{0xAB:032x}", f"{0xCD:016x}")
    assert (second.node, second.concern, hasattr(second, "trace_id")) == ("", "logs", False)


def test_a_thread_of_a_node_says_whose_it_is(logged):
    _, sink, backlog = logged
    of_the_node = logging.getLogger("coterie.n2.logs")
    of_the_node.addHandler(sink)
    for name in ("n2/http", "coterie/log", "other"):
        thread = threading.Thread(target=lambda: Log("coterie.test.logs").warning("x"), name=name)
        thread.start()
        thread.join()
    assert backlog.drain(10)
    of_the_node.removeHandler(sink)
    assert [(record.node, record.name) for record in sink.records] == [("n2", "coterie.n2.logs"), *[("", "coterie.test.logs")] * 2]


# -- what an application does with records ----------------------------------------------------------------------------------------


def record(message="text", *args, name="coterie.n1.raft", level=logging.WARNING, exc_info=None, **fields):
    made = logging.LogRecord(name, level, "file.py", 7, message, args, exc_info)
    vars(made).update(fields)
    made.created = 1_700_000_000.25
    return made


def test_json_is_one_object_a_line_with_all_that_is_known():
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        text = JsonFormatter().format(
            record(
                "%d votes\nof %s",
                2,
                "روز",
                exc_info=(type(error), error, error.__traceback__),
                node="n1",
                concern="raft",
                term=3,
                peer={"a": {1}},
            )
        )
    assert "\n" not in text
    found = json.loads(text)
    assert found.pop("exception").splitlines()[-2:] == ["ValueError: two", "lines"]
    assert found == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "coterie.n1.raft",
        "node": "n1",
        "concern": "raft",
        "message": "2 votes\nof روز",
        "term": 3,
        "peer": {"a": "{1}"},
    }


def test_json_shows_the_span_of_who_logs():
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(0xAB, 0xCD, False))):
        found = json.loads(JsonFormatter().format(record(name="app")))
    assert (found["trace_id"], found["span_id"]) == (f"{0xAB:032x}", f"{0xCD:016x}")


plain = st.none() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=50), st.dictionaries(st.sampled_from(["x_a", "x_b", "x_c"]), plain | st.lists(plain, max_size=3)))
def test_json_is_valid_whatever_is_logged(message, fields):
    text = JsonFormatter().format(record("%s", message, **fields))
    assert "\n" not in text
    text.encode()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(fields) <= set(found)


def test_what_json_cannot_say_is_said_as_text():
    loop = []
    loop.append(loop)
    found = json.loads(JsonFormatter().format(record(loop=loop, keys={(1, 2): 3}, half="\ud800")))
    assert found["loop"] == "[[...]]"
    assert found["keys"] == "{(1, 2): 3}"


def test_a_line_for_people_cannot_be_forged_by_what_it_quotes():
    text = TextFormatter().format(record("from %s", "a\r\n2026-01-01 CRITICAL coterie: all is lost"))
    assert text.count("\n") == 0
    assert text.endswith(r"WARNING coterie.n1.raft: from a\r\n2026-01-01 CRITICAL coterie: all is lost")


def test_a_library_that_repeats_itself_is_heard_once_a_minute_with_the_number():
    now = [0.0]
    quiet, made = QuietLibraries(60.0, lambda: now[0]), []
    for second in range(0, 121, 4):
        now[0] = float(second)
        line = record("no route to %s", "collector", name="opentelemetry.exporter")
        if quiet.filter(line):
            made.append(line.getMessage())
    assert made == ["no route to collector", *["no route to collector (14 more like it were not logged)"] * 2]
    assert all(quiet.filter(record("ours", name="coterie.n1.raft")) for _ in range(10))
    assert all(quiet.filter(record("theirs", name="app")) for _ in range(10))


def test_what_repeats_with_other_words_each_time_does_not_fill_the_memory():
    quiet = QuietLibraries(60.0, lambda: 0.0)
    for number in range(5000):
        quiet.filter(record(f"no {number}", name="grpc"))
    assert len(quiet._seen) <= 1000


@pytest.mark.parametrize("wrong", [{"level": "loud"}, {"style": "xml"}])
def test_a_configuration_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="give one of"):
        configure(**wrong)


def test_the_whole_process_logs_as_configured():
    script = """
import logging, coterie.logs
from coterie.transport.logs import Log, backlog
handler = coterie.logs.configure("info", "json")
Log("coterie.n1.raft", "n1", "raft").info("leads", extra={"term": 3})
logging.getLogger("app").info("mine", extra={"order": 42})
logging.getLogger("uvicorn.access").info("noise")
backlog.drain(10)
handler.close()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    found = {line["message"]: line for line in map(json.loads, ran.stderr.splitlines())}
    assert set(found) == {"leads", "mine"}
    assert (found["leads"]["term"], found["leads"]["node"], found["mine"]["order"], found["mine"]["logger"]) == (3, "n1", 42, "app")


def test_a_complaint_says_how_many_were_held_back_when_there_were_any(caplog):
    now = [0.0]
    complain = Complaints("n1 http", Counters(), every=10, clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 2.0, 11.0):
        complain("garbage", "10.0.0.9:1", "no HTTP")
    assert [record.getMessage() for record in caplog.records] == [
        "n1 http: garbage from 10.0.0.9:1: no HTTP",
        "n1 http: garbage from 10.0.0.9:1: no HTTP (2 more like it were not logged)",
    ]
