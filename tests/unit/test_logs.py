"""Logging that never blocks who logs: where records arrive, what waits, what is dropped."""

import logging
import threading
import time

import pytest

from coterie.transport import logs
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
    while backlog._waiting:  # it is with the sink
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
