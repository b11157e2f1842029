"""A node in a process of its own, driven by JSON lines: commands on standard input, answers and events on standard output.

Every delivery is appended to a file with one unbuffered write, so that what the handler has had survives a SIGKILL. A load publishes numbered
records `<publisher>:<number>:<padding>` and reports every outcome by name.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import attrs

from coterie import (
    ClusterSupervisor,
    Config,
    CoterieError,
    HandlerActor,
    Join,
    Leave,
    Publish,
    Read,
    RegisterHandler,
    Status,
    Subscribe,
    Write,
)

_out = threading.Lock()


def say(**line: Any) -> None:
    with _out:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class Recorder(HandlerActor):
    """Appends `topic seq attempt sha1(data)[:12] head-of-data` for each delivery."""

    def __init__(self, path: str, node_id: str) -> None:
        super().__init__()
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.node_id = node_id
        self.delivered = 0
        self.stall = threading.Event()
        self.stall.set()

    def handle_sync(self, topic: str, data: bytes, record: Any = None) -> None:
        self.stall.wait()
        head = data[:40].split(b"|")[0].decode()
        digest = hashlib.sha1(data).hexdigest()[:12]
        os.write(self.file, f"{json.dumps(topic)}\t{record.seq}\t{record.attempt}\t{digest}\t{head}\n".encode())
        self.delivered += 1

    def handle_write(self, op: str, request: bytes) -> bytes:
        return f"{self.node_id}:{op}:".encode() + request

    def handle_read(self, op: str, request: bytes) -> bytes:
        return f"{self.node_id}:{op}:".encode() + request


class Load(threading.Thread):
    """Publishes until `count` records or `stop`; keeps `in_flight` open; says every outcome in one line at the end."""

    def __init__(self, cluster: Any, command: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.cluster, self.command, self.stopping = cluster, command, threading.Event()

    def run(self) -> None:
        c = self.command
        rng = random.Random(c.get("seed", 0))
        publisher, topics, low, high = c["publisher"], c["topics"], *c.get("size", (10, 200))
        waiting: collections.deque[tuple[str, str, Any]] = collections.deque()
        outcomes: dict[str, Any] = {"acked": [], "failed": collections.Counter(), "unknown": [], "refused": []}
        number, last_ok = 0, time.monotonic()

        def settle() -> None:
            nonlocal last_ok
            topic, head, future = waiting.popleft()
            try:
                published = future.get(timeout=60)
                outcomes["acked"].append((topic, head, published.seq, published.index))
                last_ok = time.monotonic()
            except CoterieError as error:
                name = type(error).__name__
                outcomes["failed"][name] += 1
                (outcomes["unknown"] if name == "Indeterminate" else outcomes["refused"]).append((topic, head))

        while not self.stopping.is_set() and number < c.get("count", 1 << 60):
            topic = rng.choice(topics)
            head = f"{publisher}:{number}"
            size = min(high, int(low * (high / low) ** rng.random())) if low > 0 else int(high * rng.random() ** 3)
            # The head is cut to the size: an empty record stays empty.
            data = (f"{head}|".encode() + rng.randbytes(size))[: max(size, len(head) + 1)] if size else b""
            message = Publish(topic, data, acks=c.get("acks", "quorum"), timeout=c.get("timeout"))
            waiting.append((topic, head if size else "", self.cluster.ask(message, block=False)))
            number += 1
            if len(waiting) >= c.get("in_flight", 64):
                settle()
            if c.get("pause"):
                time.sleep(c["pause"])
        while waiting:
            settle()
        with Path(c["outcome"]).open("w") as file:
            json.dump(outcomes, file)
        say(event="load-done", publisher=publisher, number=number, acked=len(outcomes["acked"]), failed=dict(outcomes["failed"]))


class Worker:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.config = Config(**settings["config"])
        self.cluster = ClusterSupervisor.start(self.config)
        self.recorder = Recorder.start(settings["deliveries"], self.config.node_id)
        if settings.get("handler", True):
            self.cluster.ask(RegisterHandler(self.recorder))
        self.loads: dict[str, Load] = {}
        threading.Thread(target=self.events, daemon=True).start()

    def events(self) -> None:
        for event in self.cluster.ask(Subscribe(capacity=100_000)):
            say(event=type(event).__name__, **attrs.asdict(event))

    def handle(self, command: dict[str, Any]) -> Any:
        match command["cmd"]:
            case "status":
                return attrs.asdict(self.cluster.ask(Status(local=command.get("local", False), timeout=command.get("timeout", 5))))
            case "publish":
                data = command["data"].encode()
                return attrs.asdict(
                    self.cluster.ask(
                        Publish(
                            command["topic"], data, command.get("acks", "quorum"), command.get("message_id"), timeout=command.get("timeout")
                        )
                    )
                )
            case "write":
                return self.cluster.ask(Write(command["op"], command["data"].encode(), command.get("timeout"))).decode()
            case "read":
                return self.cluster.ask(Read(command["op"], command["data"].encode(), command.get("timeout"))).decode()
            case "join":
                return attrs.asdict(self.cluster.ask(Join(command["id"], command["raft_addr"], command.get("timeout"))))
            case "leave":
                return attrs.asdict(self.cluster.ask(Leave(command["id"], command.get("timeout"))))
            case "load":
                load = self.loads[command["publisher"]] = Load(self.cluster, command)
                load.start()
                return True
            case "stop-load":
                self.loads[command["publisher"]].stopping.set()
                return True
            case "delivered":
                return self.recorder._actor_weakref().delivered
            case "stall":
                (self.recorder._actor_weakref().stall.clear if command["on"] else self.recorder._actor_weakref().stall.set)()
                return True
        raise ValueError(command)

    def serve(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command["cmd"] == "stop":
                break
            threading.Thread(target=self.answer, args=(command,), daemon=True).start()
        self.cluster.stop()
        say(event="stopped")

    def answer(self, command: dict[str, Any]) -> None:
        try:
            say(reply=command["n"], value=self.handle(command))
        except Exception as error:  # noqa: BLE001 - the asker gets it
            say(reply=command["n"], error=type(error).__name__, text=str(error))


def main() -> None:
    settings = json.loads(sys.argv[1])
    try:
        worker = Worker(settings)
    except CoterieError as error:
        say(event="failed", error=type(error).__name__, text=str(error))
        sys.exit(2)
    say(event="started", addresses=worker.cluster.addresses())
    worker.serve()


if __name__ == "__main__":
    main()
