"""A load of numbered records from one node, and what came of each of them.

Record number `n` of publisher `p` is `p:n|<random bytes>`, cut to its size, so that whoever receives it can tell whose it is and which; an empty one is empty.
Every outcome is kept: acknowledged (with its place), unknown (`Indeterminate`), or refused (certainly not carried out).
"""

from __future__ import annotations

import collections
import hashlib
import json
import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from coterie import CoterieError, Indeterminate, Publish


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()[:12]


class Load(threading.Thread):
    """Publishes until `count` records or `stopping`, with `in_flight` of them open; says what came of it in one line, the rest goes to the file `outcome`.

    command: publisher, topics, outcome; count; size (low, high) and sizes ("log" or "uniform"); empty: the share of empty records; acks; timeout; in_flight;
    pause: seconds between two; seed; ids: each record has a message id, and one that came to nothing or to an unknown end is published again until acknowledged.
    """

    def __init__(self, cluster: Any, command: dict[str, Any], say: Any) -> None:
        super().__init__(daemon=True)
        self.cluster, self.say, self.stopping = cluster, say, threading.Event()
        self.publisher, self.topics, self.outcome = command["publisher"], command["topics"], command["outcome"]
        self.count, self.in_flight, self.pause = command.get("count", 1 << 60), command.get("in_flight", 64), command.get("pause", 0)
        self.low, self.high = command.get("size", (10, 200))
        self.uniform, self.empty = command.get("sizes", "log") == "uniform", command.get("empty", 0.0)
        self.acks, self.timeout, self.ids = command.get("acks", "quorum"), command.get("timeout"), command.get("ids", False)
        self.random = random.Random(command.get("seed", 0))
        self.waiting: collections.deque[tuple[str, int, bytes, float, Any]] = collections.deque()
        self.acked: list[tuple[str, int, str, int, int]] = []  # topic, number, digest, seq, index
        self.unknown: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []
        self.failed: collections.Counter[str] = collections.Counter()
        self.reasons: dict[str, str] = {}
        self.took: list[float] = []  # of every answer, seconds
        self.retried = 0

    def record(self, number: int) -> bytes:
        rng = self.random
        if rng.random() < self.empty:
            return b""
        size = rng.randint(self.low, self.high) if self.uniform else int(max(1, self.low) * (self.high / max(1, self.low)) ** rng.random())
        head = f"{self.publisher}:{number}|".encode()
        return (head + rng.randbytes(max(0, size - len(head))))[: max(size, len(head))]

    def publish(self, topic: str, number: int, data: bytes) -> None:
        message_id = f"{self.publisher}:{number}" if self.ids else None
        began = time.monotonic()
        future = self.cluster.ask(Publish(topic, data, self.acks, message_id, timeout=self.timeout), block=False)
        future.on_done(partial(self.answered, began))
        self.waiting.append((topic, number, data, began, future))

    def answered(self, began: float) -> None:
        self.took.append(time.monotonic() - began)

    def settle(self) -> None:
        topic, number, data, _, future = self.waiting.popleft()
        try:
            published = future.get(timeout=90)
            self.acked.append((topic, number, digest(data), published.seq, published.index))
            return
        except CoterieError as error:
            name, unknown = type(error).__name__, isinstance(error, Indeterminate)
            self.failed[name] += 1
            self.reasons[name] = str(error)
        if self.ids:
            self.retried += 1
            time.sleep(0.02)
            self.publish(topic, number, data)
        else:
            (self.unknown if unknown else self.refused).append((topic, number))

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set() and number < self.count:
            self.publish(self.random.choice(self.topics), number, self.record(number))
            number += 1
            if len(self.waiting) >= self.in_flight:
                self.settle()
            if self.pause:
                time.sleep(self.pause)
        while self.waiting:
            self.settle()
        outcome = {"publisher": self.publisher, "acked": self.acked, "unknown": self.unknown, "refused": self.refused}
        Path(self.outcome).write_text(json.dumps(outcome))
        took = sorted(self.took) or [0.0]
        self.say(
            event="load-done",
            publisher=self.publisher,
            number=number,
            acked=len(self.acked),
            failed=dict(self.failed),
            reasons=self.reasons,
            retried=self.retried,
            p50=took[len(took) // 2],
            p99=took[len(took) * 99 // 100],
            worst=took[-1],
        )
