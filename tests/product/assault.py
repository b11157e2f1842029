"""A live cluster under a write load while its leader's ports are attacked, and what must hold: the leader stays, the write rate stays above half of what it is
without the attack, memory is bounded, known peers still get in, and afterwards everything serves.

The rate without the attack is measured just before and just after, and the lower one counts: on a machine that does other work, too, what slows the cluster down
before and during is not the attack, and neither is what begins in the middle and goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.product.nodes import Node, ProcessCluster, process_cluster
from tests.product.siege import call, resident_bytes
from tests.product.wait import wait_for

Attacks = list[tuple[str, str, int]]  # (kind, port, how many)

TOPIC = "attacked"
PORTS = ("raft", "gossip", "http", "grpc")
MOST_MEMORY = 320 << 20  # bytes that the leader may have more than before
PATIENCE = 30.0


@attrs.define
class Course:
    """before, during, after: acknowledged publishes a second. busy: processors that the leader takes, before and during. grown: bytes of memory, at the
    most. did: what the attackers say."""

    before: float
    during: float
    after: float
    busy: tuple[float, float]
    grown: int
    did: dict[str, dict[str, int]]

    def __str__(self) -> str:
        rates, busy = (
            f"{self.before:.0f}/s before, {self.during:.0f}/s during, {self.after:.0f}/s after",
            f"{self.busy[0]:.2f} and {self.busy[1]:.2f} processors",
        )
        return f"{rates}; {busy}; {self.grown >> 20} MiB more; {self.did}"


class Fort:
    """The cluster, with a load on its follower n2; n1 leads, and is attacked."""

    def __init__(self, cluster: ProcessCluster, in_flight: int, pause: float) -> None:
        self.cluster = cluster
        self.leader, self.writer, self.third = cluster.nodes
        self.writer.load(TOPIC, topics=[TOPIC], in_flight=in_flight, pause=pause, size=[100, 100], timeout=60)
        wait_for(lambda: self.written() > 100, PATIENCE, "the load flows")
        self.term = self.leader.status(local=True)["term"]
        addresses = self.leader.wait_line(lambda line: line.get("event") == "started", PATIENCE)["addresses"]
        self.ports = {port: _address(addresses[port]) for port in PORTS}

    def written(self) -> int:
        return next((t["seq"] for t in self.writer.status(local=True)["topics"] if t["topic"] == TOPIC), 0)

    def rate(self, seconds: float) -> tuple[float, float]:
        """Acknowledged publishes a second, and processors that the leader takes."""
        began, before, busy = time.monotonic(), self.written(), processor_seconds(self.leader)
        time.sleep(seconds)  # of load
        took = time.monotonic() - began
        return (self.written() - before) / took, (processor_seconds(self.leader) - busy) / took

    def withstand(self, attacks: Attacks, seconds: float, meanwhile: Any = None, within: float = 60) -> Course:
        (before, idle), memory = self.rate(min(seconds, 5.0)), resident_bytes(self.leader)
        with attackers(self.ports, attacks, within) as did:
            watched = Watch(self.leader)
            during, busy = self.rate(seconds)
            if meanwhile is not None:
                meanwhile()
            grown = watched.end() - memory
        after, _ = self.rate(min(seconds, 5.0))
        course = Course(before, during, after, (idle, busy), grown, did)
        self.check(course)
        return course

    def check(self, course: Course) -> None:
        for node in self.cluster.nodes:
            assert node.running, f"{node.name} has ended"
            status = node.status(local=True)
            assert (status["leader_id"], status["term"]) == (self.leader.name, self.term), (
                f"{node.name} saw an election: {status}; {course}"
            )
        assert course.during > min(course.before, course.after) / 2, str(course)
        assert course.grown < MOST_MEMORY, str(course)
        self.serves()

    def serves(self) -> None:
        """Every port of the leader takes an honest client, soon after."""
        wait_for(self._ready, PATIENCE, "HTTP serves")
        assert self.writer.ask("write", op="w", data="x", timeout=PATIENCE) == f"{self.leader.name}:w:x"
        self.third.kill()
        self.third.start()
        self.cluster.wait_whole(PATIENCE)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return call(self.leader.mgmt_addr, "GET", "/readyz", timeout=5) == (200, b"ok")
        return False

    def end(self) -> None:
        done = self.writer.load_done(TOPIC, stop=True, deadline=90)
        assert done["failed"] == {}, done
        self.cluster.wait_settled(60)
        for node in self.cluster.nodes:
            text = (node.directory / f"{node.name}.stderr").read_text()
            assert "Traceback" not in text, text[text.index("Traceback") :][:3000]


def processor_seconds(node: Node) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """How much memory a node has at most."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node, self.most, self.over = node, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.most = max(self.most, resident_bytes(self.node))

    def end(self) -> int:
        self.over.set()
        self.join()
        return max(self.most, resident_bytes(self.node))


@contextlib.contextmanager
def attackers(ports: dict[str, tuple[str, int]], attacks: Attacks, within: float) -> Iterator[dict[str, dict[str, int]]]:
    """All of them under way inside; what they did is there afterwards."""
    asked = json.dumps({"ports": ports, "attacks": attacks, "within": within})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.product.attacks", asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    did: dict[str, dict[str, int]] = {}
    try:
        assert process.stdout is not None
        late = json.loads(process.stdout.readline())["late"]
        assert late == [], f"these attacks did not begin within {within} s: {late}"
        yield did
        out, _ = process.communicate("", timeout=60)
        did.update(json.loads(out))
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def fort(directory: Path, in_flight: int = 64, pause: float = 0.002, **config: Any) -> Iterator[Fort]:
    # As in a siege: a slow machine must not pass for an attack that worked.
    with process_cluster(directory, heartbeat_timeout=2.0, election_timeout=2.0, lease_timeout=1.0, **config) as cluster:
        standing = Fort(cluster, in_flight, pause)
        yield standing
        standing.end()


def hostile_clients(directory: Path, seconds: float, tell: Callable[[str], object]) -> str:
    """Each kind of attack on each port, one after the other, beside a steady load: one that takes all that the machine gives would measure whoever else is on it."""
    sizes = {"idle": 5000, "slow-head": 200, "slow-body": 200, "slow-read": 200, "huge-body": 4, "headers": 4}
    attacks: list[Attacks] = [
        [(kind, port, size)] if size >= 200 else [(kind, port, 1)] * size for kind, size in sizes.items() for port in PORTS
    ]
    attacks += [[("half-calls", "grpc", 50)], [("datagrams", "gossip", 10_000)]]
    least = 10.0
    with fort(directory, in_flight=64, pause=0.001) as standing:
        for attack in attacks:
            course = standing.withstand(attack, seconds)
            tell(f"{attack[0][0]} on {attack[0][1]}: {course}")
            least = min(least, course.during / min(course.before, course.after))
    return f"{len(attacks)} kinds of hostile clients: the write rate was never below {least:.2f} of what it is without them"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
