"""Virtual time and the trace: what every simulated world stands on.

Events are callables in a heap, ordered by time and then by the order in which they were made, so that a run is a function of its seed. The
trace keeps the last steps as tuples; they become text only when a run fails.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random


class InvariantViolated(AssertionError):
    """A promise was broken; the text says which, where and when."""


class Kernel:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self.seen: Counter[str] = Counter()  # how often what a run is for came about
        self._trace: deque[tuple[float, str, str, object]] = deque(maxlen=400)

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (time if time > self.now else self.now, self._count, action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (self.now + delay, self._count, action))

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action = heappop(heap)
            self.steps += 1
            action()
        self.now = max(self.now, until)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random()

    def note(self, who: str, what: str, detail: object = "") -> None:
        self._trace.append((self.now, who, what, detail))

    def trace(self, lines: int = 60) -> str:
        return "\n".join(f"{time:9.4f} {who:>4} {what:<12} {detail}" for time, who, what, detail in list(self._trace)[-lines:])

    def require(self, condition: bool, text: str) -> None:
        """Where it is asked often, `if not condition: fail(…)` spares the making of a text that nobody reads."""
        if not condition:
            self.fail(text)

    def fail(self, text: str) -> None:
        raise InvariantViolated(f"at {self.now:.4f}: {text}")
