"""How well this node believes itself to be (Lifeguard, section IV.A: local health).

A node that cannot hear is the worst accuser. Each sign that the fault may be ours (a probe that nobody confirmed, an accusation against
us that we had to refute) raises the score, each probe that succeeds lowers it; the probe interval grows with it.
"""

from __future__ import annotations


class Awareness:
    """A score from 0 (well) to `limit` - 1."""

    __slots__ = ("_limit", "score")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.score = 0

    def apply(self, delta: int) -> None:
        self.score = min(max(self.score + delta, 0), self._limit - 1)

    def scale(self, interval: float) -> float:
        return interval * (self.score + 1)
