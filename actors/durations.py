"""Durations as users write them: seconds as a number, a `timedelta`, or Go's notation (`1500ms`, `1.5s`, `1m30s`)."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

LONGEST: Final = 1e9  # seconds (31 years): a timer that is asked for more raises, and takes its actor along

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def seconds(value: object) -> float:
    """Seconds in `value`. Raises ValueError (with what would be valid) for anything that is no finite, non-negative duration."""
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str):
        number = _parse(value.strip())
    else:
        raise ValueError("give seconds as a number, a timedelta, or text such as '1500ms', '1.5s', '1m30s'")
    if not math.isfinite(number) or number < 0:
        raise ValueError("give a duration of zero or more")
    return number


def _parse(text: str) -> float:
    if text == "0":
        return 0.0
    total, position = 0.0, 0
    for match in _PART.finditer(text):
        if match.start() != position:
            break
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError("give a duration such as '1500ms', '1.5s', '1m30s' (units: ns us ms s m h)")
    return total
