"""A disk that does not answer: noticed from outside, since whoever waits for it can say nothing.

The Raft actor writes its log in its own thread. While that waits, it sends no heartbeat, gives no vote and acknowledges nothing, so the others elect another
leader. What it cannot do is say so. That is the watch's work, in the supervisor's thread: it looks at how long the write under way has taken. Past `patience`
the log does not answer: the node is not taken for a leader any more, neither here nor in gossip; status, readiness, log and metrics name the disk. When the
write ends the node goes on as what it is by then: a follower, as a rule. Nothing is decided for Raft here: its own messages and time-outs do that.

A buffer that does not answer is only a warning: publishing rests on the log.

**Who stood still itself must not accuse the disk.** A process that is stopped, or gets no processor, finds its write as old as its pause. So of the time between
two looks at most one period counts against the disk: a look that comes late has not seen the rest. On a machine that is slow, a disk that hangs is noticed later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from coterie.transport.logs import Log

EVERY: Final = 0.25  # seconds between looks
LOG: Final = "raft"
_NAMES: Final = {LOG: "Raft log", "buffer": "replication buffer"}
_MEANS: Final = {
    LOG: "it does not lead, vote or acknowledge until the disk answers; remedy: look at that disk and the kernel's log",
    "buffer": "records are kept in memory until the disk answers; remedy: look at that disk and the kernel's log",
}


class Store(Protocol):
    @property
    def path(self) -> Path: ...

    def stalled(self, now: float) -> float:
        """Seconds that the write under way has taken; 0.0 when none is."""
        ...


class DiskWatch:
    """patience: seconds, monotonic as `now`. told(store, seconds): for the metrics, at each look; 0.0 where all is well."""

    def __init__(self, stores: Mapping[str, Store], patience: float, told: Callable[[str, float], object], log: Log) -> None:
        self._stores, self._patience, self._told, self._log = stores, patience, told, log
        self._since: dict[str, float] = {}  # of those that do not answer
        self._unseen: dict[str, float] = {}  # of the write under way: seconds of it in which the watch did not look
        self._looked = math.inf
        self.warnings: dict[str, str] = {}  # by store
        self.next_time = 0.0

    @property
    def stalled(self) -> str:
        """Why this node's Raft server stands still; "" when it does not."""
        return self.warnings.get(LOG, "")

    def look(self, now: float) -> None:
        """Needed at `next_time`."""
        elapsed, self._looked = max(0.0, now - self._looked), now
        self.next_time = now + EVERY
        for name, store in self._stores.items():
            seconds = store.stalled(now)
            if seconds - self._not_seen(name, seconds, elapsed) >= self._patience:
                self._waits(name, store, now, seconds)
            elif name in self._since:
                self.warnings.pop(name)
                self._log.warning("the disk of the %s answers again, after about %.1f s", _NAMES[name], now - self._since.pop(name))
            self._told(name, seconds if name in self._since else 0.0)

    def _not_seen(self, name: str, seconds: float, elapsed: float) -> float:
        """Of the write that has taken so many seconds: those in which the watch did not look. elapsed: since the look before."""
        before = self._unseen.get(name, 0.0) if seconds > elapsed else 0.0  # a write that began since then is another one
        self._unseen[name] = before + min(seconds, max(0.0, elapsed - EVERY))
        return self._unseen[name]

    def _waits(self, name: str, store: Store, now: float, seconds: float) -> None:
        self.warnings[name] = (
            f"the disk of the {_NAMES[name]} does not answer: a write in {store.path} has waited for {seconds:.1f} s; {_MEANS[name]}"
        )
        if name not in self._since:
            self._log.error("%s", self.warnings[name])
        self._since[name] = now - seconds
