"""What an object does when nobody disturbs it: the sequential specifications that a concurrent history is held against.

A model steps from state to state. States are hashable and small, since the checker remembers them by the thousand. `step` gives REFUSED when the operation,
executed in this state, would have been answered otherwise than it was. An open operation has no answer that could contradict: its step always succeeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from tests.histories.history import READ, Operation

REFUSED: Final = object()


class Model(Protocol):
    """One object, of one key; made anew for each history of a key."""

    def prepare(self, operations: Sequence[Operation]) -> list[Operation]:
        """Look at all operations beforehand. -> those that matter: open ones that nobody can have noticed are left out, being free to happen never."""
        ...

    def initial(self) -> Hashable: ...

    def step(self, state: Any, operation: Operation) -> Any:
        """The state after the operation, or REFUSED."""
        ...

    def blind(self, operation: Operation) -> bool:
        """Does it put another state in the place of any, whatever that was? An open one is then worth a try only right before who notices."""
        ...

    def still(self, operation: Operation) -> bool:
        """Does it leave every state in which it can have its answer as it is?"""
        ...

    def show(self, state: Any) -> str: ...


class Register:
    """`write(value)`, `read() -> value` (None before the first write), `cas((expected, new)) -> bool`."""

    def prepare(self, operations: Sequence[Operation]) -> list[Operation]:
        if any(one.action == "cas" and one.result is False for one in operations):
            return list(operations)  # a failed cas notices every value but one
        noticed = {one.result for one in operations if one.action == READ}
        noticed |= {one.argument[0] for one in operations if one.action == "cas"}
        return [one for one in operations if not one.open or self._leaves(one) in noticed]

    @staticmethod
    def _leaves(operation: Operation) -> Any:
        return operation.argument[1] if operation.action == "cas" else operation.argument

    def initial(self) -> Hashable:
        return None

    def step(self, state: Any, operation: Operation) -> Any:
        if operation.action == READ:
            return state if operation.result == state else REFUSED
        if operation.action == "write":
            return operation.argument
        expected, new = operation.argument
        swaps = state == expected
        if not operation.open and swaps != operation.result:
            return REFUSED
        return new if swaps else state

    def blind(self, operation: Operation) -> bool:
        return operation.action == "write"

    def still(self, operation: Operation) -> bool:
        return operation.action == READ or (operation.action == "cas" and operation.result is False)

    def show(self, state: Any) -> str:
        return repr(state)


class AppendList:
    """`append(value)`, `read() -> (value, …)`, the whole list. Values are unique.

    A list only grows, so every state is comparable with the longest list that was read: a prefix of it, or an extension. An append that would lead away from
    it is refused at once, which leaves the checker little to search. A state is a number; equal lists have the same.
    """

    def __init__(self) -> None:
        self._children: dict[tuple[int, Any], int] = {}
        self._values: list[tuple[int, Any]] = [(0, None)]  # of each state: the one before, and what was appended
        self._on_the_way: dict[int, int] = {}  # along the longest read: state -> the next
        self._reads: dict[tuple[Any, ...], int] = {}

    def prepare(self, operations: Sequence[Operation]) -> list[Operation]:
        reads = [tuple(one.result) for one in operations if one.action == READ]
        longest: tuple[Any, ...] = max(reads, key=len, default=())
        states = self._states(longest)
        self._on_the_way = dict(pairwise(states))
        self._reads = {read: self._states(read)[-1] for read in set(reads)}
        noticed = {value for read in self._reads for value in read}
        return [one for one in operations if not one.open or one.argument in noticed]

    def _states(self, values: Iterable[Any]) -> list[int]:
        states = [0]
        for value in values:
            states.append(self._append(states[-1], value))
        return states

    def _append(self, state: int, value: Any) -> int:
        child = self._children.get((state, value))
        if child is None:
            child = self._children[state, value] = len(self._values)
            self._values.append((state, value))
        return child

    def initial(self) -> Hashable:
        return 0

    def step(self, state: Any, operation: Operation) -> Any:
        if operation.action == READ:
            return state if self._reads[tuple(operation.result)] == state else REFUSED
        after = self._append(state, operation.argument)
        return after if self._on_the_way.get(state, after) == after else REFUSED

    def blind(self, operation: Operation) -> bool:
        return False

    def still(self, operation: Operation) -> bool:
        return operation.action == READ

    def show(self, state: int) -> str:
        values = []
        while state:
            state, value = self._values[state]
            values.append(value)
        shown = ", ".join(map(repr, values[:5][::-1]))
        return f"[{'… ' if len(values) > 5 else ''}{shown}], {len(values)} long"
