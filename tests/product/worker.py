"""A node in a process of its own, driven by JSON lines: commands on standard input, answers and events on standard output.

Every delivery is appended to a file with one unbuffered write, so that what the handler has had survives a SIGKILL.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

import attrs

from coterie import (
    ClusterSupervisor,
    Config,
    CoterieError,
    DeadLetter,
    DeadLetters,
    HandlerActor,
    Join,
    Leave,
    Publish,
    Read,
    RegisterHandler,
    Status,
    Subscribe,
    TransferLeadership,
    Write,
)
from coterie.actors.room_messages import GetRaftView
from tests.product.load import Load, digest
from tests.product.spans import trace_to_files

_out = threading.Lock()


def say(**line: Any) -> None:
    with _out:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class Recorder(HandlerActor):
    """Appends `topic, seq, index, attempt, process, digest, head of the data` for each delivery. `poison`: it raises on data that begin so."""

    def __init__(self, path: str, node_id: str) -> None:
        super().__init__()
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.node_id = node_id
        self.delivered = 0
        self.written = 0
        self.poison = ""
        self.letters: list[DeadLetter] = []
        self.free = threading.Event()
        self.free.set()
        self.tracer: Any = None

    def handle_sync(self, topic: str, data: bytes, record: Any = None) -> None:
        self.free.wait()
        head = data[:40].split(b"|")[0].decode(errors="replace")
        if self.poison and head.startswith(self.poison):
            raise ValueError(f"{self.node_id} cannot read {head!r}")
        row = (json.dumps(topic), record.seq, record.index, record.attempt, os.getpid(), digest(data), head)
        os.write(self.file, ("\t".join(map(str, row)) + "\n").encode())
        self.delivered += 1
        if self.tracer is not None:
            with self.tracer.start_as_current_span("handling"):
                pass

    def handle_dead_letter(self, letter: DeadLetter) -> None:
        self.letters.append(letter)

    def handle_write(self, op: str, request: bytes) -> bytes:
        self.written += 1
        if self.tracer is not None:
            with self.tracer.start_as_current_span("writing"):
                pass
        return f"{self.node_id}:{op}:".encode() + request

    def handle_read(self, op: str, request: bytes) -> bytes:
        return f"{self.node_id}:{op}:{self.written}:".encode() + request


class StuckSink(logging.Handler):
    """A log sink that blocks whoever writes to it, like a full pipe that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.waiting = 0

    def handle(self, record: logging.LogRecord) -> bool:
        if not self.free.is_set():
            self.waiting += 1
            self.free.wait()
        return True


class Worker:
    handler: type[Recorder] = Recorder

    def __init__(self, settings: dict[str, Any]) -> None:
        self.sink = StuckSink()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(threadName)s %(message)s")
        logging.getLogger().addHandler(self.sink)
        for noisy in ("uvicorn", "grpc", "pykka", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.config = Config(**settings["config"])
        self.cluster = ClusterSupervisor.start(self.config)
        recorder = self.handler.start(settings["deliveries"], self.config.node_id)
        self.recorder: Recorder = recorder._actor_weakref()  # type: ignore[assignment]
        self.tracer = self.recorder.tracer = trace_to_files(self.config.node_id)
        self.recorder.poison = settings.get("poison", "")
        if settings.get("handler", True):
            self.cluster.ask(RegisterHandler(recorder))
        self.loads: dict[str, Load] = {}
        threading.Thread(target=self.events, daemon=True).start()

    def events(self) -> None:
        for event in self.cluster.ask(Subscribe(capacity=100_000)):
            say(event=type(event).__name__, **attrs.asdict(event))

    def handle(self, command: dict[str, Any]) -> Any:
        do = getattr(self, "do_" + command.pop("cmd").replace("-", "_"))
        del command["n"]
        if self.tracer is not None and do != self.do_status:
            with self.tracer.start_as_current_span("asking"):
                answer = do(**command)
        else:
            answer = do(**command)
        return attrs.asdict(answer) if attrs.has(type(answer)) else answer

    def do_status(self, local: bool = False, timeout: float = 5) -> Any:
        return self.cluster.ask(Status(local, timeout))

    def do_publish(self, topic: str, data: str, acks: Any = "quorum", message_id: str | None = None, timeout: float | None = None) -> Any:
        return self.cluster.ask(Publish(topic, data.encode(), acks, message_id, timeout=timeout))

    def do_write(self, op: str, data: str, timeout: float | None = None) -> Any:
        return self.cluster.ask(Write(op, data.encode(), timeout)).decode()

    def do_read(self, op: str, data: str, timeout: float | None = None, consistency: Any = None) -> Any:
        return self.cluster.ask(Read(op, data.encode(), timeout, consistency)).decode()

    def do_join(self, id: str, raft_addr: str, timeout: float | None = None) -> Any:  # noqa: A002 - the word of the API
        return self.cluster.ask(Join(id, raft_addr, timeout))

    def do_leave(self, id: str, timeout: float | None = None) -> Any:  # noqa: A002 - as above
        return self.cluster.ask(Leave(id, timeout))

    def do_transfer(self, id: str | None = None, timeout: float | None = None) -> Any:  # noqa: A002 - as above
        return self.cluster.ask(TransferLeadership(id, timeout))

    def do_load(self, **command: Any) -> Any:
        load = self.loads[command["publisher"]] = Load(self.cluster, command, say)
        load.start()
        return True

    def do_stop_load(self, publisher: str) -> Any:
        self.loads[publisher].stopping.set()
        return True

    def do_stall(self, on: bool) -> Any:
        """The handler stands still in its next call."""
        (self.recorder.free.clear if on else self.recorder.free.set)()
        return True

    def do_poison(self, begins: str) -> Any:
        """The handler raises on data that begin so; "" mends it."""
        self.recorder.poison = begins
        return True

    def do_letters(self, handled: bool = False) -> Any:
        """The dead letters in this node's buffer, or those its handler has had, as (letter, node, topic, seq, attempts, data)."""
        letters = list(self.recorder.letters) if handled else self.cluster.ask(DeadLetters(limit=1000)).letters
        return [(x.letter, x.node, x.topic, x.seq, x.attempts, x.data.decode()) for x in letters]

    def do_raft(self) -> Any:
        """The Raft actor's counters, as they are now."""
        rooms = self.cluster._actor_weakref()._rooms  # type: ignore[union-attr]
        return rooms.raft.ask(GetRaftView(), timeout=10).counters

    def do_hold(self, seconds: float) -> Any:
        """Keep the interpreter for so long, as a long call into C does that does not release it."""
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return True

    def do_block_logs(self, on: bool) -> Any:
        """-> how many threads wait in the sink."""
        (self.sink.free.clear if on else self.sink.free.set)()
        return self.sink.waiting

    def serve(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command["cmd"] == "stop":
                break
            threading.Thread(target=self.answer, args=(command,), daemon=True).start()
        self.cluster.stop()
        say(event="stopped")

    def answer(self, command: dict[str, Any]) -> None:
        number = command["n"]
        try:
            say(reply=number, value=self.handle(command))
        except Exception as error:  # noqa: BLE001 - the asker gets it
            say(reply=number, error=type(error).__name__, text=str(error))


def main(kind: type[Worker] = Worker) -> None:
    settings = json.loads(sys.argv[1])
    faulthandler.register(signal.SIGUSR1)  # where every thread is, on standard error, for whoever looks into a test that hangs
    try:
        worker = kind(settings)
    except CoterieError as error:
        say(event="failed", error=type(error).__name__, text=str(error))
        sys.exit(2)
    say(event="started", addresses=worker.cluster.addresses())
    worker.serve()


if __name__ == "__main__":
    main()
