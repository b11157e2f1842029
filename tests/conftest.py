"""What all tests share."""

from __future__ import annotations

import signal

import hypothesis
import pytest

from coterie.transport import logs

# A shell ignores Ctrl-C for what it runs in the background, and every child would inherit that: the tests that send it would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes is the machine's affair: a pause of a busy one is no finding.
hypothesis.settings.register_profile("coterie", deadline=None)
hypothesis.settings.load_profile("coterie")


class _Drained:
    """`caplog`, once what the library logged has arrived there: it comes by a thread of its own."""

    def __init__(self, caplog):
        self._caplog = caplog

    def __getattr__(self, name):
        assert logs.backlog.drain(10), "the log's thread stands still"
        return getattr(self._caplog, name)


@pytest.fixture
def caplog(caplog):
    assert logs.backlog.drain(10), "the log's thread stands still"  # what the test before has logged is not of this one
    return _Drained(caplog)
