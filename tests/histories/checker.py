"""Is a history linearizable? (Herlihy and Wing, 1990)

Can every operation be given a moment between its call and its answer, such that the object, taking them one at a time in that order, gives the answers that were
given?

The search is that of Wing and Gong (1993) with Lowe's memory (2017), as in Knossos and Porcupine: take any operation that may come next (called before the
earliest answer that is still to be explained), step the model, go on, and back when nothing fits. A pair (which operations are taken, state) that led
nowhere is never entered again. More rules keep the search small, none of which changes its verdict:

- an operation that can only look (`Model.still`) and may come next does so at once: nothing that comes later can hang on it;
- what claims to know its place (`Operation.hint`) is tried in that order, so that a history whose claims are right is proved without a step back;
- an open operation without a claim, or with one that was passed by, is tried last: it is only needed where nothing else goes on;
- an open one that overwrites whatever was there is only tried where somebody can notice it (`Model.blind`): otherwise it may as well come later, or never.

Linearizability is local: a history is linearizable exactly when its part of each key is, so each key is checked by itself.

The problem is NP-complete, so the search has a limit of steps. A history that reaches it is *undecided*, which is neither good nor bad, and must be said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs

from tests.histories.history import OPEN, READ, Operation
from tests.histories.models import REFUSED, Model

LIMIT = 200_000  # steps for each key; some seconds


@attrs.frozen
class Verdict:
    """linearizable: None when the search gave up. explanation: of a bad history where it ends to make sense, with the operations around."""

    linearizable: bool | None
    operations: int
    steps: int
    explanation: str = ""


class _Node:
    """A place in the search: who may come next from here, and how to go back. reached: the furthest place claimed by anybody up to here who does more than look."""

    __slots__ = ("candidates", "reached", "state", "taken")

    def __init__(self, candidates: Iterator[tuple[int, Any]], state: Any, taken: int, reached: float) -> None:
        self.candidates, self.state, self.taken, self.reached = candidates, state, taken, reached


class _Search:
    """The history of one key. Its answered operations are a doubly linked list of their calls and returns in time's order; a taken one is unlinked.

    Links are positions; 0 stands before the first event, `end` after the last.
    """

    def __init__(self, operations: Sequence[Operation], model: Model) -> None:
        self.model = model
        self.all = sorted(model.prepare(operations), key=lambda one: one.called)
        events = [(one.called, 0, number) for number, one in enumerate(self.all)]
        events += [(one.returned, 1, number) for number, one in enumerate(self.all) if not one.open]
        events.sort()  # at one time calls come first: then they are concurrent
        self.open: list[tuple[int, int]] = []  # (place among the events, operation), not linked
        self.call_at, self.return_at = [0] * len(self.all), [0] * len(self.all)
        self.event: list[tuple[bool, int]] = [(False, -1)]
        for place, (_, kind, number) in enumerate(events):
            if self.all[number].open:
                self.open.append((place, number))
                continue
            (self.return_at if kind else self.call_at)[number] = len(self.event)
            self.event.append((kind == 0, number))
        self.place = [0] + [place for place, (_, _, number) in enumerate(events) if not self.all[number].open] + [len(events)]
        self.end = len(self.event)
        self.after = [*range(1, self.end + 1), self.end]
        self.before = [0, *range(self.end)]
        self.hints = [OPEN if one.hint is None else one.hint for one in self.all]
        self.answered = sum(not one.open for one in self.all)
        self.taken = 0  # a bit for each operation
        self.steps = 0
        self.reached = 0.0
        self.furthest = (-1, model.initial(), 0)  # (answered operations taken, state, the taken)

    def run(self, limit: int) -> bool | None:
        state = self.model.initial()
        seen: set[tuple[int, Any]] = set()
        stack = [_Node(self._candidates(state), state, -1, 0.0)]
        done = 0
        while done < self.answered:
            if done > self.furthest[0]:
                self.furthest = (done, state, self.taken)
            self.reached = stack[-1].reached
            for number, new in stack[-1].candidates:
                self.steps += 1
                key = (self.taken | 1 << number, new)
                if key not in seen:
                    seen.add(key)
                    break
            else:
                node = stack.pop()
                if not stack:
                    return False
                done -= self._put_back(node.taken)
                state = stack[-1].state
                continue
            if self.steps > limit:
                return None
            done += self._take(number)
            state = new
            hint = self.hints[number]
            moves = self.reached < hint < OPEN and not self.model.still(self.all[number])  # who can only look went before its turn
            stack.append(_Node(self._candidates(state), state, number, hint if moves else self.reached))
        return True

    def _take(self, number: int) -> bool:
        """-> does it count, being answered?"""
        self.taken |= 1 << number
        if self.all[number].open:
            return False
        for at in (self.call_at[number], self.return_at[number]):
            before, after = self.before[at], self.after[at]
            self.after[before], self.before[after] = after, before
        return True

    def _put_back(self, number: int) -> bool:
        self.taken &= ~(1 << number)
        if self.all[number].open:
            return False
        for at in (self.return_at[number], self.call_at[number]):
            self.after[self.before[at]] = self.before[self.after[at]] = at
        return True

    def _candidates(self, state: Any) -> Iterator[tuple[int, Any]]:
        """Who may come next, and the state then: all that were called before the first return that is left."""
        all_, step = self.all, self.model.step
        at, first, last = self.after[0], [], []
        while at < self.end and self.event[at][0]:
            number = self.event[at][1]
            new = step(state, all_[number])
            if new is not REFUSED:
                if self.model.still(all_[number]):
                    yield number, new
                    return
                first.append((number, new))
            last.append(number)
            at = self.after[at]
        waiting = [number for place, number in self.open if place < self.place[at] and not self.taken >> number & 1]
        others = last + waiting
        last = []
        for number in waiting:
            new = step(state, all_[number])
            if new is not REFUSED and new != state and (not self.model.blind(all_[number]) or self._noticed(number, others, state, new)):
                (first if self.reached < self.hints[number] < OPEN else last).append((number, new))
        first.sort(key=lambda one: self.hints[one[0]])
        yield from first
        yield from last

    def _noticed(self, number: int, others: list[int], state: Any, new: Any) -> bool:
        return any(self._notices(self.all[other], state, new) for other in others if other != number)

    def _notices(self, operation: Operation, state: Any, new: Any) -> bool:
        """Is it of any use to it that the state is the new one? An open one that would change nothing then may as well never happen."""
        after = self.model.step(new, operation)
        if after is REFUSED or self.model.blind(operation):
            return False
        return bool(after != (new if operation.open else self.model.step(state, operation)))

    def explain(self) -> str:
        done, state, taken = self.furthest
        left = [one for number, one in enumerate(self.all) if not taken >> number & 1 and not one.open]
        first = min(left, key=lambda one: one.returned)
        around = [one for one in left if one.called <= first.returned]
        open_ones = [self.all[number] for _, number in self.open if not taken >> number & 1 and self.all[number].called <= first.returned]
        shown = self.model.show(state)
        head = (
            f"{done} of {self.answered} answered operations can be put into an order, the object is then {shown}, and none of these fits:"
        )
        return "\n".join([head, *(f"  {one}" for one in (*around[:20], *open_ones[:20]))])


def check_key(operations: Sequence[Operation], model: Callable[[], Model], limit: int = LIMIT) -> Verdict:
    """All operations of one key."""
    search = _Search(operations, model())
    result = search.run(limit)
    return Verdict(result, len(operations), search.steps, search.explain() if result is False else "")


def check(operations: Iterable[Operation], model: Callable[[], Model], limit: int = LIMIT) -> dict[str, Verdict]:
    """The verdict on each key. A bad history comes with the smallest form of it that was found."""
    by_key: dict[str, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
    verdicts = {}
    for key, of_it in by_key.items():
        verdict = check_key(of_it, model, limit)
        if verdict.linearizable is False:
            small = smallest(of_it, model, limit)
            lines = "\n".join(f"  {one}" for one in small)
            verdict = attrs.evolve(verdict, explanation=f"{verdict.explanation}\nsmallest form, {len(small)} operations:\n{lines}")
        verdicts[key] = verdict
    return verdicts


def smallest(operations: Sequence[Operation], model: Callable[[], Model], limit: int = LIMIT) -> list[Operation]:
    """A bad history without what it does not need to be bad: what came after, and reads and writes that nothing hangs on.

    What was called before the cut and answered after it is open at the cut. A write is only taken away while nobody has its value, since a value from nowhere
    would make any history bad.
    """

    def bad(some: Sequence[Operation]) -> bool:
        return check_key(some, model, limit).linearizable is False

    ends = sorted({one.returned for one in operations if not one.open})
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if bad(_until(operations, ends[middle])):
            high = middle
        else:
            low = middle + 1
    kept = _until(operations, ends[low]) if ends else list(operations)
    size = max(1, len(kept) // 2)
    while size:
        for start in range((len(kept) - 1) // size * size, -1, -size):
            rest = kept[:start] + kept[start + size :]
            if not _needed(kept[start : start + size], rest) and bad(rest):
                kept = rest
        size //= 2
    return kept


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    cut = [one if one.returned <= end else attrs.evolve(one, returned=float("inf"), result=None) for one in operations if one.called <= end]
    return [one for one in cut if not (one.open and one.action == READ)]


def _needed(gone: Sequence[Operation], rest: Sequence[Operation]) -> bool:
    """Does anybody have a value that was written by what is to go?"""
    values = {one.argument[1] if one.action == "cas" else one.argument for one in gone if one.action != READ}
    had = {value for one in rest if one.action == READ for value in (one.result if isinstance(one.result, tuple) else (one.result,))}
    had |= {one.argument[0] for one in rest if one.action == "cas"}
    return bool(values & had)
