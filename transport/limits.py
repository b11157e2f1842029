"""What a transport refuses is counted and, now and then, said aloud.

Every drop has a reason, every reason a counter. The log gets one line per reason and period, with the number of lines that were held
back: whoever sends garbage in a loop must not be able to fill a disk with our words about it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from coterie.transport.logs import Log

__all__ = ["Complaints", "Counters"]

LOG = Log("coterie.transport")

COMPLAIN_EVERY: Final = 10.0


class Counters:
    """Named counters that only grow; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


class Complaints:
    """Counts a refusal under its reason and logs it at most once in `every` seconds."""

    def __init__(self, name: str, counters: Counters, every: float = COMPLAIN_EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._counters = counters
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def __call__(self, reason: str, peer: object, detail: object = "") -> None:
        self._counters.add(reason)
        now = self._clock()
        with self._lock:
            last = self._last.get(reason)
            if last is not None and now - last < self._every:
                self._held[reason] += 1
                return
            self._last[reason] = now
            held = self._held.pop(reason, 0)
        LOG.warning(
            "%s: %s from %s: %s%s",
            *(self._name, reason, peer, detail, f" ({held} more like it were not logged)" if held else ""),
            extra={"reason": reason, "peer": str(peer), "held_back": held},
        )
