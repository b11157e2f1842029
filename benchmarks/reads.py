"""Reads on a node's own handler through the public `ask`, 1024 waiting: on the leader of three, and on a follower. `python -m benchmarks.reads`.

The handler answers with what it got, so this is the cost of the way there: the questions to the leader, their rounds, the messages to the handler.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks import node as nodes
from benchmarks import publish
from benchmarks.rows import Row, judged, report, told

WAITING = 1024
READS = 150_000
WANTED = 30_000  # per second


def rows(trio: publish.Trio, count: int) -> Iterator[Row]:
    for consistency in ("linearizable", "lease"):
        for where in ("the leader", "a follower"):
            if where == "the leader":
                figures = trio.leader.read(WAITING, count, consistency)
            else:
                figures = json.loads(trio.children[0].ask(f"read {WAITING} {count} {consistency}"))
            what = f"{consistency} reads on {where}, {WAITING} waiting"
            yield judged(what, figures["rate"], "/s", WANTED) if consistency == "linearizable" else told(what, figures["rate"], "/s")
            yield told(f"{what}: processor time of its process for each", figures["cpu_us"], "µs")
    yield told("a single linearizable read on the leader, p50", trio.leader.read(1, max(10, count // 100), "linearizable")["p50_ms"], "ms")


def main() -> None:
    options = nodes.parser().parse_args()
    with publish.Trio(options) as trio:
        report(list(rows(trio, max(WAITING, int(READS * options.scale)))))


if __name__ == "__main__":
    main()
