"""What all benchmarks share: the levels, the driver that keeps N requests open, and child processes that answer on a pipe.

A system is a module with `main()`: it starts its two other nodes as processes, measures every level, and prints one JSON object
`{"<in flight>": {"rate": per second, "p50_ms": …, "p99_ms": …}}` as its last line.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

PAYLOAD = 128
LEVELS: tuple[tuple[int, int], ...] = ((1, 1_500), (16, 15_000), (256, 80_000), (1024, 150_000))
PATIENCE = 120.0  # seconds for one answer; whoever takes longer has failed


def parser() -> argparse.ArgumentParser:
    """--scale shrinks the number of requests (a smoke run); --levels picks some; --follower and --directory are for the processes that a system starts itself."""
    options = argparse.ArgumentParser()
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--payload", type=int, default=PAYLOAD)
    options.add_argument("--levels", type=lambda text: [int(level) for level in text.split(",")], default=[level for level, _ in LEVELS])
    options.add_argument("--profile", default="", choices=("", "threads", "cpu", "wall"))
    options.add_argument("--follower", default="")
    options.add_argument("--directory", default="")
    return options


def arguments() -> argparse.Namespace:
    return parser().parse_args()


def counted(options: argparse.Namespace) -> list[tuple[int, int]]:
    """(requests in flight, requests) of the levels asked for."""
    return [(in_flight, max(in_flight, int(count * options.scale))) for in_flight, count in LEVELS if in_flight in options.levels]


def drive(send: Callable[[], Any], in_flight: int, count: int, finish: Callable[[], None] = lambda: None) -> dict[str, float]:
    """One thread keeps `in_flight` requests open, waiting for the oldest; `send` gives a future. The rate counts until `finish` returns."""
    waiting: collections.deque[tuple[float, Any]] = collections.deque()
    latencies: list[float] = []
    clock = time.perf_counter
    began = clock()

    def settle() -> None:
        sent, future = waiting.popleft()
        future.get(timeout=PATIENCE)
        latencies.append(clock() - sent)

    for _ in range(count):
        waiting.append((clock(), send()))
        if len(waiting) >= in_flight:
            settle()
    while waiting:
        settle()
    finish()
    rate = count / (clock() - began)
    latencies.sort()
    return {"rate": rate, "p50_ms": latencies[count // 2] * 1e3, "p99_ms": latencies[int(count * 0.99)] * 1e3}


class Skipped(Exception):
    """It cannot be run here; the text says what is missing."""


class Process:
    """A process that answers lines with lines, and ends when its standard input does. quiet: what it writes to standard error is shown only when it dies."""

    def __init__(self, name: str, command: list[str], quiet: bool = False) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process {self.name!r} ended with {self.process.wait()}\n{self._said()}".strip())
        return line.strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def end(self, patience: float = PATIENCE) -> None:
        """Close its input and let it finish what it does then: a profile is written then, which takes long on a busy machine. Who has not ended is killed, which is
        said, since something will be missing."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            print(
                f"the process {self.name!r} did not end within {patience:g} s and was killed: what it would have said is missing",
                file=sys.stderr,
            )
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it did not read any more
                    stream.close()

    def _said(self) -> str:
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode(errors="replace")


class Child(Process):
    """A process of the same module, started with --follower NAME."""

    def __init__(self, module: str, name: str, *extra: str) -> None:
        super().__init__(name, [sys.executable, "-m", module, "--follower", name, *extra])


def report(levels: dict[int, dict[str, float]]) -> None:
    print(json.dumps(levels))
