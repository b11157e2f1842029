"""What a publisher could not do: counted by reason, for status and metrics; and said now and then where nobody else would hear of it."""

from __future__ import annotations

import time
from typing import Final

from coterie.actors.errors import CoterieError, loggable
from coterie.actors.replication.metrics import ReplicationMetrics
from coterie.transport.logs import Log

LOG_EVERY: Final = 5.0  # seconds between log lines about told publishes that failed


class Losses:
    """Of one actor's thread."""

    __slots__ = ("_log", "_logged_at", "_metrics", "counters")

    def __init__(self, metrics: ReplicationMetrics, log: Log) -> None:
        self.counters: dict[str, int] = {}
        self._metrics, self._log = metrics, log
        self._logged_at = 0.0

    def count(self, reason: str, n: int) -> None:
        if n:
            self.counters[reason] = self.counters.get(reason, 0) + n
            self._metrics.dropped(reason, n)

    def told(self, n: int, error: CoterieError) -> None:
        """`n` publishes that nobody waits for, since they were told and not asked, came to nothing."""
        if not n:
            return
        self.count(f"told_{type(error).__name__}", n)
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            self._log.warning(
                "%d publishes that nobody waits for failed (further ones are counted): %s",
                n,
                loggable(error),
                extra={"error": type(error).__name__},
            )
