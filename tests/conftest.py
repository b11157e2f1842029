"""What all tests share."""

from __future__ import annotations

import pytest

from coterie.transport import logs


class _Drained:
    """`caplog`, once what the library logged has arrived there: it comes by a thread of its own."""

    def __init__(self, caplog):
        self._caplog = caplog

    def __getattr__(self, name):
        assert logs.backlog.drain(10), "the log's thread stands still"
        return getattr(self._caplog, name)


@pytest.fixture
def caplog(caplog):
    return _Drained(caplog)
