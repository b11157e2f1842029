"""Publish many records with one call, until all three handlers had every one: `ask(PublishMany(…))` in the leader's process, or a follower's.

In flight are calls, of --records each; rates are of records; p50 and p99 are the call's. `python -m benchmarks.publish_many [--records 256] [--from-follower]`.

`repl_window` bounds the records of a topic that a member has not acknowledged. Its default of 1024 is four of these calls, and then the rate is a matter of
how soon an acknowledgement is back; so here it is as large as two rounds of what is in flight at most.
"""

from __future__ import annotations

from benchmarks import common, publish
from benchmarks import node as nodes

LEVELS = ((1, 100_000), (16, 1_000_000), (64, 1_000_000))  # (calls in flight, records)
WINDOW = 2 * 64 * 256  # records


def main() -> None:
    parser = nodes.parser()
    parser.set_defaults(levels=[level for level, _ in LEVELS], records=256, settings={"repl_window": WINDOW})
    parser.add_argument("--from-follower", action="store_true")
    options = parser.parse_args()
    counted = [(depth, max(depth, int(count * options.scale) // options.records)) for depth, count in LEVELS if depth in options.levels]
    common.report(publish.measure(options, counted))


if __name__ == "__main__":
    main()
