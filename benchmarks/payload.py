"""Payloads of 16 KiB, beside what the disk takes when it is written one after another (`benchmarks.disk`), in turn, in one run.

Raft alone and publish, 64 in flight: megabytes of payload a second that are committed (published: and handled by all three). Every one of the three nodes
writes each of them to the same disk, so the baseline is a writer among three at once. `python -m benchmarks.payload`.
"""

from __future__ import annotations

from statistics import median

from benchmarks import disk, publish, raft_alone
from benchmarks import node as nodes
from benchmarks.rows import ratio, report, told

PAYLOAD = 16 << 10
IN_FLIGHT = 64
COUNT = 6_000
TURNS = 3
SHARE = 0.6


def main() -> None:
    parser = nodes.parser()
    parser.set_defaults(payload=PAYLOAD)
    options = parser.parse_args()
    count = max(IN_FLIGHT, int(COUNT * options.scale))
    rates: dict[str, list[float]] = {"one": [], "three": [], "raft": [], "publish": []}
    with raft_alone.RaftTrio(options) as raft, publish.Trio(options) as trio:
        for _ in range(TURNS):
            for name, rate in disk.rates(seconds=disk.SECONDS * min(1.0, options.scale)).items():
                rates[name].append(rate)
            for name, system in (("raft", raft.drive), ("publish", trio.level)):
                rates[name].append(system(IN_FLIGHT, count)["rate"] * options.payload / 1e6)
    found = {name: median(each) for name, each in rates.items()}
    beside = "a writer of three, synced each MB"
    report(
        [
            ratio("16 KiB payloads, Raft alone", found["raft"], "MB/s", beside, found["three"], SHARE),
            ratio("16 KiB payloads, publish until all three handled it", found["publish"], "MB/s", beside, found["three"], SHARE),
            told("the disk, one writer alone, synced each MB", found["one"], "MB/s"),
        ]
    )


if __name__ == "__main__":
    main()
