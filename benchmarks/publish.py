"""Publish until handled everywhere: the public supervisor in three processes, a handler on each node, every commit on two disks.

One thread keeps N `cluster.ask(Publish(…), block=False)` open, in the leader's process or, with --from-follower, in a follower's. p50 and p99 are the
ask's (the publish is committed); the rate counts until all three handlers have had every record. `python -m benchmarks.publish [--acks leader]
[--from-follower]`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time

from benchmarks import common, profiling
from benchmarks import node as nodes

NAMES = ("n2", "n3")
WARM_UP = 256


def main() -> None:
    parser = nodes.parser()
    parser.add_argument("--from-follower", action="store_true")
    options = parser.parse_args()
    profiling.start(options.profile)
    payload = b"x" * options.payload
    directory = tempfile.mkdtemp(prefix="publish-")
    leader, children, total = None, [], 0
    try:
        leader = nodes.Node("n1", directory, bootstrap=True)
        extra = ("--directory", directory, "--seeds", leader.addresses()["gossip"], "--acks", options.acks, "--profile", options.profile)
        children = [common.Child(nodes.MODULE, name, *extra, "--payload", str(options.payload)) for name in NAMES]
        leader.lead()
        for name, child in zip(NAMES, children, strict=True):
            leader.join(name, json.loads(child.hear())["raft"])

        def handled() -> None:
            for child in children:
                child.say(f"wait {total}")
            leader.handler.wait(total)
            for child in children:
                child.hear()

        def level(in_flight: int, count: int) -> dict[str, float]:
            nonlocal total
            total += count
            if not options.from_follower:
                return leader.drive(in_flight, count, payload, options.acks, handled)
            began = time.perf_counter()
            children[0].say(f"drive {in_flight} {count}")
            figures: dict[str, float] = json.loads(children[0].hear())
            handled()
            return figures | {"rate": count / (time.perf_counter() - began)}

        level(16, WARM_UP)
        common.report({in_flight: level(in_flight, count) for in_flight, count in common.counted(options)})
        if options.profile:
            profiling.report("leader n1")
            for child in children:
                child.end()
    finally:
        if leader is not None:
            leader.cluster.stop()
        for child in children:
            child.kill()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
