"""A follower that is down while the log grows, and catches up: what it costs the leader, and how fast it is.

Raft alone, an entry per command, 128 bytes; follower n3 is killed, and the leader goes on with 1024 in flight.

`catchup`: it takes half a million entries. Then n3 comes back under a steady load, half of the rate that the leader has just had: how many entries a second n3 gains
until it has all of them, and how much of the load is done meanwhile, beside the same load before n3 came. The same again beside all that the leader can take.
`memory`: it takes a million, and its memory is read on the way: what is not mapped from files (RssAnon of /proc; the log is a mapped file, whose pages are the
kernel's to take).

`python -m benchmarks.behind catchup|memory`
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.raft_alone import RaftTrio
from benchmarks.rows import Row, judged, ratio, report, told

AWAY: Final = "n3"
IN_FLIGHT: Final = 1024
CATCH_UP: Final = 500_000  # entries
MEMORY: Final = 1_000_000
GAIN: Final = 50_000.0  # entries a second
KEPT: Final = 0.8
GROWTH: Final = 64.0  # MB
LOAD: Final = 0.5
BASELINE: Final = 4.0  # seconds
TICK: Final = 0.002  # seconds


class Load:
    """Proposes `rate` commands a second (0: all that it can), with up to 1024 open, in a thread of its own, and counts those that are committed."""

    def __init__(self, trio: RaftTrio, rate: float = 0.0) -> None:
        self._trio, self._each = trio, int(rate * TICK) or IN_FLIGHT
        self._pause = TICK if rate else 0.0
        self.done = 0
        self._over = False
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiting: deque[Any] = deque()
        at = time.monotonic()
        while not self._over:
            for _ in range(self._each):
                waiting.append(self._trio.send())
                while len(waiting) >= IN_FLIGHT or waiting[0].done:
                    waiting.popleft().get(timeout=common.PATIENCE)
                    self.done += 1
                    if not waiting:
                        break
            now = time.monotonic()
            at = max(at + self._pause, now - IN_FLIGHT * TICK)  # what it fell behind, it makes up within bounds
            time.sleep(max(0.0, at - now))
        for future in waiting:
            future.get(timeout=common.PATIENCE)

    def rate(self, seconds: float) -> float:
        before, began = self.done, time.monotonic()
        time.sleep(seconds)
        return (self.done - before) / (time.monotonic() - began)

    def stop(self) -> None:
        self._over = True
        self._thread.join(common.PATIENCE)


def catch_up(trio: RaftTrio, load: Load) -> tuple[float, float]:
    """n3 comes back. (entries a second that it gains until it has all that there was then, the load's rate meanwhile)."""
    had, last = trio.had, trio.view().last_index
    trio.restart(AWAY)
    done, began = load.done, time.monotonic()
    while (now := trio.match(AWAY)) < last or trio.view().last_index - now > 2 * IN_FLIGHT:
        if time.monotonic() - began > common.PATIENCE:
            raise TimeoutError(f"{AWAY} has {now} of {last} entries after {common.PATIENCE:g} s")
        time.sleep(0.02)
    took = time.monotonic() - began
    return (now - had) / took, (load.done - done) / took


def measure_catch_up(trio: RaftTrio, entries: int) -> list[Row]:
    rows = []
    full = 0.0
    for what in ("half of what it can", "all that it can"):
        trio.kill(AWAY)
        full = trio.drive(IN_FLIGHT, entries)["rate"]
        load = Load(trio, full * LOAD if what.startswith("half") else 0.0)
        before = load.rate(BASELINE)
        gain, during = catch_up(trio, load)
        load.stop()
        name = f"beside a leader that takes {what}"
        if what.startswith("half"):
            rows.append(judged(f"a follower {entries:,} entries behind catches up, {name}", gain, "/s", GAIN))
            rows.append(
                ratio(f"… what that leader takes meanwhile ({full:,.0f}/s is all that it can)", during, "/s", "before", before, KEPT)
            )
        else:
            rows.append(told(f"the same {name}", gain, "/s"))
            rows.append(Row("… what that leader takes meanwhile", during, "/s", during / before, None, True, "before", before))
    return rows


def memory_mb() -> float:
    """Of this process, the leader's, without what is mapped from files."""
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024


def measure_memory(trio: RaftTrio, entries: int) -> list[Row]:
    trio.kill(AWAY)
    trio.drive(IN_FLIGHT, entries // 5)
    early = memory_mb()
    for _ in range(4):
        trio.drive(IN_FLIGHT, entries // 5)
    late = memory_mb()
    away = trio.view().last_index - trio.had
    return [
        told(f"leader's memory with a follower down for {away:,} entries", late, "MB"),
        Row("… more than after a fifth of them", late - early, "MB", late - early, GROWTH, False, "then", early),
    ]


def main() -> None:
    parser = common.parser()
    parser.add_argument("what", choices=("catchup", "memory"))
    options = parser.parse_args()
    with RaftTrio(options) as trio:
        trio.drive(IN_FLIGHT, 4 * IN_FLIGHT)
        if options.what == "catchup":
            report(measure_catch_up(trio, max(IN_FLIGHT, int(CATCH_UP * options.scale))))
        else:
            report(measure_memory(trio, max(5 * IN_FLIGHT, int(MEMORY * options.scale))))


if __name__ == "__main__":
    main()
