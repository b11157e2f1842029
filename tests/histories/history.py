"""What clients asked for and what they were answered, with the times: the evidence that a checker of linearizability judges.

An operation has one of three ends. It was **answered**; it **failed**, which is to say that it certainly had no effect and never will; or its outcome is
**unknown** (a time-out, a leader that died), and it stays open: it may take effect at any later moment, or never. Who is not sure says nothing, and the operation
stays open. To call one failed that is open makes the checker blame the innocent; to leave one open that failed only makes it milder.

Times are of any clock that all who write into one history share: on one machine `time.monotonic_ns`, in the simulator a counter. Two operations are taken for
concurrent when one ended at the very time at which the other began.

A history of several processes is a file of JSON lines for each; whoever is killed leaves calls without an end, which are open.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import attrs

OPEN = float("inf")
READ = "read"


@attrs.frozen
class Operation:
    """argument: what is written or appended, (expected, new) of a cas. result: what a read found, whether a cas swapped.
    returned: OPEN while the outcome is unknown. hint: where it stands among the others, as far as anybody claims to know (an index of the log); the checker tries
    that order first, and believes nothing of it."""

    process: str
    key: str
    action: str
    argument: Any
    result: Any
    called: float
    returned: float
    hint: float | None = None

    @property
    def open(self) -> bool:
        return self.returned == OPEN

    def __str__(self) -> str:
        argument = "" if self.argument is None else repr(self.argument)
        end = "?" if self.open else f"{self.result!r}"
        return f"[{self.called} .. {'' if self.open else self.returned}] {self.process}: {self.action}({argument}) -> {end}"


class History:
    """Records operations as they happen. stream: each event is also written there, a line at a time, so that a killed process leaves what it knew. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic_ns, stream: TextIO | None = None) -> None:
        self._clock, self._stream = clock, stream
        self._lock = threading.Lock()
        self._operations: dict[int, Operation] = {}
        self._count = 0

    def call(self, process: str, key: str, action: str, argument: Any = None) -> int:
        """An operation begins: note this *before* it is sent. -> its number, for `ok` or `failed`."""
        with self._lock:
            number = self._count
            self._count += 1
            operation = self._operations[number] = Operation(process, key, action, argument, None, self._clock(), OPEN)
            self._write(["call", number, process, key, action, argument, operation.called])
        return number

    def ok(self, number: int, result: Any = None, hint: float | None = None) -> None:
        """It was answered: note this *after* the answer came."""
        with self._lock:
            now, known = self._clock(), self._operations[number]
            self._operations[number] = attrs.evolve(known, result=result, returned=now, hint=known.hint if hint is None else hint)
            self._write(["ok", number, result, now, hint])

    def hint(self, number: int, hint: float) -> None:
        """Where an operation of unknown outcome seems to have taken effect."""
        with self._lock:
            self._operations[number] = attrs.evolve(self._operations[number], hint=hint)
            self._write(["hint", number, hint])

    def failed(self, number: int) -> None:
        """It certainly had no effect, and never will."""
        with self._lock:
            self._operations.pop(number)
            self._write(["failed", number])

    def operations(self) -> list[Operation]:
        """In the order of their calls. A read without an answer says nothing, and is left out."""
        with self._lock:
            found = list(self._operations.values())
        return sorted((one for one in found if not (one.open and one.action == READ)), key=lambda one: one.called)

    def _write(self, event: list[Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()


def load(paths: Iterable[Path]) -> list[Operation]:
    """The operations of all these files, in the order of their calls. A last line that was cut off by a kill is left out; lists become tuples.
    Raises ValueError for a line in the middle that is none of a history."""
    operations: list[Operation] = []
    for path in paths:
        history = History()
        lines = path.read_text().split("\n")
        for position, line in enumerate(lines):
            try:
                if line:
                    _replay(history, json.loads(line))
            except (ValueError, KeyError, IndexError) as problem:
                if position < len(lines) - 1:
                    raise ValueError(f"{path}, line {position + 1}: {line!r} is no event of a history: {problem}") from None
        operations += history.operations()
    return sorted(operations, key=lambda one: one.called)


def _replay(history: History, event: list[Any]) -> None:
    kind, number, *rest = event
    known = history._operations
    if kind == "call":
        process, key, action, argument, called = rest
        known[number] = Operation(process, key, action, _frozen(argument), None, called, OPEN)
    elif kind == "ok":
        result, returned, *hint = rest
        place = hint[0] if hint and hint[0] is not None else known[number].hint
        known[number] = attrs.evolve(known[number], result=_frozen(result), returned=returned, hint=place)
    elif kind == "hint":
        known[number] = attrs.evolve(known[number], hint=rest[0])
    elif kind == "failed":
        del known[number]
    else:
        raise ValueError(f"event {kind!r}")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
