"""Registers that are kept by replicated commands: the handler that holds them, and the clients that ask for them.

A register's key has the time in it (`SPAN`), on a clock that all share: all clients work on the same few registers at the same time, and then on the next
ones, so that no history of one register grows long.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from coterie import Apply, Read
from tests.chaos.clients import PATIENCE, Client
from tests.histories.checker import check
from tests.histories.history import READ, History, load
from tests.histories.models import Register
from tests.product.worker import Recorder

SPAN: Final = 4  # seconds that a register is used
CONSISTENCIES: Final = ("linearizable", "lease", "logged")  # of reads; the last goes through the log as a command


class Registers(Recorder):
    """A dictionary; its commands are write, cas and read."""

    def __init__(self, path: str, node_id: str) -> None:
        super().__init__(path, node_id)
        self.values: dict[str, Any] = {}
        self.applied = 0

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes:
        key, argument = json.loads(data)
        assert index > self.applied, f"command {index} came after command {self.applied}"  # a retry has a number too, and is not given
        self.applied = index
        old = self.values.get(key)
        if op == "write":
            self.values[key] = argument
        elif op == "cas" and old == argument[0]:
            self.values[key] = argument[1]
        return json.dumps({"write": None, "cas": op == "cas" and old == argument[0], READ: old}[op]).encode()

    def handle_read(self, op: str, request: bytes) -> bytes:
        return json.dumps(self.values.get(json.loads(request))).encode()

    def handle_snapshot(self) -> Iterator[bytes]:
        yield json.dumps([self.applied, self.values]).encode()

    def handle_restore(self, chunks: Iterator[bytes]) -> None:
        self.applied, self.values = json.loads(b"".join(chunks))

    def digest(self) -> list[Any]:
        """(last command, hash of the state); a state that is being written gives one that agrees with nobody's."""
        return [self.applied, hashlib.sha256(json.dumps(sorted(self.values.copy().items())).encode()).hexdigest()]


class RegisterClient(Client):
    """Writes, swaps and reads, by chance; the registers are those of the time. With a session it asks again, under the same number, until it knows."""

    kind = "k"

    def __init__(self, cluster: Any, history: History, node: str, number: int, pause: float, session: bool) -> None:
        super().__init__(cluster, history, node, number, pause)
        self.session = self.name if session else None
        self.commands = 0
        self.last: dict[str, Any] = {}  # what this client saw in a register

    def once(self, operation: str) -> None:
        key = f"{int(time.monotonic()) // SPAN}/{self.random.choice('ab')}"
        action = self.random.choice(("write", "cas", READ, READ))
        argument = {"write": operation, "cas": (self.last.get(key), operation), READ: None}[action]
        how = self.random.choice(CONSISTENCIES) if action == READ else "logged"
        number = self.history.call(self.name, key, action, argument)
        if how == "logged":
            outcome, result = self.apply(action, key, argument)
        else:
            outcome, result = self.ask(Read(READ, json.dumps(key).encode(), timeout=PATIENCE, consistency=how))
        if outcome == "ok":
            found = json.loads(result if how != "logged" else result.result)
            if action != "cas" or found:
                self.last[key] = found if action == READ else operation
            self.history.ok(number, found)
        elif outcome == "no":
            self.history.failed(number)

    def apply(self, action: str, key: str, argument: Any) -> tuple[str, Any]:
        data = json.dumps([key, argument]).encode()
        if self.session is None:
            return self.ask(Apply(action, data, timeout=PATIENCE))
        first = True
        while True:
            outcome, result = self.ask(Apply(action, data, self.session, self.commands + 1, PATIENCE))
            if outcome == "no" and first:
                return outcome, result  # its number was not used
            if outcome == "ok" or self.stopping.wait(0.05):
                self.commands += 1
                return outcome if outcome == "ok" else "unknown", result
            first = False


def check_registers(paths: list[Path], since: int) -> tuple[int, int]:
    """The histories of all registers that were used since then. -> operations, and how many of them no verdict was found for. AssertionError says what cannot be."""
    operations = load(paths)
    recent = {operation.key for operation in operations if operation.called >= since}
    verdicts = check([operation for operation in operations if operation.key in recent], Register)
    for key, verdict in verdicts.items():
        assert verdict.linearizable is not False, f"register {key} is not linearizable:\n{verdict.explanation}"
    undecided = sum(verdict.operations for verdict in verdicts.values() if verdict.linearizable is None)
    return sum(verdict.operations for verdict in verdicts.values()), undecided
