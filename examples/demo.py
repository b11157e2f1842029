"""`make demo`: three node processes become a cluster, survive the death of their leader, and say so. Under half a minute, any free ports.

It starts examples/three_node_service.py three times, with data directories of their own in a temporary directory, and looks at it only from outside:
the management API over HTTP, and what the handlers print.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from coterie.cli_tables import show, status_view

console = Console(highlight=False, soft_wrap=True)


class Failed(Exception):
    """The demonstration did not show what it should."""


def free_ports(count: int) -> list[int]:
    """Ports free for TCP and UDP, each with a free neighbour (the second management server sits on the next port up)."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            tcp = stack.enter_context(socket.socket())
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + 1))
                found.append(port)
    return found


def until(condition: Callable[[], Any], what: str, seconds: float = 15) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


class Node:
    def __init__(self, name: str, directory: Path, seed: str) -> None:
        self.name, self.directory, self.seed = name, directory, seed
        self.ports = free_ports(4)
        self.heard: list[str] = []
        self.ready = threading.Event()
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.ready.clear()
        self.heard = []
        command = [sys.executable, "-m", "examples.three_node_service", self.name, "--data", str(self.directory / self.name)]
        command += ["--ports", ",".join(map(str, self.ports)), "--seed", self.seed]
        with (self.directory / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[1])
        threading.Thread(target=self.listen, args=(self.process,), daemon=True).start()

    def listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("SYNC"):
                self.heard.append(line.split("data=", 1)[1].strip())
            elif line.startswith("READY"):
                self.ready.set()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[2], timeout=10)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call("GET", "/status")
        return {"Healthy": False, "LeaderID": "", "Members": []}

    def publish(self, text: str) -> None:
        answer = self.call("POST", "/appsync", {"topic": "demo.topic", "data": base64.b64encode(text.encode()).decode()})
        if answer.get("error"):
            raise Failed(f"{self.name} did not publish {text!r}: {answer['error']}")


def say(text: str) -> None:
    console.print(f"[bold cyan]›[/] {text}")


def form(nodes: list[Node]) -> None:
    for node in nodes:
        node.start()
    for node in nodes:
        if not node.ready.wait(20):
            raise Failed(f"{node.name} did not start; see {node.directory / (node.name + '.log')}")
    first = nodes[0]
    until(lambda: first.status()["LeaderID"] == "n1", "n1 leads")
    for node in nodes[1:]:
        answer = first.call("POST", "/join", {"id": node.name, "raftAddr": f"127.0.0.1:{node.ports[0]}"})
        if not answer.get("accepted"):
            raise Failed(f"join of {node.name}: {answer}")
    until(lambda: all(len(node.status()["Members"]) == 3 and node.status()["Healthy"] for node in nodes), "all three see each other")


def ends_with(node: Node, expected: list[str]) -> bool:
    return node.heard[-len(expected) :] == expected


def publish_and_hear(nodes: list[Node], publishers: list[Node], label: str) -> None:
    expected = []
    for node in publishers:
        for number in range(1, 4):
            expected.append(f"{label}-{number} via {node.name}")
            node.publish(expected[-1])
    for node in nodes:
        until(partial(ends_with, node, expected), f"{node.name}'s handler has had {expected}")
        console.print(f"    {node.name}'s handler had, in order: {', '.join(expected)}")


def run(nodes: list[Node]) -> None:
    say("three node processes with data directories; n1 forms a cluster, n2 and n3 join it")
    form(nodes)
    show(status_view(nodes[1].status()))
    say("publishing at the leader and at a follower: every node's handler gets everything, in the same order")
    publish_and_hear(nodes, nodes[:2], "hello")
    say("SIGKILL for the leader, n1")
    began = time.monotonic()
    dead, alive = nodes[0], nodes[1:]
    assert dead.process is not None
    dead.process.kill()
    dead.process.wait()
    until(lambda: alive[0].status()["LeaderID"] not in ("", dead.name), "another node leads")
    alive[0].publish("still here")
    for node in alive:
        until(partial(ends_with, node, ["still here"]), f"{node.name} has the publish after the kill")
    say(
        f"{alive[0].status()['LeaderID']} leads now; the next publish was on a quorum's disks {time.monotonic() - began:.2f} s after the kill"
    )
    publish_and_hear(alive, alive, "without-n1")
    say("n1 starts again from its data directory: no join, it is a member and a voter, and catches up")
    dead.start()
    if not dead.ready.wait(20):
        raise Failed("n1 did not start again")
    took = until(lambda: "without-n1-3 via n3" in dead.heard, "n1's handler has what it missed")
    missed = [text for text in dead.heard if text == "still here" or text.startswith("without-n1")]
    console.print(f"    {took:.2f} s after its start n1's handler had had what it missed: {', '.join(missed)}")
    until(lambda: not nodes[2].status().get("Warnings") and len(nodes[2].status()["Members"]) == 3, "no warnings are left")
    publish_and_hear(nodes, nodes, "together")
    show(status_view(nodes[2].status()))


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="coterie-demo-"))
    nodes: list[Node] = []
    began = time.monotonic()
    try:
        first = Node("n1", directory, "")
        nodes = [first, *(Node(name, directory, f"127.0.0.1:{first.ports[1]}") for name in ("n2", "n3"))]
        run(nodes)
        say(f"done in {time.monotonic() - began:.1f} s; stopping the nodes")
    except Failed as error:
        console.print(f"[bold red]the demonstration failed:[/] {error}")
        for node in nodes:
            log = directory / f"{node.name}.log"
            if log.exists():
                console.print(f"--- {node.name}\n{log.read_text()[-2000:]}", markup=False)
        return 1
    finally:
        for node in nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.send_signal(signal.SIGTERM)
        for node in nodes:
            if node.process is not None:
                try:
                    node.process.wait(10)
                except subprocess.TimeoutExpired:
                    node.process.kill()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
