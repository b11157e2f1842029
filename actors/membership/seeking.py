"""How this node looks for others: its source of seeds is asked when due, what it names is dialled when the book says so, and what is wrong is kept to be shown.

A part of the membership actor, in its thread; what blocks is the dialler's. One look at the source is under way at a time, and the pause begins when it is
over: a source that takes long (DNS servers that are silent) is not asked twice at once.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final

from coterie.actors.membership.dialler import Dialled, Dialler, SeedsFound
from coterie.actors.membership.discovery import FIRST_PAUSE, Address, Discovery, SeedBook
from coterie.actors.membership.effects import Member
from coterie.proto.gossip_messages import ALIVE, SUSPECT, PushPull
from coterie.transport.logs import Log

ATTEMPTS_SHOWN: Final = 3
_BROKEN: Final = ("the source of seeds failed; see the log",)


class Seeker:
    """state: what is told to a seed. counters: where failures are counted."""

    def __init__(
        self,
        node: str,
        discovery: Discovery,
        dialler: Dialler,
        state: Callable[[], PushPull],
        counters: Counter[str],
        log: Log,
        dice: random.Random,
    ) -> None:
        self._node, self._discovery, self._dialler, self._state = node, discovery, dialler, state
        self._counters, self._log, self._dice = counters, log, dice
        self._looking = False
        self._problems: tuple[str, ...] = ()

    def begin(self, me: Address, remembered: Iterable[str], now: float) -> None:
        """At the start, and after a crash."""
        self._book = SeedBook(me, self._dice)
        self._book.remember(remembered, now)
        self._look_at = now

    @property
    def revision(self) -> int:
        return self._book.revision

    def states(self) -> dict[str, str]:
        return self._book.states()

    def deadline(self) -> float:
        return min(self._look_at, self._book.deadline())

    def look(self, everybody: Callable[[], Collection[Member]], now: float) -> None:
        """Do what is due. everybody: as the core knows them."""
        if self._look_at <= now and not self._looking:
            self._looking = self._dialler.discover(self._discovery)
        if self._look_at <= now:
            self._look_at = math.inf if self._looking else now + FIRST_PAUSE
        if self._book.deadline() <= now:
            members = everybody()
            present = {(m.ip, m.port) for m in members if m.state in (ALIVE, SUSPECT) and m.name != self._node}
            known = {(m.ip, m.port) for m in members}
            for text in self._book.due(now, present, known):
                if not self._dialler.dial_seed(text, self._state()):
                    self._book.failed(text, None, "too many streams under way", now)

    def found(self, told: SeedsFound, now: float) -> None:
        refresh = self._discovery.refresh
        self._looking, self._look_at = False, now + refresh if refresh else math.inf
        before = self._problems
        if told.found is None:
            self._problems = _BROKEN
        else:
            self._book.offer(told.found.seeds, now)
            self._problems = told.found.problems
        for problem in self._problems:
            if problem not in before:
                self._log.warning("discovery: %s", problem)
        self._counters["discovery_problems"] += len(set(self._problems) - set(before))
        if before and not self._problems:
            self._log.info("discovery: all is well again; seeds: %s", ", ".join(self._book.states()) or "none")
        self._book.revision += self._problems != before

    def dialled(self, dialled: Dialled, now: float) -> None:
        if dialled.answer is None:
            self._counters["seed_unreached"] += 1
            self._book.failed(dialled.text, dialled.address, dialled.error, now)
        elif dialled.address is None:
            self._book.resolved_to_me(dialled.text, now)
        else:
            self._book.answered(dialled.text, dialled.address, now)

    def warnings(self, members: Collection[Member]) -> tuple[str, ...]:
        """Dead seeds are ordinary while others are heard; to a node that is alone they are the reason."""
        said = list(self._problems)
        if self._book.none_answers() and not any(m.state in (ALIVE, SUSPECT) and m.name != self._node for m in members):
            attempts = [f"{text}: {state}" for text, state in self._book.states().items()]
            more = ["…"] if len(attempts) > ATTEMPTS_SHOWN else []
            said.append(f"no other member is heard, and no seed answers ({'; '.join(attempts[:ATTEMPTS_SHOWN] + more)})")
        return tuple(f"discovery on {self._node}: {text}" for text in said)
