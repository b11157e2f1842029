"""Clients inside of a node's process, and the history they write down.

One client asks one thing at a time. Before it asks, it appends a line to the node's history, and another when it has the answer, each with one unbuffered
write: what was asked and never answered, since the process was killed, is there as well. Times are of CLOCK_MONOTONIC, which all processes of a machine share.

A line is JSON: ["b", operation, time, client, kind, object, arguments] or ["e", operation, time, outcome, result].
outcome: ok; no (certainly not carried out); unknown.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

import pykka

from coterie import CoterieError, Indeterminate, NoQuorum, NotLeader, Overloaded, Publish

LISTS: Final = ("list/a", "list/b", "list/c")
REFUSED: Final = (NoQuorum, NotLeader, Overloaded)  # certainly not carried out
PATIENCE: Final = 4.0  # seconds that an operation may take before its outcome is named


class History:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def begin(self, operation: str, client: str, kind: str, target: str, arguments: Any) -> None:
        self._write("b", operation, time.monotonic_ns(), client, kind, target, arguments)

    def end(self, operation: str, outcome: str, result: Any) -> None:
        self._write("e", operation, time.monotonic_ns(), outcome, result)

    def _write(self, *line: Any) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())


class Client(threading.Thread):
    """Asks again and again until it is told to stop. Its name has the time in it (milliseconds), so that no later client of this node has the same."""

    kind = ""

    def __init__(self, cluster: Any, history: History, node: str, number: int, pause: float) -> None:
        super().__init__(name=f"{node}.{self.kind}{number}.{time.monotonic_ns() // 1_000_000}", daemon=True)
        self.cluster, self.history, self.pause = cluster, history, pause
        self.random = random.Random(self.name)
        self.stopping = threading.Event()
        self.numbers = itertools.count()
        self.surprises: list[str] = []  # answers that are none of the named outcomes

    def run(self) -> None:
        while not self.stopping.wait(self.pause * self.random.uniform(0.5, 1.5)):
            self.once(f"{self.name}.{next(self.numbers)}")

    def once(self, operation: str) -> None:
        raise NotImplementedError

    def ask(self, message: Any) -> tuple[str, Any]:
        """-> (outcome, result); the reason in the place of the result when there is none."""
        try:
            return "ok", self.cluster.ask(message)
        except REFUSED as error:
            return "no", f"{type(error).__name__}: {error}"
        except Indeterminate as error:
            return "unknown", str(error)
        except pykka.ActorDeadError:  # the node is being stopped
            return "unknown", "stopped"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is none of the outcomes that have a name
            self.surprises.append(f"{self.name}: {message!r:.100}: {error!r}")
            return "unknown", repr(error)


class Publisher(Client):
    """Appends to lists: a record's place in its topic is its place in the list."""

    kind = "p"

    def once(self, operation: str) -> None:
        topic = self.random.choice(LISTS)
        self.history.begin(operation, self.name, "append", topic, None)
        outcome, result = self.ask(Publish(topic, self.data(operation), timeout=PATIENCE))
        self.history.end(operation, outcome, [result.seq, result.index] if outcome == "ok" else result)

    def data(self, operation: str) -> bytes:
        return operation.encode() + b"|" + b"." * int(10 ** self.random.uniform(0, 3.5))


class Retrier(Publisher):
    """Appends with a message id and asks again until it is acknowledged; what was under way when its process died is taken up by the next life."""

    kind = "r"

    def __init__(self, cluster: Any, history: History, node: str, number: int, pause: float, left: list[tuple[str, str]]) -> None:
        super().__init__(cluster, history, node, number, pause)
        self.left = left

    def run(self) -> None:
        for operation, topic in self.left:
            self.until_acknowledged(operation, topic)
        super().run()

    def once(self, operation: str) -> None:
        topic = self.random.choice(LISTS)
        self.history.begin(operation, self.name, "append", topic, "id")
        self.until_acknowledged(operation, topic)

    def until_acknowledged(self, operation: str, topic: str) -> None:
        data = self.data(operation)
        while True:
            outcome, result = self.ask(Publish(topic, data, message_id=operation, timeout=PATIENCE))
            if outcome == "ok":
                self.history.end(operation, "ok", [result.seq, result.index])
                return
            if self.stopping.wait(0.05):
                self.history.end(operation, "unknown", result)
                return


class Flood(threading.Thread):
    """Keeps `in_flight` publishes under way, and counts."""

    def __init__(self, cluster: Any, in_flight: int, size: int) -> None:
        super().__init__(daemon=True)
        self.cluster, self.data = cluster, b"." * size
        self.room = threading.Semaphore(in_flight)
        self.in_flight = in_flight
        self.stopping = threading.Event()
        self.acked = 0
        self.failed: Counter[str] = Counter()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.room.acquire()
            future = self.cluster.ask(Publish("flood", self.data), block=False)
            future.on_done(partial(self.done, future))
        for _ in range(self.in_flight):
            self.room.acquire()

    def done(self, future: Any) -> None:
        self.room.release()
        try:
            future.get(timeout=0)
            self.acked += 1
        except CoterieError as error:
            self.failed[type(error).__name__] += 1


def left_open(path: str) -> list[tuple[str, str]]:
    """The appends with an id that earlier lives of this node have not seen the end of, as (operation, topic)."""
    begun: dict[str, str] = {}
    for line in whole_lines(Path(path)):
        if line[0] == "e":
            begun.pop(line[1], None)
        elif line[6] == "id":
            begun[line[1]] = line[5]
    return list(begun.items())


def whole_lines(path: Path) -> list[Any]:
    """The lines of a history. One write is one line, so none is there in part."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
