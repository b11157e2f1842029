"""A whole node through the public door, with a handler that counts; and a process of its own around it, which answers lines.

wait N        -> "N" when the handler has had N records in all
drive D N     -> JSON of `common.drive`: N publishes, D in flight, from this process
read D N KIND -> JSON of `common.drive`: N reads of that consistency on this node, D waiting
join ID ADDR  -> "joined"
lead          -> "leads" when this node is the leader
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import common, profiling
from coterie import ClusterSupervisor, Config, HandlerActor, Join, Publish, PublishMany, Read, RegisterHandler, Status

MODULE = "benchmarks.node"
TOPIC = "benchmark"


class Counting(HandlerActor):
    """Counts, and wakes who waits for a count. The interpreter's lock orders the two lines on each side: one of them sees the other."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.target = -1
        self.reached = threading.Event()

    def handle_sync(self, topic: str, data: bytes) -> None:
        self.count += 1
        if self.count == self.target:
            self.reached.set()

    def handle_read(self, op: str, request: bytes) -> bytes:
        return request

    def wait(self, count: int) -> None:
        self.reached.clear()
        self.target = count
        if self.count < count and not self.reached.wait(common.PATIENCE):
            raise TimeoutError(f"the handler has had {self.count} of {count} records after {common.PATIENCE:g} s")


class Node:
    """A node on free ports under `directory`. settings: of its `Config`, besides."""

    def __init__(self, name: str, directory: str, seeds: str = "", bootstrap: bool = False, **settings: Any) -> None:
        here = "127.0.0.1:0"
        self.cluster = ClusterSupervisor.start(
            Config(
                node_id=name,
                mgmt_addr=here,
                grpc_addr=here,
                seeds_csv=seeds,
                data_dir=Path(directory) / name,
                bootstrap=bootstrap,
                **{"raft_addr": here, "mem_bind": here, **settings},
            )
        )
        handler = Counting.start()
        actor = handler._actor_weakref()
        assert isinstance(actor, Counting)
        self.handler: Counting = actor
        self.cluster.ask(RegisterHandler(handler))

    def addresses(self) -> dict[str, str]:
        found: dict[str, str] = self.cluster.addresses()
        return found

    def lead(self) -> None:
        until(lambda: self.cluster.ask(Status(local=True)).role == "leader", "it leads")

    def join(self, name: str, raft_addr: str) -> None:
        until(lambda: name in {member.id for member in self.cluster.ask(Status(local=True)).members}, f"gossip shows {name}")
        self.cluster.ask(Join(name, raft_addr))

    def drive(
        self, in_flight: int, count: int, payload: bytes, acks: Any = "quorum", finish: Any = lambda: None, records: int = 0
    ) -> dict[str, float]:
        """count: publishes, or calls of `records` records each."""
        ask = self.cluster.ask
        if not records:
            return common.drive(lambda: ask(Publish(TOPIC, payload, acks), block=False), in_flight, count, finish)
        many = [payload] * records
        return common.drive(lambda: ask(PublishMany(TOPIC, many, acks), block=False), in_flight, count, finish)

    def read(self, waiting: int, count: int, consistency: Any) -> dict[str, float]:
        """As `drive`, of reads on this node's handler; with the processor time of this process for each, in microseconds."""
        ask, began = self.cluster.ask, time.process_time()
        figures = common.drive(lambda: ask(Read("get", b"x", consistency=consistency), block=False), waiting, count)
        return figures | {"cpu_us": (time.process_time() - began) / count * 1e6}


def until(condition: Any, what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def parser() -> argparse.ArgumentParser:
    options = common.parser()
    options.add_argument("--acks", default="quorum", choices=("quorum", "leader", "all"))
    options.add_argument("--seeds", default="")
    options.add_argument("--bootstrap", action="store_true")
    options.add_argument("--records", type=int, default=0, help="publish so many with each call; 0: one by one")
    options.add_argument("--settings", type=json.loads, default={}, help="of the Config of each node, as JSON")
    return options


def main() -> None:
    options = parser().parse_args()
    profiling.start(options.profile)
    node = Node(options.follower, options.directory, options.seeds, options.bootstrap, **options.settings)
    try:
        print(json.dumps(node.addresses()), flush=True)
        for line in sys.stdin:
            match line.split():
                case ["wait", count]:
                    node.handler.wait(int(count))
                    print(count, flush=True)
                case ["drive", in_flight, count]:
                    payload, acks, records = b"x" * options.payload, options.acks, options.records
                    print(json.dumps(node.drive(int(in_flight), int(count), payload, acks, records=records)), flush=True)
                case ["read", waiting, count, consistency]:
                    print(json.dumps(node.read(int(waiting), int(count), consistency)), flush=True)
                case ["join", name, address]:
                    node.join(name, address)
                    print("joined", flush=True)
                case ["lead"]:
                    node.lead()
                    print("leads", flush=True)
                case _:
                    raise ValueError(f"not a command of this process: {line!r}")
    except BaseException:
        node.cluster.stop()  # its threads would keep the process, and whoever waits for an answer
        raise
    if options.profile:
        profiling.report(f"node {options.follower}")


if __name__ == "__main__":
    main()
