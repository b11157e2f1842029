"""`clusterctl` and other programs as processes: run to the end, or started, watched and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLUSTERCTL = str(Path(sys.executable).parent / "clusterctl")


def clusterctl(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run it to its end; standard output is a pipe."""
    return subprocess.run([CLUSTERCTL, *arguments], capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)


class Program:
    """A process whose standard output and error are collected line by line."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_line(self, wanted: str | Callable[[str], bool], deadline: float = 20) -> str:
        """The first line that has the text, or that the function takes. Raises AssertionError with all that was said."""
        takes = wanted if callable(wanted) else lambda line: wanted in line
        with self._changed:
            self._changed.wait_for(lambda: self._ended or any(map(takes, self.lines)), deadline)
            found = next(filter(takes, self.lines), None)
        assert found is not None, f"{' '.join(self.arguments)} did not say {wanted!r} within {deadline} s, but:\n{self.text}"
        return found

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline: float = 20) -> int:
        """Send the signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(deadline)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
