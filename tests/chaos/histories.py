"""What clients wrote down, and whether it can be true of lists that were appended to one at a time.

Where every record stands in the end is known, since each node has had the whole list. So linearizability needs no search: the order of the list is the only
candidate, and it is a witness if and only if no operation stands behind one that began after it had ended (Herlihy and Wing 1990). Operations of unknown
outcome never end; they may stand where they like after their beginning, or nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from tests.chaos.clients import whole_lines
from tests.product.checks import History

FOREVER = 1 << 63


@attrs.define
class Operation:
    """outcome: ok; no; unknown, which it is too when its process died. ended: FOREVER when its outcome is unknown."""

    name: str
    client: str
    kind: str
    target: str
    arguments: Any
    began: int
    ended: int = FOREVER
    outcome: str = "unknown"
    result: Any = None


def read_operations(paths: Iterable[Path]) -> list[Operation]:
    """In the order of their beginnings."""
    operations: dict[str, Operation] = {}
    for path in paths:
        for line in whole_lines(path):
            if line[0] == "b":
                _, name, began, client, kind, target, arguments = line
                assert name not in operations, f"{path}: {name} began twice"
                operations[name] = Operation(name, client, kind, target, arguments, began)
            else:
                _, name, ended, outcome, result = line
                operation = operations[name]
                operation.outcome, operation.result = outcome, result
                operation.ended = FOREVER if outcome == "unknown" else ended
    return sorted(operations.values(), key=lambda operation: operation.began)


def check_lists(history: History, operations: list[Operation]) -> Counter[str]:
    """history: what stands in each list, the same on all nodes. -> how many appends of which outcome; `unknown, there` are those that took effect all the same."""
    appends = {operation.name: operation for operation in operations if operation.kind == "append"}
    targets = {operation.target for operation in appends.values()}
    where: dict[str, int] = {}
    for target in targets:
        latest: Operation | None = None  # the one that began last, of those that stand before
        for seq, place in enumerate(history.get(target, ()), start=1):
            operation = appends.get(place.head)
            assert operation is not None, f"{target!r} seq {seq}: nobody appended {place.head!r}"
            assert operation.target == target, f"{place.head} was appended to {operation.target!r} and stands in {target!r} at seq {seq}"
            assert place.head not in where, f"{target!r}: {place.head} stands at seq {where[place.head]} and at {seq}"
            assert latest is None or operation.ended >= latest.began, (
                f"not linearizable: {operation.name} stands in {target!r} at seq {seq}, behind {latest.name}, "
                f"which began {(latest.began - operation.ended) / 1e6:.3f} ms after it had ended"
            )
            if latest is None or operation.began > latest.began:
                latest = operation
            where[place.head] = seq
    return Counter(_outcome(operation, history, where.get(operation.name)) for operation in appends.values())


def _outcome(operation: Operation, history: History, seq: int | None) -> str:
    match operation.outcome:
        case "ok":
            assert seq is not None, f"acknowledged and lost: {operation}"
            stands = [seq, history[operation.target][seq - 1].index]
            assert operation.result == stands, (
                f"{operation.name} was acknowledged with seq and index {operation.result} and stands at {stands}"
            )
        case "no":
            assert seq is None, f"refused, and yet carried out at seq {seq}: {operation}"
        case _:
            return "unknown, there" if seq is not None else "unknown, not there"
    return operation.outcome
