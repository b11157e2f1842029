"""Each node's own idea of the time: a monotonic clock that is too fast or too slow and begins anywhere, and a wall clock, which is set forward and back as it
pleases its owner.

The core gets the monotonic one alone. Nothing that is right may hang on the other.
"""

from __future__ import annotations


class Clock:
    """rate: seconds that this clock counts in a true one. offset: what it shows at the begin of the run."""

    def __init__(self, rate: float, offset: float) -> None:
        self.rate, self._offset = rate, offset
        self.wall_offset = 0.0

    def local(self, now: float) -> float:
        return self._offset + now * self.rate

    def when(self, local: float) -> float:
        """The true time at which this clock shows `local`."""
        return (local - self._offset) / self.rate

    def wall(self, now: float) -> float:
        return 1_700_000_000.0 + now + self.wall_offset
