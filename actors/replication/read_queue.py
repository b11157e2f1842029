"""Reads of one node on their way to its handler: what each waits for, and what it is told when that does not come.

    add ──► unasked ──asking──► asked ──point──► parked ──handled──► ready ──take──► handler ──► answered
      `─ local ─────────────────────────────────────────────────────────┘

A read that is to see what was acknowledged before it (`linearizable`, `lease`) needs a *point*: the number of the last command that the handler must have had. One
question to the leader is under way for each of the two kinds, and serves all reads that waited when it left; those that come meanwhile wait for the
next. Then they wait for the handler, and go to it together, as many as there are, while it is busy with those before.

Nothing here has a thread or a clock. A read never ends Indeterminate: it changes nothing, so one that was not answered can be asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from coterie.actors.errors import CoterieError, InvalidRequest, NoQuorum, Overloaded
from coterie.actors.future import LightFuture

LINEARIZABLE: Final = "linearizable"
LEASE: Final = "lease"
LOCAL: Final = "local"
KINDS: Final = (LINEARIZABLE, LEASE, LOCAL)
CONFIRMED: Final = (LINEARIZABLE, LEASE)  # the kinds that the leader is asked for


class Asked(NamedTuple):
    """One read. trace: the context of its span, None without; deadline: monotonic seconds."""

    kind: str
    op: str
    data: bytes
    trace: Any
    reply: LightFuture
    deadline: float


def check_consistency(kind: Any) -> str:
    """Raises InvalidRequest."""
    if kind in KINDS:
        return str(kind)
    raise InvalidRequest(
        f"consistency={kind!r:.80}: give 'linearizable' (sees everything acknowledged before it), 'lease' (the same, and trusts the clocks), 'local' (at once, "
        "promises nothing), or None for the leader's own handler"
    )


class ReadQueue:
    """most: reads that may wait in all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._unasked: dict[str, list[Asked]] = {kind: [] for kind in CONFIRMED}
        self._asked: dict[str, list[Asked]] = {kind: [] for kind in CONFIRMED}
        self._parked: list[tuple[int, list[Asked]]] = []
        self._ready: deque[Asked] = deque()
        self._at_handler: list[Asked] = []
        self.handled = 0  # the last command that the handler is known to have had
        self.waiting = 0  # reads in all of the above
        self.soonest = float("inf")  # no deadline is before

    def add(self, read: Asked) -> None:
        """Raises Overloaded."""
        kind = read.kind
        if self.waiting >= self._most:
            raise Overloaded(f"read {read.op!r}: {self.waiting} reads wait on this node, and more do not; it was not carried out")
        self.waiting += 1
        if read.deadline < self.soonest:
            self.soonest = read.deadline
        if kind == LOCAL:
            self._ready.append(read)
        else:
            self._unasked[kind].append(read)

    # -- the leader's word ----------------------------------------------------------------------------------------------------

    def to_ask(self, kind: str) -> bool:
        """Is a question to the leader due?"""
        return bool(self._unasked[kind]) and not self._asked[kind]

    def asking(self, kind: str) -> float:
        """It is being asked for all that wait. -> the latest of their deadlines."""
        self._asked[kind], self._unasked[kind] = self._unasked[kind], []
        return max(read.deadline for read in self._asked[kind])

    def not_answered(self, kind: str) -> None:
        """They wait again, before those that have come since."""
        self._unasked[kind] = self._still_wanted(kind) + self._unasked[kind]

    def point(self, kind: str, command: int) -> bool:
        """The leader's answer. -> whether the handler is to have more commands first."""
        reads = self._still_wanted(kind)
        if command <= self.handled:
            self._ready += reads
            return False
        self._parked.append((command, reads))
        return True

    def _still_wanted(self, kind: str) -> list[Asked]:
        """Those for whom was asked, but for the ones whose deadline came first."""
        reads, self._asked[kind] = self._asked[kind], []
        wanted = [read for read in reads if not read.reply.done]
        self.waiting -= len(reads) - len(wanted)
        return wanted

    def had(self, command: int) -> None:
        """The handler has had all commands up to this one."""
        self.handled = max(self.handled, command)
        parked, self._parked = self._parked, []
        for wanted, reads in parked:
            if wanted <= self.handled:
                self._ready += reads
            else:
                self._parked.append((wanted, reads))

    def cannot_have(self, command: int, error: CoterieError) -> None:
        """The handler will not have this command, nor those after it."""
        parked, self._parked = self._parked, []
        for wanted, reads in parked:
            if wanted < command:
                self._parked.append((wanted, reads))
            else:
                self._fail(reads, lambda read: error)

    def other_handler(self) -> None:
        """Another handler is in force, and what the one before it has had says nothing about it: whoever waits for the handler waits for the leader's word anew."""
        self.handled = 0
        waiting = [*(read for _, reads in self._parked for read in reads), *self._ready]
        self._parked, self._ready = [], deque(read for read in waiting if read.kind == LOCAL)
        for kind in CONFIRMED:
            self._unasked[kind] = [*(read for read in waiting if read.kind == kind), *self._unasked[kind]]

    # -- the handler ----------------------------------------------------------------------------------------------------------

    def take(self, most: int) -> list[Asked]:
        """Reads for the handler, none while it has some already."""
        if self._at_handler or not self._ready:
            return []
        if len(self._ready) <= most:
            self._at_handler = list(self._ready)
            self._ready.clear()
        else:
            self._at_handler = [self._ready.popleft() for _ in range(most)]
        return self._at_handler

    def all_late(self) -> bool:
        """Has nobody any more use for what the handler was given?"""
        return all(read.reply.done for read in self._at_handler)

    def returned(self) -> list[Asked]:
        """The handler has answered: these were there."""
        reads, self._at_handler = self._at_handler, []
        self.waiting -= len(reads)
        return reads

    # -- the end of a wait ----------------------------------------------------------------------------------------------------

    def expire(self, now: float, reason: str) -> int:
        """Fail what is past its deadline; -> how many. reason: why no leader has been asked, "" when one was."""
        if now < self.soonest:
            return 0
        before = self.waiting
        failed = 0
        for kind in CONFIRMED:
            why = f"no leader could be asked within the deadline{reason}"
            self._unasked[kind], late = _split(self._unasked[kind], now)
            failed += self._fail(late, lambda read, why=why: NoQuorum(f"read {read.op!r}: {why}"))
            late = _split(self._asked[kind], now)[1]  # they stay: the answer of the leader is for the whole list
            failed += _refuse(
                late, lambda read: NoQuorum(f"read {read.op!r}: no quorum confirmed within the deadline that the leader leads")
            )
        parked, self._parked = self._parked, []
        for wanted, reads in parked:
            kept, late = _split(reads, now)
            failed += self._fail(late, lambda read, wanted=wanted: _behind(read, wanted, self.handled))
            if kept:
                self._parked.append((wanted, kept))
        kept, late = _split(self._ready, now)
        self._ready = deque(kept)
        failed += self._fail(late, _busy)
        failed += _refuse(_split(self._at_handler, now)[1], _busy)
        self.soonest = min((read.deadline for read in self._all() if not read.reply.done), default=float("inf"))
        assert before >= self.waiting >= 0
        return failed

    def close(self, error: CoterieError) -> None:
        """Everybody hears `error`."""
        _refuse(self._all(), lambda read: error)
        self.__init__(self._most)  # type: ignore[misc]

    def _all(self) -> list[Asked]:
        waiting = [read for kind in CONFIRMED for read in (*self._unasked[kind], *self._asked[kind])]
        return [*waiting, *(read for _, reads in self._parked for read in reads), *self._ready, *self._at_handler]

    def _fail(self, reads: list[Asked], error: Any) -> int:
        self.waiting -= len(reads)
        return _refuse(reads, error)


def _split(reads: Iterable[Asked], now: float) -> tuple[list[Asked], list[Asked]]:
    """(those that may go on, those past their deadline)."""
    kept: list[Asked] = []
    late: list[Asked] = []
    for read in reads:
        (late if read.deadline <= now else kept).append(read)
    return kept, late


def _refuse(reads: Iterable[Asked], error: Any) -> int:
    count = 0
    for read in reads:
        if not read.reply.done:
            read.reply.fail(error(read))
            count += 1
    return count


def _behind(read: Asked, wanted: int, handled: int) -> Overloaded:
    return Overloaded(
        f"read {read.op!r}: this node's handler has not had command {wanted} within the deadline (it is known to have had {handled}): it is slow, or behind"
    )


def _busy(read: Asked) -> Overloaded:
    return Overloaded(
        f"read {read.op!r}: this node's handler did not answer within the deadline (a handler that waits for itself never does)"
    )
