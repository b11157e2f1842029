"""Where the time of a process's threads goes. `start(how)` before its threads exist, `report()` at its end, to standard error.

how: "threads" reads each thread's own processor clock, which costs nothing, and is the one whose sums are true; "cpu" and "wall" run cProfile in each
thread besides, and list functions by their own time. cProfile makes calls dearer than they are, so its figures rank and do not measure. "cpu" counts
what a thread computes; "wall" counts waiting too: a system call that takes long there and not in "cpu" waits for the disk, or to get the interpreter
back.

(A sampler of `sys._current_frames` lost: it runs only when a thread gives the interpreter up, and so finds every thread at the places where they do.)
"""

from __future__ import annotations

import collections
import cProfile
import pstats
import sys
import threading
import time
from typing import Any, TextIO

_profiles: dict[str, list[cProfile.Profile]] = collections.defaultdict(list)
_spent: dict[str, float] = collections.defaultdict(float)
_clocks: dict[int, tuple[str, int]] = {}
_began = [0.0]
_run = threading.Thread.run


def start(how: str) -> None:
    if not how:
        return
    _began[0] = time.perf_counter()

    def run(thread: threading.Thread) -> None:
        ident = threading.get_ident()
        _clocks[ident] = (thread.name, time.pthread_getcpuclockid(ident))
        try:
            if how == "threads":
                _run(thread)
            else:
                profile = cProfile.Profile(time.thread_time) if how == "cpu" else cProfile.Profile()
                _profiles[thread.name].append(profile)
                profile.runcall(_run, thread)
        finally:
            _clocks.pop(ident, None)
            _spent[thread.name] += time.thread_time()

    threading.Thread.run = run  # type: ignore[method-assign, assignment]


def report(title: str, file: TextIO = sys.stderr, top: int = 14) -> None:
    """Processor seconds by thread since `start`, then, with cProfile, each busy thread's functions by their own time."""
    threading.Thread.run = _run  # type: ignore[method-assign]
    spent = dict(_spent)
    for name, clock in list(_clocks.values()):
        try:
            spent[name] = spent.get(name, 0.0) + time.clock_gettime(clock)
        except OSError:  # it ended just now
            continue
    spent["main (the driver)"] = time.clock_gettime(time.pthread_getcpuclockid(threading.main_thread().ident or 0))
    took = time.perf_counter() - _began[0]
    print(f"\n== {title}: {time.process_time():.2f} s of processor in {took:.2f} s", file=file)
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1])[:10]:
        print(f"   {seconds:8.3f} s  {name}", file=file)
    for name, profiles in sorted(_profiles.items()):
        statistics: Any = None
        for profile in profiles:
            profile.create_stats()
            if profile.stats:
                statistics = pstats.Stats(profile) if statistics is None else statistics.add(profile)
        if statistics is not None and statistics.total_tt > 0.05:
            _functions(name, statistics.stats, file, top)


def _functions(name: str, stats: dict[Any, Any], file: TextIO, top: int) -> None:
    print(f"-- {name}\n      calls      own s     with callees", file=file)
    for (path, line, function), (_, calls, own, total, _) in sorted(stats.items(), key=lambda item: -item[1][2])[:top]:
        where = f"{'/'.join(path.split('/')[-3:])}:{line}" if line else ""
        print(f"  {calls:9d} {own:9.3f} {total:9.3f}  {function} {where}", file=file)
