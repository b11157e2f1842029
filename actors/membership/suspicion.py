"""One suspicion: when it becomes a death, and who confirmed it (Lifeguard, section IV.B).

It starts at the longest time and shrinks with each confirmation by an accuser that has not spoken yet, logarithmically, down to the
shortest. The first accuser is no confirmation: its own rumour comes back to it. After `wanted` confirmations no more are counted, and
none is passed on.
"""

from __future__ import annotations

import math


class Suspicion:
    __slots__ = ("_accusers", "_least", "_most", "_started", "confirmations", "deadline", "wanted")

    def __init__(self, accuser: str, wanted: int, least: float, most: float, now: float) -> None:
        self.wanted = wanted
        self.confirmations = 0
        self._accusers = {accuser}
        self._least, self._most = least, most
        self._started = now
        self.deadline = now + (most if wanted > 0 else least)

    def confirm(self, accuser: str) -> bool:
        """True when this accuser is new and still wanted: the deadline came nearer, and the rumour is worth passing on."""
        if self.confirmations >= self.wanted or accuser in self._accusers:
            return False
        self._accusers.add(accuser)
        self.confirmations += 1
        self.deadline = self._started + self._timeout()
        return True

    def postpone(self, seconds: float) -> None:
        self._started += seconds
        self.deadline += seconds

    def _timeout(self) -> float:
        share = math.log(self.confirmations + 1) / math.log(self.wanted + 1)
        raw = self._most - share * (self._most - self._least)
        return max(math.floor(raw * 1000) / 1000, self._least)
