"""Clusters of real processes for the product tests: start, ask, kill, pause, restart, and read what every handler has had."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.product.wait import wait_for


class Delivery(NamedTuple):
    """One call of a node's handler. life: the process that it was in."""

    seq: int
    index: int
    attempt: int
    life: int
    digest: str
    head: str


class NodeFailed(AssertionError):
    """A node process said that it could not start, or ended."""


class CommandFailed(Exception):
    """The node answered with an error. `name`: the exception's class; `text`: its message."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


class _Ports:
    """Ports that no other test run of this machine takes, also while the node they belong to is down. They lie below the range that systems give to outgoing
    connections, and come in blocks; a lock on a file says that a block is taken, for as long as this process lives."""

    FIRST: Final = 20_000
    BLOCK: Final = 100
    BLOCKS: Final = 120

    def __init__(self) -> None:
        self._left: list[int] = []
        self._locks: list[int] = []

    def pair(self) -> int:
        """A port free for TCP and UDP, whose neighbour is free, too."""
        while True:
            if not self._left:
                self._left = self._block()
            port = self._left.pop()
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + 1))
                except OSError:
                    continue
            return port

    def _block(self) -> list[int]:
        directory = Path(tempfile.gettempdir()) / f"coterie-test-ports-{os.getuid()}"
        directory.mkdir(exist_ok=True)
        for block in random.SystemRandom().sample(range(self.BLOCKS), self.BLOCKS):
            lock = os.open(directory / str(block), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            self._locks.append(lock)
            first = self.FIRST + block * self.BLOCK
            return list(range(first, first + self.BLOCK, 2))
        raise AssertionError("other test runs hold all ports")


_ports = _Ports()


def free_port() -> int:
    """See `_Ports`: its neighbour is free too, since the second management server sits on the next port."""
    return _ports.pair()


class Node:
    """One node's settings and, while it runs, its process."""

    program: str = "tests.product.worker"

    def __init__(self, directory: Path, name: str, seeds: str, bootstrap: bool = False, handler: bool = True, **config: Any) -> None:
        self.directory, self.name, self.handler = directory, name, handler
        self.machine: tuple[str, ...] = ()  # the command that runs another on its machine; none: it runs on this one
        self.poison = ""  # its handler raises on data that begin so, from its start on
        self.config = {
            "node_id": name,
            "raft_addr": f"127.0.0.1:{free_port()}",
            "mem_bind": f"127.0.0.1:{free_port()}",
            "mgmt_addr": f"127.0.0.1:{free_port()}",
            "seeds_csv": seeds,
            "data_dir": str(directory / name),
            "bootstrap": bootstrap,
            **config,
        }
        self.process: subprocess.Popen[str] | None = None
        self.lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._ended = False

    @property
    def raft_addr(self) -> str:
        return str(self.config["raft_addr"])

    @property
    def mgmt_addr(self) -> str:
        return str(self.config["mgmt_addr"])

    @property
    def deliveries_path(self) -> Path:
        return self.directory / f"{self.name}.deliveries"

    def start(self, deadline: float = 60) -> Node:
        settings = {"config": self.config, "deliveries": str(self.deliveries_path), "handler": self.handler, "poison": self.poison}
        self._ended = False
        begin = len(self.lines)
        with (self.directory / f"{self.name}.stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*self.machine, sys.executable, "-m", self.program, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=Path(__file__).parents[2],
                env=os.environ | {"PYTHONWARNINGS": "error::ResourceWarning"},
            )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        line = self.wait_line(lambda line: line.get("event") in ("started", "failed"), deadline, begin)
        if line["event"] == "failed":
            raise NodeFailed(f"{line['error']}: {line['text']}")
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for text in process.stdout:
            with self._changed:
                self.lines.append({"at": time.monotonic(), **json.loads(text)})
                self._changed.notify_all()
        with self._changed:
            self._ended = self.process is process
            self._changed.notify_all()

    def wait_line(self, wanted: Callable[[dict[str, Any]], bool], deadline: float, begin: int = 0) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.lines[begin:] if wanted(line)]
            return bool(found) or self._ended

        with self._changed:
            self._changed.wait_for(look, deadline)
        if not found:
            stderr = (self.directory / f"{self.name}.stderr").read_text()[-3000:]
            raise NodeFailed(f"{self.name}: not said within {deadline} s; the process {'ended' if self._ended else 'runs'}\n{stderr}")
        return found[0]

    def post(self, cmd: str, **arguments: Any) -> int:
        number = next(self._numbers)
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps({"cmd": cmd, "n": number, **arguments}) + "\n")
        self.process.stdin.flush()
        return number

    def ask(self, cmd: str, wait: float = 30, **arguments: Any) -> Any:
        begin = len(self.lines)
        number = self.post(cmd, **arguments)
        line = self.wait_line(lambda line: line.get("reply") == number, wait, begin)
        if "error" in line:
            raise CommandFailed(line["error"], line["text"])
        return line["value"]

    def status(self, local: bool = False) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("status", local=local)
        return answer

    # -- what happens to processes --------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, also of a process that is stopped, and wait for the end."""
        if self.running:
            assert self.process is not None
            self.process.kill()
            self.process.wait(10)
        self._close_pipes()

    def stop(self, deadline: float = 20) -> None:
        """A graceful stop."""
        if self.running:
            assert self.process is not None
            self.post("stop")
            self.process.wait(deadline)
        self._close_pipes()

    def _close_pipes(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def get(self, path: str) -> Any:
        """The JSON of the management API."""
        with urllib.request.urlopen(f"http://{self.mgmt_addr}{path}", timeout=10) as answer:
            return json.loads(answer.read())

    def post_json(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(f"http://{self.mgmt_addr}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def count(self, event: str, begin: int = 0) -> int:
        return sum(line.get("event") == event for line in self.lines[begin:])

    # -- load -----------------------------------------------------------------------------------------------------------------

    def load(self, publisher: str = "", **command: Any) -> str:
        """Start a load; -> the publisher's name."""
        publisher = publisher or self.name
        self.post("load", publisher=publisher, outcome=str(self.outcome_path(publisher)), **command)
        return publisher

    def load_done(self, publisher: str = "", deadline: float = 60, stop: bool = False) -> dict[str, Any]:
        """Wait for the load's end; its line. stop: ask it to end."""
        publisher = publisher or self.name
        if stop:
            self.post("stop-load", publisher=publisher)
        return self.wait_line(lambda line: line.get("event") == "load-done" and line["publisher"] == publisher, deadline)

    def outcome_path(self, publisher: str) -> Path:
        return self.directory / f"{publisher}.outcome"

    # -- what its handler has had ---------------------------------------------------------------------------------------------

    def deliveries(self) -> dict[str, list[Delivery]]:
        """topic -> deliveries in the order of the calls, over all lives of the node."""
        by_topic: dict[str, list[Delivery]] = collections.defaultdict(list)
        text = self.deliveries_path.read_text() if self.deliveries_path.exists() else ""
        for line in text.splitlines():
            topic, seq, index, attempt, life, digest, head = line.split("\t")
            by_topic[json.loads(topic)].append(Delivery(int(seq), int(index), int(attempt), int(life), digest, head))
        return dict(by_topic)


class ProcessCluster:
    """Nodes n1, n2, …; n1 bootstraps, the others are joined as voters."""

    def __init__(self, directory: Path, count: int = 3, **config: Any) -> None:
        self.directory, self.settings = directory, config
        first = Node(directory, "n1", "", bootstrap=True, **config)
        self.seed = str(first.config["mem_bind"])
        self.nodes = [first, *(Node(directory, f"n{n}", self.seed, **config) for n in range(2, count + 1))]

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def add(self, name: str, **config: Any) -> Node:
        """One more node, not started."""
        node = Node(self.directory, name, self.seed, **self.settings | config)
        self.nodes.append(node)
        return node

    def others(self, *but: Node) -> list[Node]:
        return [node for node in self.nodes if node.running and node not in but]

    def start(self) -> ProcessCluster:
        for node in self.nodes:
            node.start()
        self.wait_leader(self.nodes)
        for node in self.nodes[1:]:
            self.nodes[0].ask("join", id=node.name, raft_addr=node.raft_addr)
        self.wait_whole()
        return self

    def wait_whole(self, deadline: float = 15) -> None:
        """Until every running node knows a leader and sees all the running ones alive."""
        names = {node.name for node in self.others()}
        for node in self.others():
            seen: dict[str, Any] = {}

            def sees_all(node: Node = node, seen: dict[str, Any] = seen) -> bool:
                status = node.status(local=True)
                seen.update(
                    leader=status["leader_id"], members={m["id"]: m["state"] for m in status["members"]}, warnings=status["warnings"]
                )
                return bool(status["leader_id"]) and all(seen["members"].get(name) == "alive" for name in names)

            try:
                wait_for(sees_all, deadline, f"{node.name} sees a leader and {sorted(names)}")
            except AssertionError as error:
                raise AssertionError(f"{error}; it sees {seen}") from None

    def wait_leader(self, among: list[Node], deadline: float = 15) -> Node:
        """The node that leads, once it says so itself."""
        found: list[Node] = []

        def look() -> bool:
            for node in among:
                with contextlib.suppress(CommandFailed, NodeFailed):
                    if node.running and node.ask("status", local=True, wait=5)["role"] == "leader":
                        found[:] = [node]
                        return True
            return False

        wait_for(look, deadline, "there is a leader")
        return found[0]

    def leader(self, deadline: float = 15) -> Node:
        return self.wait_leader(self.nodes, deadline)

    def followers(self) -> list[Node]:
        return self.others(self.leader())

    def wait_settled(self, deadline: float = 30, nodes: list[Node] | None = None) -> None:
        """Until every running node has delivered the same, and all of it."""
        last: list[Any] = []

        def settled() -> bool:
            views = [{t["topic"]: (t["seq"], t["delivered"]) for t in node.status(local=True)["topics"]} for node in nodes or self.others()]
            last[:] = views
            return all(view == views[0] for view in views) and all(seq == delivered for seq, delivered in views[0].values())

        try:
            wait_for(settled, deadline, "all nodes have delivered the same", every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None

    def stop(self) -> None:
        for node in self.nodes:
            if node.running:
                node.post("stop")
        for node in self.nodes:
            if node.process is not None:
                try:
                    node.process.wait(20)
                finally:
                    node.kill()


@contextlib.contextmanager
def process_cluster(directory: Path, count: int = 3, **config: Any) -> Iterator[ProcessCluster]:
    cluster = ProcessCluster(directory, count, **config)
    try:
        yield cluster.start()
    finally:
        for node in cluster.nodes:
            node.kill()
