"""Full load and no election: `python -m tests.chaos.calm [--minutes 10] [--cores 2]`; `make calm`, and `steady` of `make bench`.

Three nodes on two cores, which they share with this program, and in each a client that keeps hundreds of publishes under way, so that every node has more to
do than it can. Nobody may stand for election, and every publish must be acknowledged. Then, under a light load, each node is stopped for 300 ms, ten times
over: no election either. Exit code 1 when there was one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import judged, report, told
from tests.product.failover import pause
from tests.product.nodes import Node, ProcessCluster


class Watch:
    """What of the leadership was so in the beginning, and must be so in the end."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster, self.leader = cluster, cluster.leader()
        self.term = self.leader.status(local=True)["term"]
        self.begins = {node.name: len(node.lines) for node in cluster.nodes}

    def elections(self) -> int:
        """How many there were, and candidacies that led to none."""
        terms = max(node.status(local=True)["term"] for node in self.cluster.nodes) - self.term
        seen = max(node.count("ElectionStart", self.begins[node.name]) for node in self.cluster.nodes)
        return max(terms, seen)


def full_load(cluster: ProcessCluster, minutes: float, in_flight: int, size: int) -> tuple[int, float, float]:
    """How many elections there were, the publishes that were acknowledged in a second, and the seconds."""
    watch = Watch(cluster)
    for node in cluster.nodes:
        node.ask("flood-begin", in_flight=in_flight, size=size)
    began = time.monotonic()
    while (left := began + minutes * 60 - time.monotonic()) > 0:
        time.sleep(min(left, 30))  # of load
        acked = sum(node.ask("flood", wait=60)["acked"] for node in cluster.nodes)
        print(f"[{time.monotonic() - began:6.1f} s] {acked} acknowledged, {watch.elections()} elections", flush=True)
    took = time.monotonic() - began
    done = [node.ask("flood-end", wait=120) for node in cluster.nodes]
    acked, failed = sum(line["acked"] for line in done), {name: n for line in done for name, n in line["failed"].items()}
    assert not failed, f"publishes failed under load: {failed}"
    return watch.elections(), acked / took, took


def short_pauses(cluster: ProcessCluster, times: int) -> int:
    watch = Watch(cluster)
    for node in cluster.nodes:
        node.load(pause=0.005, topics=["t"])
    for _ in range(times):
        for node in cluster.nodes:
            pause(node, 0.3)
            time.sleep(0.3)  # of load
    for node in cluster.nodes:
        assert not node.load_done(stop=True)["failed"]
    return watch.elections()


def quiet(node: Node) -> None:
    """A node with clients in it, whose deliveries nobody keeps: they would fill the disk."""
    node.program = "tests.chaos.node"
    node.deliveries_path.symlink_to(os.devnull)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.calm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of full load")
    parser.add_argument("--cores", type=int, default=2, help="that all processes share")
    parser.add_argument("--in-flight", type=int, default=256, help="publishes under way at each node")
    parser.add_argument("--size", type=int, default=128, help="bytes of a record")
    parser.add_argument("--pauses", type=int, default=10, help="of 300 ms, for each node")
    parser.add_argument("--scale", type=float, default=1.0, help="of the minutes and the pauses")
    given = parser.parse_args()
    minutes, pauses = given.minutes * given.scale, max(1, int(given.pauses * given.scale))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])  # and all that is started from here
    with tempfile.TemporaryDirectory(prefix="coterie-calm-") as directory:
        cluster = ProcessCluster(Path(directory), 3)
        try:
            for node in cluster.nodes:
                quiet(node)
            cluster.start()
            elections, rate, took = full_load(cluster, minutes, given.in_flight, given.size)
            paused = short_pauses(cluster, pauses)
        finally:
            for node in cluster.nodes:
                node.kill()
    report(
        [
            judged(f"elections in {took:,.0f} s of full load on {given.cores} cores", float(elections), "", 0.0, at_least=False),
            told("… publishes, none of which failed", rate, "/s"),
            judged(f"elections while each node stands still for 300 ms, {pauses} times", float(paused), "", 0.0, at_least=False),
        ]
    )
    sys.exit(1 if elections or paused else 0)


if __name__ == "__main__":
    main()
