"""Ten minutes of all the load that the leader takes, 1024 publishes in flight on three nodes: how often leadership was lost. `python -m benchmarks.steady`."""

from __future__ import annotations

import time

from benchmarks import node as nodes
from benchmarks import publish
from benchmarks.rows import judged, report, told
from coterie import Status

SECONDS = 600.0
IN_FLIGHT = 1024
STEP = 50_000  # publishes between two looks


def main() -> None:
    options = nodes.parser().parse_args()
    with publish.Trio(options) as trio:
        ask = trio.leader.cluster.ask
        term = ask(Status(local=True)).term
        rates, began = [], time.monotonic()
        while time.monotonic() - began < SECONDS * options.scale:
            rates.append(trio.level(IN_FLIGHT, max(IN_FLIGHT, int(STEP * min(1.0, options.scale))))["rate"])
        took = time.monotonic() - began
        elections = ask(Status(local=True)).term - term
    report(
        [
            judged(f"terms begun in {took:,.0f} s of full load", float(elections), "", 0.0, at_least=False),
            told("… publishes, mean", sum(rates) / len(rates), "/s"),
        ]
    )


if __name__ == "__main__":
    main()
