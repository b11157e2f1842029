"""What is remembered of the commands of client sessions, so that a command that is sent again is applied once and has its first result.

A pure function of the log: each node that applies the same commands in the same order remembers the same, and decides the same about each one that comes. So the
bounds are constants of the protocol, and count commands; how long a result is, which only the handlers know, moves none of them:

- a session begins with its number 1; an unknown session with another number is *expired*: refused on every node, and not applied;
- of each session the results of the `PER_SESSION` highest numbers are remembered. A number below all of them, once there are so many, is expired;
- at most `MOST_ROWS` results are remembered in all. Beyond that the session whose last new command is longest ago is forgotten, as a whole;
- a result or an error above `MOST_RESULT` bytes is remembered as such: a retry hears that the command was applied, and not what came of it.

A row is kept for a while when it has been dropped (`history`), for handlers that keep a state of their own: after a crash such a handler may be behind what was
handled, and what it gets again must be decided as it was (`at`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

PER_SESSION: Final = 128
MOST_ROWS: Final = 65_536
MOST_RESULT: Final = 4096  # bytes
HISTORY: Final = 65_536


class Outcome(NamedTuple):
    """What came of a command. done: the handler returned; else it raised, and `result` is the text of that in UTF-8."""

    done: bool
    result: bytes


class Row:
    """One command of a session that was applied. outcome: None where it is not known (yet), or was too large. dropped: the index of the command that put it
    out of what is remembered, 0 for none."""

    __slots__ = ("dropped", "index", "number", "outcome", "session")

    def __init__(self, index: int, session: str, number: int, outcome: Outcome | None = None, dropped: int = 0) -> None:
        self.index, self.session, self.number, self.outcome, self.dropped = index, session, number, outcome, dropped

    def settle(self, outcome: Outcome | None) -> None:
        """What came of it is known."""
        self.outcome = outcome if outcome is not None and len(outcome.result) <= MOST_RESULT else None


class Verdict(NamedTuple):
    """row: of the command's first try; None: expired. again: it was applied before."""

    row: Row | None
    again: bool


EXPIRED: Final = Verdict(None, False)


class Sessions:
    """rows: what was remembered, in the order of their indexes; dropped ones among them make the history. exact_from: `at` knows no index below it."""

    def __init__(self, rows: Iterable[Row] = (), exact_from: int = 0) -> None:
        self._sessions: dict[str, dict[int, Row]] = {}  # the one whose last new command is longest ago first
        self._count = 0
        self.history: deque[Row] = deque()
        self.exact_from = exact_from
        self.dropped: list[Row] = []  # rows that went into the history, and
        self.gone: list[int] = []  # indexes of those that left it, since somebody last looked
        dropped = []  # of the rows given
        for row in rows:
            if row.dropped:
                dropped.append(row)
            else:
                self._put(row)
        self.history.extend(sorted(dropped, key=lambda row: row.dropped))

    def __len__(self) -> int:
        return self._count

    def decide(self, index: int, session: str, number: int) -> Verdict:
        """The command at `index`. A new one is remembered from here on; its row wants to be settled."""
        known = self._sessions.get(session)
        if known is None:
            if number != 1:
                return EXPIRED
        else:
            row = known.get(number)
            if row is not None:
                return Verdict(row, True)
            if len(known) >= PER_SESSION and number < min(known):
                return EXPIRED
        row = Row(index, session, number)
        self._put(row)
        self._make_room(index, session)
        return Verdict(row, False)

    def all_rows(self) -> Iterator[Row]:
        """What is remembered, and the history."""
        yield from self.history
        yield from self.rows()

    def rows(self) -> Iterator[Row]:
        """What is remembered, by index."""
        return iter(sorted((row for known in self._sessions.values() for row in known.values()), key=lambda row: row.index))

    def at(self, index: int) -> Sessions | None:
        """What was remembered when the command at `index` had been applied; None where that is not known any more."""
        if index < self.exact_from:
            return None
        live = (row for row in self.rows() if row.index <= index)
        back = (Row(row.index, row.session, row.number, row.outcome) for row in self.history if row.index <= index < row.dropped)
        still = (row for row in self.history if row.dropped <= index)
        return Sessions(sorted([*live, *back, *still], key=lambda row: row.index), self.exact_from)

    def _put(self, row: Row) -> None:
        known = self._sessions.pop(row.session, None)
        if known is None:
            known = {}
        self._sessions[row.session] = known
        known[row.number] = row
        self._count += 1

    def _make_room(self, index: int, session: str) -> None:
        known = self._sessions[session]
        if len(known) > PER_SESSION:
            self._drop(known.pop(min(known)), index)
        while self._count > MOST_ROWS:
            oldest = next(iter(self._sessions))
            for row in self._sessions.pop(oldest).values():
                self._drop(row, index)

    def _drop(self, row: Row, index: int) -> None:
        self._count -= 1
        row.dropped = index
        self.dropped.append(row)
        self.history.append(row)
        if len(self.history) > HISTORY:
            gone = self.history.popleft()
            self.gone.append(gone.index)
            self.exact_from = gone.dropped
