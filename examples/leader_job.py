"""A job that runs on one node of the cluster at a time: on the leader.

It starts when this node becomes the leader and stops when it is not any more; another node has taken over by then, or soon will. A node that was cut off or stood
still learns that late, so for a moment two may run the job. What keeps the world right is the *fencing token*: the term in which a node leads only grows, so whoever
keeps the job's results refuses a token that is lower than one it has seen. Here that is a file under a lock; with a database it is a condition in the
UPDATE.

    python -m examples.leader_job n1 --ledger /tmp/ledger.json
    python -m examples.leader_job n2 --ledger /tmp/ledger.json
    python -m examples.leader_job n3 --ledger /tmp/ledger.json
    clusterctl join --id n2 --raft-addr 127.0.0.1:9522 --addr 127.0.0.1:17946
    clusterctl join --id n3 --raft-addr 127.0.0.1:9523 --addr 127.0.0.1:17946
"""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie import Cluster, Config, LeaderChanged
from examples.three_node_service import PORTS


class Refused(Exception):
    """The token is older than one that was seen."""


class Ledger:
    """What the job works on, shared by all nodes: {"token": highest seen, "by": who wrote last, "count": how often}."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, token: int, by: str) -> int:
        """Count one more; the new count. Raises Refused."""
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = json.loads(file.read() or '{"token": 0, "count": 0}')
            if token < known["token"]:
                raise Refused(f"token {token} of {by} is older than {known['token']}")
            count: int = known["count"] + 1
            file.truncate(0)
            file.write(json.dumps({"token": token, "by": by, "count": count}))
            return count

    def read(self) -> dict[str, Any]:
        """What it says now; empty before the first count."""
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known: dict[str, Any] = json.loads(file.read() or "{}")
            return known


class LeaderJob:
    """Runs `work(token, stopping)` in a thread while this node leads; `work` returns when `stopping` is set."""

    def __init__(self, node_id: str, work: Callable[[int, threading.Event], None]) -> None:
        self._node_id, self._work = node_id, work
        self._running: tuple[threading.Thread, threading.Event] | None = None

    def follow(self, cluster: Cluster) -> None:
        """Until the node stops. The first event says who leads now, so nothing has to be asked."""
        for event in cluster.events():
            if isinstance(event, LeaderChanged):
                self.stop()
                if event.leader_id == self._node_id:
                    self._start(event.term)
        self.stop()

    def _start(self, token: int) -> None:
        stopping = threading.Event()
        thread = threading.Thread(target=self._work, args=(token, stopping), name="leader-job", daemon=True)
        self._running = thread, stopping
        thread.start()

    def stop(self) -> None:
        if self._running is not None:
            thread, stopping = self._running
            self._running = None
            stopping.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="A job that runs on the leader.")
    parser.add_argument("id", choices=sorted(PORTS))
    parser.add_argument("--ledger", type=Path, required=True, help="file that the job counts in; the same for all nodes")
    parser.add_argument("--ports", default="", help="raft,gossip,management instead of the guide's")
    parser.add_argument("--seed", default="127.0.0.1:7946", help="gossip address of the first node")
    options = parser.parse_args()
    raft, gossip, mgmt = map(int, options.ports.split(",")) if options.ports else PORTS[options.id][:3]
    ledger = Ledger(options.ledger)

    def work(token: int, stopping: threading.Event) -> None:
        print(f"JOB starts on {options.id} token={token}", flush=True)
        while not stopping.wait(0.1):
            try:
                count = ledger.add(token, options.id)
            except Refused as refusal:
                print(f"JOB refused: {refusal}", flush=True)
                break
            print(f"JOB {options.id} token={token} count={count}", flush=True)
        print(f"JOB stops on {options.id}", flush=True)

    config = Config(
        node_id=options.id,
        raft_addr=f"127.0.0.1:{raft}",
        mem_bind=f"127.0.0.1:{gossip}",
        mgmt_addr=f"127.0.0.1:{mgmt}",
        seeds_csv="" if options.id == "n1" else options.seed,
        bootstrap=options.id == "n1",
    )
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    job = LeaderJob(options.id, work)
    with Cluster(config) as cluster:
        threading.Thread(target=job.follow, args=(cluster,), daemon=True).start()
        print(f"READY {options.id}", flush=True)
        done.wait()
        job.stop()


if __name__ == "__main__":
    main()
