"""Who is inside of a port that strangers can reach: bounded in number, and never so full of silent ones that nobody else gets in.

A port that only counts its connections can be shut by whoever opens as many and says nothing. So a connection is a *newcomer* until it has said something whole and
valid. When all places are taken, the newcomer that has been silent for longest has to go, if it has had `GRACE` seconds to speak; who has spoken is
never put out for a newcomer. An honest peer that is put out in such a crowd dials again, and finds room in the same way.

What remains: strangers who speak validly on every place. Only certificates (TLS with a CA) tell those from members.

The number of places is bounded by the file descriptors of the process too (`places`), so that all ports together cannot take so many that the node's own
files, dials and host application have none left.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["GRACE", "Crowd", "Member", "places", "raise_descriptors"]

GRACE: Final = 0.25  # seconds
SHARE: Final = 8  # a port takes at most this part of the descriptors
LEAST: Final = 64
ENOUGH: Final = 1 << 16


class Member(Protocol):
    """A connection."""

    def put_out(self) -> None:
        """End it; it leaves the crowd by itself later, too. Must not block."""


class Crowd:
    """most: places. Any thread may call; `put_out` is called in the thread of whoever needs the place."""

    def __init__(self, most: int, grace: float = GRACE, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._grace, self._clock = grace, clock
        self._lock = threading.Lock()
        self._newcomers: dict[Member, float] = {}  # since when, the oldest first
        self._known: set[Member] = set()

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._known)

    def enter(self, member: Member) -> tuple[bool, Member | None]:
        """Whether there is a place for it, and who was put out to make it."""
        now = self._clock()
        with self._lock:
            put_out = None
            if len(self) >= self.most:
                put_out, since = next(iter(self._newcomers.items()), (None, now))
                if put_out is None or now - since < self._grace:
                    return False, None
                del self._newcomers[put_out]
            self._newcomers[member] = now
        if put_out is not None:
            put_out.put_out()
        return True, put_out

    def spoke(self, member: Member) -> None:
        """It has said something whole and valid."""
        with self._lock:
            if self._newcomers.pop(member, None) is not None:
                self._known.add(member)

    def leave(self, member: Member) -> None:
        with self._lock:
            self._newcomers.pop(member, None)
            self._known.discard(member)


def places(wanted: int) -> int:
    """How many connections a port may have: as many as wanted, or what the process' descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(LEAST, soft // SHARE))


def raise_descriptors() -> int:
    """Raise this process' limit of open files as far as it is allowed, to `ENOUGH` at most. -> the limit then. For a process of our own, not for a host's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
