"""Threads for what blocks: streams, name look-ups, the disk. A bounded queue before a bounded number of threads, made when first needed.

`concurrent.futures` lost: its threads are joined when the interpreter ends, so a dial to a silent host would hold up the exit, and its queue
has no bound.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from coterie.transport.logs import Log

JOIN_SECONDS: Final = 1.0
LOG: Final = Log("coterie.membership")


class Workers:
    def __init__(self, name: str, threads: int, depth: int) -> None:
        self._name, self._limit, self._depth = name, threads, depth
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> bool:
        """False when `depth` jobs wait already, or after `close`: then it is not done. What a job raises is logged."""
        with self._lock:
            if self._closed or self._busy >= self._depth + self._limit:
                return False
            self._busy += 1
            if len(self._threads) < min(self._busy, self._limit):
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)
        return True

    def close(self) -> None:
        """No more jobs; waits a second at most for those under way, whose threads end by themselves when their sockets do."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if not self._closed:
                    job()
            except Exception:
                LOG.exception("a job on %s failed", self._name)
            finally:
                with self._lock:
                    self._busy -= 1
