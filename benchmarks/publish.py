"""Publish until handled everywhere: the public supervisor in three processes, a handler on each node, every commit on two disks.

One thread keeps N `cluster.ask(Publish(…), block=False)` open, in the leader's process or, with --from-follower, in a follower's. p50 and p99 are the
ask's (the publish is committed); the rate counts until all three handlers have had every record. `python -m benchmarks.publish [--acks leader|all]
[--from-follower]`. With --records each call is a `PublishMany`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time

from benchmarks import common, profiling
from benchmarks import node as nodes

NAMES = ("n2", "n3")
WARM_UP = 256


class Trio:
    """Three nodes, of which the first, the leader, lives in this process; a context manager. options: of `nodes.parser()`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.total = options, 0
        self.directory = tempfile.mkdtemp(prefix="publish-")
        self.children: list[common.Child] = []
        self.addresses: list[dict[str, str]] = []  # of the children
        try:
            self.leader = nodes.Node("n1", self.directory, bootstrap=True, **options.settings)
            for name in NAMES:
                self.children.append(self.child(name))
            self.leader.lead()
            for name, child in zip(NAMES, self.children, strict=True):
                self.addresses.append(json.loads(child.hear()))
                self.leader.join(name, self.addresses[-1]["raft"])
        except BaseException:
            self.__exit__()
            raise

    def child(self, name: str, where: dict[str, str] | None = None) -> common.Child:
        """where: its addresses, if it is one that was there before."""
        options = self.options
        there = {"raft_addr": where["raft"], "mem_bind": where["gossip"]} if where is not None else {}
        settings = (
            "--directory",
            self.directory,
            "--seeds",
            self.leader.addresses()["gossip"],
            "--settings",
            json.dumps(options.settings | there),
        )
        load = ("--acks", options.acks, "--profile", options.profile, "--payload", str(options.payload), "--records", str(options.records))
        return common.Child(nodes.MODULE, name, *settings, *load)

    def level(self, in_flight: int, count: int, follower: bool = False) -> dict[str, float]:
        """count: of calls; the rate is of records."""
        each = self.options.records or 1
        self.total += count * each
        if not follower:
            payload = b"x" * self.options.payload
            figures = self.leader.drive(in_flight, count, payload, self.options.acks, self.handled, self.options.records)
            return figures | {"rate": figures["rate"] * each}
        began = time.perf_counter()
        figures = json.loads(self.children[0].ask(f"drive {in_flight} {count}"))
        self.handled()
        return figures | {"rate": count * each / (time.perf_counter() - began)}

    def handled(self) -> None:
        for child in self.children:
            child.say(f"wait {self.total}")
        self.leader.handler.wait(self.total)
        for child in self.children:
            child.hear()

    def __enter__(self) -> Trio:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "leader"):
            self.leader.cluster.stop()
        for child in self.children:
            child.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def measure(options: argparse.Namespace, counted: list[tuple[int, int]]) -> dict[int, dict[str, float]]:
    """counted: (calls in flight, calls) of each level."""
    profiling.start(options.profile)
    with Trio(options) as trio:
        trio.level(16, WARM_UP)
        found = {in_flight: trio.level(in_flight, count, options.from_follower) for in_flight, count in counted}
        if options.profile:
            profiling.report("leader n1")
            for child in trio.children:
                child.end()
    return found


def main() -> None:
    parser = nodes.parser()
    parser.add_argument("--from-follower", action="store_true")
    options = parser.parse_args()
    common.report(measure(options, common.counted(options)))


if __name__ == "__main__":
    main()
