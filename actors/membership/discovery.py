"""Where other members may be found: seeds, and when each is dialled.

A `Discovery` gives texts `host:port`: a static list, a file (file_seeds.py) or DNS (dns_seeds.py), whose answers change; `sources.py` chooses. `SeedBook` plans
the dialling (pure: the time comes in): each seed at the start, and again for the life of the node while nobody present has its address, with a pause that
doubles up to 30 s. So two halves that forgot each other meet as soon as one of them reaches a seed of the other. Members remembered from an earlier
life are dialled the same way, after the seeds, until they are known or a day has passed.

A seed may answer under an address that no member advertises (a name for many, an address translated on the way): it counts as reached
by its answer, and is asked again a minute later.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Set
from typing import Final, Protocol

import attrs

from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError

Address = tuple[str, int]

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0
RECHECK: Final = 10.0
ANSWER_HOLDS: Final = 60.0
REMEMBER: Final = 24 * 3600.0
AT_ONCE: Final = 4

REACHED, THIS_NODE, NOT_YET = "reached", "this node", "not dialled yet"


@attrs.define(frozen=True)
class Found:
    """What a source says now. problems: what is wrong with it, for an operator; the seeds that are good are there all the same."""

    seeds: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Discovery(Protocol):
    """A source of seeds. `find` may block (it is called on a worker thread, one call at a time) and does not raise; `refresh` is the pause between calls in
    seconds, None when the answer never changes."""

    @property
    def refresh(self) -> float | None: ...

    def find(self) -> Found: ...


class StaticSeeds:
    """The seeds of a comma-separated list, e.g. `10.0.0.1:7946,10.0.0.2:7946`."""

    refresh: float | None = None

    def __init__(self, csv: str) -> None:
        self._found = Found(tuple(dict.fromkeys(filter(None, (part.strip() for part in csv.split(","))))))

    def find(self) -> Found:
        return self._found


def seed_problem(text: str) -> str:
    """Why `text` is no seed; "" when it is one."""
    try:
        address = parse_address(text)
    except AddressError as error:
        return str(error)
    if address.everywhere or not address.port:
        return f"{text!r} names no single host and port: a seed is the gossip address of another node, host:port"
    return ""


@attrs.define
class _Seed:
    text: str
    due: float
    until: float = math.inf
    pause: float = FIRST_PAUSE
    address: Address | None = None
    dialling: bool = False
    state: str = NOT_YET

    @property
    def remembered(self) -> bool:
        return self.until < math.inf


class SeedBook:
    """`me` is this node's own address: a seed that resolves to it is never dialled."""

    def __init__(self, me: Address, dice: random.Random) -> None:
        self._me, self._dice = me, dice
        self._seeds: dict[str, _Seed] = {}
        self.revision = 0  # moves when `states` does

    def offer(self, texts: Iterable[str], now: float) -> None:
        """What discovery says now, the best first: new seeds are due at once, those no longer named are dropped."""
        before, known = list(self.states()), self._seeds
        self._seeds = {}
        for text in texts:
            seed = self._seeds[text] = known.get(text) or _Seed(text, now)
            seed.until = math.inf
        for text, seed in known.items():
            if seed.remembered:
                self._seeds.setdefault(text, seed)
        self.revision += list(self.states()) != before

    def remember(self, texts: Iterable[str], now: float) -> None:
        for text in texts:
            self._seeds.setdefault(text, _Seed(text, now, until=now + REMEMBER))

    def due(self, now: float, present: Set[Address], known: Set[Address]) -> list[str]:
        """Seeds to dial now, at most four under way at once, the configured ones first. `present`: addresses of the living; `known`: of
        everybody the membership remembers."""
        self._drop(now, known)
        room = AT_ONCE - sum(seed.dialling for seed in self._seeds.values())
        chosen: list[str] = []
        for seed in sorted(self._seeds.values(), key=lambda seed: seed.remembered):
            if seed.due > now or seed.dialling:
                continue
            if seed.address is not None and (seed.address in present or seed.address == self._me):
                self._show(seed, THIS_NODE if seed.address == self._me else REACHED)
                seed.due, seed.pause = now + RECHECK, FIRST_PAUSE
            elif len(chosen) < room:
                seed.dialling = True
                chosen.append(seed.text)
        return chosen

    def resolved_to_me(self, text: str, now: float) -> None:
        self._done(text, now, self._me, RECHECK, THIS_NODE)

    def answered(self, text: str, address: Address, now: float) -> None:
        self._done(text, now, address, ANSWER_HOLDS, REACHED)

    def failed(self, text: str, address: Address | None, error: str, now: float) -> None:
        seed = self._seeds.get(text)
        if seed is None:
            return
        pause = seed.pause
        self._done(text, now, address, pause * self._dice.uniform(0.8, 1.2), error)
        seed.pause = min(pause * 2, LAST_PAUSE)

    def deadline(self) -> float:
        """When `due` is worth asking again; infinite without seeds."""
        if sum(seed.dialling for seed in self._seeds.values()) >= AT_ONCE:
            return math.inf
        return min((seed.due for seed in self._seeds.values() if not seed.dialling), default=math.inf)

    def states(self) -> dict[str, str]:
        """Each configured seed, and what became of the last attempt."""
        return {seed.text: seed.state for seed in self._seeds.values() if not seed.remembered}

    def none_answers(self) -> bool:
        """There are seeds, and the last attempt at each of them failed."""
        states = self.states().values()
        return bool(states) and not any(state in (REACHED, THIS_NODE, NOT_YET) for state in states)

    def _done(self, text: str, now: float, address: Address | None, pause: float, state: str) -> None:
        seed = self._seeds.get(text)
        if seed is not None:
            seed.dialling, seed.pause, seed.due, seed.address = False, FIRST_PAUSE, now + pause, address
            self._show(seed, state)

    def _show(self, seed: _Seed, state: str) -> None:
        self.revision += seed.state != state
        seed.state = state

    def _drop(self, now: float, known: Set[Address]) -> None:
        gone = [s.text for s in self._seeds.values() if s.remembered and not s.dialling and (s.until <= now or s.address in known)]
        for text in gone:
            del self._seeds[text]
