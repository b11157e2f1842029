"""What the others' publishers notice of a node that stands still (SIGSTOP): p99 beside the p99 of the healthy cluster, in turn, in one run.

Three nodes, publish on the leader, 256 in flight. The time in which the cluster notices is measured too: the node is stopped just before the load begins. It is
woken and catches up before the next turn. `python -m benchmarks.frozen`.
"""

from __future__ import annotations

import signal
from statistics import median

from benchmarks import node as nodes
from benchmarks import publish
from benchmarks.rows import Row, ratio, report

IN_FLIGHT = 256
COUNT = 200_000
TURNS = 3
WORST = 1.5


def main() -> None:
    options = nodes.parser().parse_args()
    count = max(8 * IN_FLIGHT, int(COUNT * options.scale))
    healthy, frozen = [], []
    payload = b"x" * options.payload
    with publish.Trio(options) as trio:
        trio.level(IN_FLIGHT, count // 4)
        for _ in range(TURNS):
            healthy.append(trio.level(IN_FLIGHT, count))
            child = trio.children[-1].process
            child.send_signal(signal.SIGSTOP)
            try:
                frozen.append(trio.leader.drive(IN_FLIGHT, count, payload))
            finally:
                child.send_signal(signal.SIGCONT)
            trio.total += count
            trio.handled()
    before, with_one = (median(figures["p99_ms"] for figures in runs) for runs in (healthy, frozen))
    rates = [median(figures["rate"] for figures in runs) for runs in (frozen, healthy)]
    report(
        [
            ratio("p99 of a publish with one node frozen, 256 in flight", with_one, "ms", "healthy", before, WORST, at_least=False),
            Row("… publishes", rates[0], "/s", rates[0] / rates[1], beside="healthy", baseline=rates[1]),
        ]
    )


if __name__ == "__main__":
    main()
