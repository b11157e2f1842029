"""Work that may block, done by one daemon thread behind a bounded queue, so that whoever asks for it never waits.

`put` never blocks: above `most` waiting items it drops the newest and counts it in `dropped`; when the thread gets through again, it tells `lost` how many,
at most once in `LOST_EVERY` seconds while there is more to do. What an item's work raises goes to `failed`. The thread is started with the first item. It does
not survive a fork: whoever forks makes a new object.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

LOST_EVERY: Final = 5.0

T = TypeVar("T")


class Background(Generic[T]):
    """name: of the thread. work(item): what is done; lost(count), failed(error): called in the thread, too."""

    def __init__(
        self,
        name: str,
        work: Callable[[T], object],
        most: int,
        lost: Callable[[int], object] = lambda count: None,
        failed: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        self._name, self._work, self._most, self._lost, self._failed = name, work, most, lost, failed
        self._waiting: deque[T] = deque()
        self._some = threading.Semaphore(0)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, item: T) -> bool:
        """False: it was dropped."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return False
        self._waiting.append(item)
        self._some.release()
        if self._thread is None:
            self._start()
        return True

    def drain(self, timeout: float) -> bool:
        """Wait until all that was put is done; False after `timeout` seconds."""
        until = time.monotonic() + timeout
        while self._waiting or self._busy:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def close(self, timeout: float) -> None:
        """Do what waits, for at most `timeout` seconds, and end the thread; one that is stuck in its work stays, as a daemon."""
        until = time.monotonic() + timeout
        self._closed = True
        self._some.release()
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        told, tell_after = 0, 0.0
        while True:
            self._some.acquire()
            self._busy = True
            try:
                if not self._waiting:  # closed, and all is done
                    return
                self._work(self._waiting.popleft())
                if self.dropped > told and (not self._waiting or time.monotonic() >= tell_after):
                    lost, told, tell_after = self.dropped - told, self.dropped, time.monotonic() + LOST_EVERY
                    self._lost(lost)
            except Exception as error:  # noqa: BLE001 - of any kind: the thread has more to do
                self._failed(error)
            finally:
                self._busy = False
