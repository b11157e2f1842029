"""Waiting for a condition of another process, which can only be asked: until it holds or a deadline passes."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], deadline: float, what: str, every: float = 0.02) -> float:
    """Seconds it took. Raises AssertionError naming `what` after `deadline` seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > deadline:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(every)
    return time.monotonic() - began
